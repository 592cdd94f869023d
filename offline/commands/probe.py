"""`bcitrain probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._bar import bar
from offline.commands._shared import DONE_STAYS, Json, keeping, need


def probe(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML of the probe; see configs/.")],
    json: Json = False,
) -> None:
    """Measure what pretrained nets are worth with few labels; goes on where it was interrupted."""
    out = Output(json)
    with out.errors():
        need("torch", "safetensors", "sklearn", "matplotlib")
        from offline.probe.probe import probe as compare
        from offline.probe.recipe import load

        recipe = load(config)
        with keeping(out, DONE_STAYS), bar(out, "probing") as progress:
            document = compare(recipe, progress=progress)
        if json:
            out.document(document)
            return
        out.table(
            " / ".join(document["task"]["classes"]),
            [{k: v for k, v in row.items() if k != "per_subject"} for row in document["summary"]],
        )
        out.say(f"Table, picture and every figure: {recipe.output}")
