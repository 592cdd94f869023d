"""`bcitrain personalise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.output import Output
from offline.commands._bar import bar
from offline.commands._shared import BundleRef, DataFolder, Json, Subjects, need, quiet
from streamer.errors import ConfigError


def personalise(
    bundle: BundleRef,
    data: DataFolder,
    subjects: Subjects = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where one person's bundle goes; without, people are scored."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The run folder of the bundle, where it does not carry its training itself."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="To score: learn from the first s of each person.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="To score: learn from at most so many trials of each person.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps.")] = 20,
    lr: Annotated[float, typer.Option(min=1e-9, help="Their size.")] = 2e-3,
    json: Json = False,
) -> None:
    """Fit a decoder's filters over electrodes to one person, or say what that is worth to people."""
    out = Output(json)
    with out.errors():
        need("torch", "lightning", "onnx", "onnxscript", "sklearn")
        from offline.personal_filters import Settings
        from offline.personalise import origin, personalise_one, score_people

        quiet("torch.onnx._internal.exporter._registration")
        one, settings = origin(bundle, run), Settings(steps=steps, lr=lr)
        if output is not None:
            if subjects is not None and len(subjects) > 1:
                raise ConfigError("A bundle is made for one person: name one, --subjects S005.")
            if seconds is not None or trials is not None:
                raise ConfigError("With -o all trials are learned from: leave --seconds and --trials out.")
            came, counts, written = personalise_one(
                one, data, subjects[0] if subjects else None, output, settings
            )
            out.result(_told(came, counts, written, output))
            return
        limit = 60.0 if seconds is None and trials is None else seconds
        with bar(out, "personalising") as progress:
            found = score_people(
                one, data, subjects, settings, seconds=limit, trials=trials, progress=progress
            )
        if json:
            out.document(found)
            return
        _show(out, found)


def _told(came: Any, counts: dict[str, int], written: Any, output: Path) -> dict[str, Any]:
    """Say what was made, or why nothing was."""
    result = written.label if written else "the bundle was kept: left-out trials were answered no better"
    return {
        "result": result,
        **({"folder": str(output)} if written else {}),
        "trials": counts,
        "cross_entropy_before": round(came.before, 4),
        "cross_entropy_personal": round(came.after, 4),
    }


def _show(out: Output, found: dict[str, Any]) -> None:
    """Print a row per person, and the mean."""
    columns = ("zero_shot", "personal", "taken", "refitted", "gain_points", "trials")
    rows = [
        {"subject": name, **{key: row[key] for key in columns}} for name, row in found["per_subject"].items()
    ]
    out.table("the rest of each person's recordings, without and with filters of their own", rows)
    kept = ("zero_shot", "refitted", "gain_points", "worst_points", "better", "worse", "new_heads", "skipped")
    out.result({key: found[key] for key in kept})
    live = [{"filters": name, **row} for name, row in found["live"].items() if row]
    if live:
        out.table("live use of the rest, by the bundle's own decision stage", live)
