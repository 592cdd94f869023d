"""`bcitrain crossval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._bar import bar
from offline.commands._shared import DONE_STAYS, Json, keeping, need


def crossval(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML of the cross-validation; see configs/.")
    ],
    json: Json = False,
) -> None:
    """Pretrain and test in folds of people, EEG only at the test; goes on where it was interrupted."""
    out = Output(json)
    with out.errors():
        need("torch", "lightning", "safetensors", "sklearn", "matplotlib")
        from offline.crossval.crossval import crossval as run
        from offline.crossval.recipe import load

        recipe = load(config)
        with keeping(out, DONE_STAYS), bar(out, "cross-validating") as progress:
            document = run(recipe, progress=progress)
        if json:
            out.document(document)
            return
        shown = ("row", "balanced_accuracy", "sd", "interval", "auroc", "auroc_interval")
        out.table("new people", [{name: row[name] for name in shown} for row in document["rows"]])
        if document["differences"]:
            kept = ("row", "against", "balanced_accuracy", "interval", "corrected_p")
            rows = [{name: one[name] for name in kept} for one in document["differences"]]
            out.table("first minus second", rows)
        out.say(f"Tables, picture and every figure: {recipe.output}")
