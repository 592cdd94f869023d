"""`bcitrain operate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.output import Output
from offline.commands._folder import (
    Channels,
    Hold,
    Holes,
    Labels,
    SubjectPattern,
    TrialS,
    UvPerCount,
    folder_of,
    given,
)
from offline.commands._shared import BEGINS_ANEW, BundleRef, Json, Subjects, keeping
from streamer.errors import ConfigError

if TYPE_CHECKING:
    from engine.bundle import Bundle


def operate(
    bundle: BundleRef,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the new bundle goes; may be the old one's folder.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of recordings of people whom the bundle was not trained on (those that validated it"
            " may be among them); with --played, to measure on them what a new head gains."
        ),
    ] = None,
    played: Annotated[
        Path | None,
        typer.Option(help="Instead: a benchmark's cells of the bundle's recipe, such as RUN/cells/ours."),
    ] = None,
    nets: Annotated[
        Path | None,
        typer.Option(
            help="With --played and --data: the benchmark's models, such as RUN/models/ours, to measure what"
            " a new head gains with each of them on everybody whom it was not trained on."
        ),
    ] = None,
    subjects: Subjects = None,
    clear_s: Annotated[
        float | None,
        typer.Option(min=0, help="Unmarked signal asks for nothing so far from a command's marker, s."),
    ] = None,
    early_s: Annotated[
        float | None, typer.Option(min=0, help="A label may begin so long before its command's marker, s.")
    ] = None,
    subject_pattern: SubjectPattern = None,
    hold: Hold = None,
    uv_per_count: UvPerCount = None,
    holes: Holes = None,
    channels: Channels = None,
    labels: Labels = None,
    trial_s: TrialS = None,
    json: Json = False,
) -> None:
    """Fit how a bundle decides on people it was not trained on, so that a run can ask for false_per_min."""
    out = Output(json)
    with out.errors():
        from offline.commands._bar import bar
        from offline.evaluate.recordings import Options
        from offline.operate import operate as run
        from offline.operate import operate_played

        folder = folder_of(subject_pattern, hold, uv_per_count, holes, channels, labels)
        live = given(clear_s=clear_s, early_s=early_s)
        options = Options(folder=folder, protocol={"live": live}, trial_s=trial_s)
        if data is None and played is None:
            raise ConfigError("Give --data, recordings to play, or --played, cells of a benchmark.")
        if data is None and folder:
            raise ConfigError(
                "--labels, --channels and the like say how recordings are read: give --data as well."
            )
        if nets is not None and (data is None or played is None):
            raise ConfigError("--nets goes with --played and --data: whose recordings are asked about.")
        with keeping(out, BEGINS_ANEW), bar(out, "measuring") as progress:
            if played is not None:
                operated = operate_played(
                    bundle, played, output, subjects, data=data, nets=nets, options=options, progress=progress
                )
            elif data is not None:
                operated = run(bundle, data, output, subjects, options=options, progress=progress)
        readout = operated.readout
        points = [point.model_dump(mode="json") for point in readout.operating]
        decision = readout.decision.model_dump(mode="json")
        about = operated.manifest.provenance["operating"]
        gained = _gained(operated)
        if json:
            told = {"bundle": operated.label, "decision": decision, "operating": points, "gained": gained}
            out.document({**told, **about})
            return
        out.result({"bundle": operated.label, "folder": str(output), **decision, **about})
        if gained:
            out.table("what a new head gained others, points", gained)
        if points:
            out.table("hits against false activations per minute", points)


def _gained(bundle: Bundle) -> list[dict[str, Any]]:
    """Return a row per number of trials of each class: what a refitted head gained others, points."""
    from engine.head import source_head

    table = source_head(bundle).gains if bundle.readout.head is not None else ()
    return [
        {
            "trials": row.trials,
            "people": row.n,
            "mean": round(row.mean, 2),
            "worst": min(row.points),
            "best": max(row.points),
            "lose": sum(points < 0 for points in row.points),
        }
        for row in table
    ]
