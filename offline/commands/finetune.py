"""`bcitrain finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import Output
from offline.commands._bar import bar
from offline.commands._shared import Changes, Json, Resume, keeping, need
from streamer.errors import ConfigError


def finetune(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML of the fine-tuning; see configs/.")],
    resume: Resume = False,
    changes: Changes = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            "--test",
            metavar="SUBJECTS",
            help="Train nothing: score the finished run on these, a name or a range; may be repeated.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a pretrained backbone decide: a head on its latents, and as much of it as is to learn."""
    out = Output(json)
    with out.errors():
        need("torch", "lightning", "safetensors", "sklearn")
        from offline.finetune.finetune import finetune as run_training
        from offline.finetune.recipe import load

        settings = load(recipe, changes or ())
        if test:
            _test(out, settings.output, test, resume)
            return
        steps = settings.mode != "frozen"
        with (
            keeping(out, lambda: _kept(settings.output, steps=steps)),
            bar(out, "reading recordings") as progress,
        ):
            run = run_training(settings, resume=resume, progress=progress)
        frozen = {f"frozen_{name}": run.start[name] for name in ("balanced_accuracy", "cross_entropy")}
        out.result(
            {
                "output": str(settings.output),
                **run.scores,
                **(frozen if settings.mode != "frozen" else {}),
                "kept_step": run.kept,
                "temperature": run.temperature,
                "seconds": run.seconds,
            }
        )
        for note in run.notes:
            out.say(f"Note: {note}.")
        out.say(f"Next: bcitrain export {settings.output} FOLDER")


def _test(out: Output, run: Path, subjects: list[str], resume: bool) -> None:
    """Score a finished run on other people, and show the figures."""
    from offline.finetune.tested import TEST, score_others

    if resume:
        raise ConfigError("--test scores a finished run: leave out --resume.")
    with bar(out, "reading recordings") as progress:
        document = score_others(run, subjects, progress=progress)
    if out.json:
        out.document(document)
        return
    out.result({"model": document["model"], **document["scores"]})
    out.table("per subject", [{"subject": name, **row} for name, row in document["per_subject"].items()])
    out.say(f"Every figure: {run / TEST}")


def _kept(output: Path, *, steps: bool) -> str:
    """Return what an interrupted fine-tuning kept."""
    from offline.runs import CHECKPOINT

    if not steps:
        return "nothing is kept: a frozen backbone has no steps to resume"
    if (output / CHECKPOINT).is_file():
        return "the last checkpoint is kept. Go on: the same command with --resume"
    return "nothing is kept: the first checkpoint is written after optim.evaluate_every steps"
