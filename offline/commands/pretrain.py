"""`bcitrain pretrain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from engine.output import EXIT_INTERRUPTED, Output
from offline.commands._shared import Changes, Json, Resume, interrupted, need


def pretrain(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML of the pretraining; see configs/.")],
    resume: Resume = False,
    changes: Changes = None,
    json: Json = False,
) -> None:
    """Pretrain a system on shards; on N processes: torchrun --nproc-per-node=N -m offline.cli pretrain."""
    out, first = Output(json), os.environ.get("RANK", "0") == "0"
    with out.errors():
        need("torch", "lightning", "safetensors", "webdataset")
        from offline.pretrain.pretrain import machine
        from offline.pretrain.pretrain import pretrain as run_training
        from offline.pretrain.recipe import load

        settings = load(recipe, changes or ())
        precision = machine(settings).precision
        if first and precision != settings.optim.precision:
            out.say(f"No GPU here: precision {precision} instead of {settings.optim.precision}.")
        try:
            run = run_training(settings, resume=resume, progress=first and not json)
        except KeyboardInterrupt:
            if first:
                interrupted(out, _kept(settings.output))
            raise SystemExit(EXIT_INTERRUPTED) from None
        if first:
            out.result(
                {
                    "output": str(settings.output),
                    **run.scores,
                    "steps": run.steps,
                    "hours": run.hours,
                    "seconds": run.seconds,
                }
            )
            part = next(iter(settings.system.build(run.sfreq).parts()))
            out.say(f"Next: bcitrain export {settings.output} FOLDER --part {part}")


def _kept(output: Path) -> str:
    """Return what an interrupted training kept."""
    from offline.runs import CHECKPOINT, load_run

    if (output / CHECKPOINT).is_file():
        return f"step {load_run(output).steps} is kept. Go on: the same command with --resume"
    return "nothing is kept: the first checkpoint is written after steps_per_epoch steps"
