"""`bcitrain cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._shared import Json, need


def cost(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML of a training or a pretraining.")],
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to time the forms for, s.")] = 20.0,
    json: Json = False,
) -> None:
    """Count and time a decision of a recipe's model: its step against computing its window again."""
    out = Output(json)
    with out.errors():
        need("torch", "onnx", "onnxscript")
        from offline.cost import measure, of_recipe

        out.say("Random weights: what a decision costs depends on the model's sizes alone.")
        model, published = of_recipe(recipe)
        document = measure(model, published=published, seconds=seconds)
        if json:
            out.document(document)
            return
        out.result({key: value for key, value in document.items() if key != "forms"})
        out.table("per decision", [{"form": name, **form} for name, form in document["forms"].items()])
