"""`bcitrain operate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._shared import BundleRef, DataFolder, Json, Subjects


def operate(
    bundle: BundleRef,
    data: DataFolder,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the new bundle goes; may be the old one's folder.")
    ],
    subjects: Subjects = None,
    json: Json = False,
) -> None:
    """Fit how a bundle decides on people it never met, so that a run can ask for false_per_min."""
    out = Output(json)
    with out.errors():
        from offline.commands._bar import bar
        from offline.operate import operate as run

        with bar(out, "measuring") as progress:
            operated = run(bundle, data, output, subjects, progress=progress)
        readout = operated.readout
        points = [point.model_dump(mode="json") for point in readout.operating]
        decision = readout.decision.model_dump(mode="json")
        about = operated.manifest.provenance["operating"]
        if json:
            out.document({"bundle": operated.label, "decision": decision, "operating": points, **about})
            return
        out.result({"bundle": operated.label, "folder": str(output), **decision, **about})
        out.table("hits against false activations per minute", points)
