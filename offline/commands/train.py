"""`bcitrain train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._shared import Json, Resume, keeping, need


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML of the training; see configs/.")],
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value for a setting: optim.lr=0.001."),
    ] = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a model; its weights, scores and logs go to the recipe's output folder."""
    out = Output(json)
    with out.errors():
        need("torch", "lightning")
        from offline.train.recipe import load
        from offline.train.train import train as run_training

        settings = load(recipe, change or [])
        with keeping(out, lambda: _kept(settings.output)):
            run = run_training(settings, resume=resume, progress=not json)
        out.result(
            {
                "output": str(settings.output),
                **run.scores,
                "temperature": run.temperature,
                "seconds": run.seconds,
            }
        )
        out.say(f"Next: bcitrain export {settings.output} FOLDER")


def _kept(output: Path) -> str:
    """Return what an interrupted training kept."""
    from offline.train.train import CHECKPOINT

    if (output / CHECKPOINT).is_file():
        return "the last epoch is kept. Go on: the same command with --resume"
    return "nothing is kept: the first checkpoint is written after an epoch"
