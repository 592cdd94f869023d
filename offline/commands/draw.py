"""`bcitrain draw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._shared import BundleRef, Json, Subjects, need


def draw(
    bundle: BundleRef,
    recording: Annotated[
        Path, typer.Argument(help="A recording with cues; for --topography also a folder of recordings.")
    ],
    picture: Annotated[Path, typer.Argument(help="The picture to write: .png, .svg or .pdf.")],
    start_s: Annotated[float, typer.Option(min=0.0, help="Where the picture begins, s.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="How much of the recording it shows.")] = 60.0,
    topography: Annotated[
        bool, typer.Option("--topography", help="Draw where on the head the decoder's evidence comes from.")
    ] = False,
    subjects: Subjects = None,
    json: Json = False,
) -> None:
    """Draw what a bundle decided over a recording, beside what was asked; or what it looks at."""
    out = Output(json)
    with out.errors():
        need("matplotlib")
        from engine.bundle import load
        from offline.evaluate.recordings import find_people, open_file, openers, task_of
        from offline.picture import refuse

        refuse(picture)
        loaded = load(bundle)
        if topography:
            from offline.evaluate.topography import draw_topography

            task = task_of(loaded, recording if recording.is_dir() else recording.parent)
            if recording.is_dir():
                found = [
                    read() for person in find_people(task, subjects) for _, read in openers(task, person)
                ]
            else:
                found = [open_file(task, recording)]
            out.result(draw_topography(loaded, found, picture))
        else:
            from offline.picture import draw as paint

            session = open_file(task_of(loaded, recording.parent), recording)
            out.result(paint(loaded, session, picture, start_s, seconds))
