"""`bcitrain draw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._shared import BundleRef, Json, need


def draw(
    bundle: BundleRef,
    recording: Annotated[Path, typer.Argument(help="An .npz recording with cues.")],
    picture: Annotated[Path, typer.Argument(help="The PNG to write.")],
    start_s: Annotated[float, typer.Option(min=0.0, help="Where the picture begins, s.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="How much of the recording it shows.")] = 60.0,
    json: Json = False,
) -> None:
    """Draw what a bundle decided over a recording, beside what the subject was asked to do."""
    out = Output(json)
    with out.errors():
        need("matplotlib")
        from engine.bundle import load
        from offline.data.corpus import read
        from offline.picture import draw as paint

        out.result(paint(load(bundle), read(recording), picture, start_s, seconds))
