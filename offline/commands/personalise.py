"""`bcitrain personalise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.output import Output
from offline.commands._bar import bar
from offline.commands._folder import (
    Channels,
    Hold,
    Holes,
    Labels,
    SubjectPattern,
    TrialS,
    UvPerCount,
    folder_of,
)
from offline.commands._shared import (
    BEGINS_ANEW,
    BundleRef,
    DataFolder,
    Json,
    Subjects,
    keeping,
    need,
)
from streamer.errors import ConfigError

if TYPE_CHECKING:
    from offline.personal.writing import Own

MINUTE_S = 60.0


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
    steps: Annotated[int | None, typer.Option(min=1, help="Gradient steps.")] = None,
    lr: Annotated[float | None, typer.Option(min=1e-9, help="Their size.")] = None,
    subject_pattern: SubjectPattern = None,
    hold: Hold = None,
    uv_per_count: UvPerCount = None,
    holes: Holes = None,
    channels: Channels = None,
    labels: Labels = None,
    trial_s: TrialS = None,
    json: Json = False,
) -> None:
    """Fit a decoder's filters over electrodes to one person, or say what that is worth to people."""
    out = Output(json)
    with out.errors():
        need("torch", "lightning", "onnx", "onnxscript", "sklearn")
        import torch

        from offline.evaluate.recordings import Options
        from offline.personal.filters import Settings
        from offline.personal.origin import origin
        from offline.personal.scoring import score_people
        from offline.personal.writing import personalise as make

        # Small nets: beside other work threads wait for each other, 106 s instead of 12 for 15 trials.
        torch.set_num_threads(1)
        given = {name: value for name, value in (("steps", steps), ("lr", lr)) if value is not None}
        settings = Settings.model_validate(given)
        folder = folder_of(subject_pattern, hold, uv_per_count, holes, channels, labels)
        options = Options(folder=folder, trial_s=trial_s)
        if output is not None:
            if seconds is not None or trials is not None:
                raise ConfigError("With -o all trials are learned from: leave --seconds and --trials out.")
            if subjects is not None and len(subjects) > 1:
                raise ConfigError("A bundle is made for one person: name one, --subjects S005.")
            who = subjects[0] if subjects else None
            with keeping(out, BEGINS_ANEW):
                own = make(origin(bundle, run), data, who, output, settings, options=options)
            out.result(_told(own, output))
            return
        limit = MINUTE_S if seconds is None and trials is None else seconds
        with keeping(out, BEGINS_ANEW), bar(out, "personalising") as progress:
            found = score_people(
                origin(bundle, run),
                data,
                subjects,
                settings,
                seconds=limit,
                trials=trials,
                options=options,
                progress=progress,
            )
        if json:
            out.document(found)
        else:
            _show(out, found)


def _told(own: Own, output: Path) -> dict[str, Any]:
    """Say what was made, or why nothing was."""
    from offline.evaluate.namesakes import told

    result = own.bundle.label if own.bundle else "kept: left-out trials were answered no better"
    rests = len(own.person.shown.rest)
    return {
        "result": result,
        "folder": str(output) if own.bundle else None,
        "trials": own.trials,
        "cues_left_out": own.person.shown.left_out,
        "rests": rests or "none: nothing held it back in rest, ask for few false activations",
        "recordings_left_out": list(own.person.left_out),
        "notes": told([own.person.name] if own.person.namesake else []),
        "cross_entropy_before": round(own.came.before, 4),
        "cross_entropy_personal": round(own.came.after, 4),
        "bolder": round(own.came.bolder, 3),
    }


def _show(out: Output, found: dict[str, Any]) -> None:
    """Print a row per person, and the mean."""
    columns = ("zero_shot", "personal", "taken", "kept", "gain_points", "trials", "rests", "bolder")
    rows = [
        {"subject": name, **{key: row[key] for key in columns}} for name, row in found["per_subject"].items()
    ]
    out.table("what comes after the trials that were learned from", rows)
    out.result({key: value for key, value in found.items() if key not in {"per_subject", "live", "settings"}})
    live = [{"filters": name, **row} for name, row in found["live"].items() if row]
    if live:
        out.table("live use of it, by the bundle's own decision stage", live)
