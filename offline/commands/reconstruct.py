"""`bcitrain reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.output import Output
from offline.commands._bar import bar
from offline.commands._shared import Json, need
from streamer.errors import ConfigError


def reconstruct(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The output folder of a codec's pretraining.")],
    data: Annotated[Path, typer.Option(help="Folder of recordings.")],
    subjects: Annotated[
        list[str], typer.Option(help="These: a name or a range, S065-S080; may be repeated.")
    ],
    picture: Annotated[
        Path | None, typer.Option(help="Also draw originals, copies and spectra: a PNG.")
    ] = None,
    subject_pattern: Annotated[
        str | None, typer.Option(help="Regular expression that finds the subject in a file's path.")
    ] = None,
    hold: Annotated[int, typer.Option(min=1, help="Rows for which the recorder repeats each sample.")] = 1,
    uv_per_count: Annotated[
        float | None, typer.Option(help="µV per step, for recordings that tell no unit.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure how well a codec gives recordings back that it has not seen; those it has are left out."""
    out = Output(json)
    with out.errors():
        need("torch", "safetensors", *(["matplotlib"] if picture else []))
        from pydantic import ValidationError

        from engine.faults import faults
        from offline.data.sources import Folder
        from offline.reconstruct import reconstruct as measure

        try:
            folder = Folder(path=data, subject=subject_pattern, hold=hold, uv_per_count=uv_per_count)
        except ValidationError as error:
            raise ConfigError(f"These options cannot be used:\n{faults(error)}") from error
        with bar(out, "coding") as progress:
            document = measure(run, folder, subjects, picture=picture, progress=progress)
        if json:
            out.document(document)
        else:
            _show(out, document)


def _show(out: Output, document: dict[str, Any]) -> None:
    """Print the report for people: figures, then levels, then subjects."""
    tables = {"levels", "per_subject", "per_channel"}
    out.result({key: value for key, value in document.items() if key not in tables})
    out.table("by number of codebooks", document["levels"])
    rows = [
        {"subject": name, **{key: value for key, value in figures.items() if key != "r_by_codebooks"}}
        for name, figures in document["per_subject"].items()
    ]
    out.table("per subject", rows)
