"""Trains a recipe with Lightning, resumable to the bit; what it leaves is in `offline.train.run`."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from offline import checkpoint as files
from offline import operating, run_folder
from offline.checkpoint import SafetensorsIO
from offline.provenance import versions
from offline.quiet import LIGHTNING, quiet
from offline.resume import interruptible
from offline.train import fitted
from offline.train.cuts import hops
from offline.train.data import Material, read_material
from offline.train.module import Learning, Loaders
from offline.train.recipe import Recipe
from offline.train.run import Run, load_run
from offline.train.validate import as_played, scores, stepped
from streamer.errors import ConfigError

FOLDER = Path("checkpoints")
CHECKPOINT, BEST = FOLDER / "last.ckpt", FOLDER / "best.ckpt"
JUDGED_BY = "val_cross_entropy"


def train(
    recipe: Recipe, *, resume: bool = False, progress: bool = True, stop_after: int | None = None
) -> Run:
    """Train and write the run folder.

    Parameters
    ----------
    resume : bool
        Go on from the last checkpoint; the result is the same as without the interruption.
    stop_after : int, optional
        Epochs after which to stop as if interrupted.

    Raises
    ------
    ConfigError, RecordingError, StreamMismatch
        The recipe does not fit the recordings, there is no checkpoint to resume from, or the output folder
        holds another training.
    KeyboardInterrupt
        Interrupted; the last checkpoint is kept.
    """
    started = time.monotonic()
    checkpoint = recipe.output / CHECKPOINT
    _check_output(recipe, resume)
    L.seed_everything(recipe.seed, verbose=False)
    material = read_material(recipe)
    if isinstance(recipe.cut, hops.Config):
        model = fitted.fit(recipe, material)
    else:
        model = _learned(recipe, material, checkpoint if resume else None, progress, stop_after)
    run = _finished(recipe, material, model, time.monotonic() - started)
    run_folder.write(recipe.output, run, model)
    return run


def _check_output(recipe: Recipe, resume: bool) -> None:
    """Refuse to resume from nothing, and to train over an unfinished training or another one."""
    folder, checkpoint = recipe.output, recipe.output / CHECKPOINT
    if resume and not checkpoint.is_file():
        raise ConfigError(f"Nothing to resume: {checkpoint} is not there. Train without --resume.")
    finished = (folder / run_folder.RUN).is_file()
    if not resume and not finished and checkpoint.is_file():
        raise ConfigError(
            f"{folder} holds a training that was interrupted: go on with --resume, or remove the folder to "
            "begin anew."
        )
    if finished and load_run(folder).recipe.digest() != recipe.digest():
        raise ConfigError(
            f"{folder} holds another training: name another folder (--set output=FOLDER), or remove it."
        )


def _learned(
    recipe: Recipe, material: Material, checkpoint: Path | None, progress: bool, stop_after: int | None
) -> Any:
    """Return the model after its steps, with the weights that are kept."""
    loaders = Loaders(recipe, material)
    module = Learning(recipe)
    with warnings.catch_warnings(), quiet(*LIGHTNING), interruptible():
        # Batches come ready-made from memory: workers would only copy them between processes.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # It is not empty when a training is resumed or repeated, which is what was asked for.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        # Lightning 2.6 asks torch's pytree in a way that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        trainer = _trainer(recipe, progress, stop_after)
        trainer.fit(module, datamodule=loaders, ckpt_path=checkpoint, weights_only=True)
    # From the file: where no epoch was left to resume, Lightning has not put the average in place.
    kept = BEST if recipe.optim.keep == "best" else CHECKPOINT
    module.load_state_dict(files.load(recipe.output / kept)["state_dict"])
    return module.model.eval()


def _finished(recipe: Recipe, material: Material, model: Any, seconds: float) -> Run:
    """Return what became of a training, with the scores of the weights that are kept."""
    side = material.validate
    logits = stepped(model, side.prepared)
    scaled = 1.0 if isinstance(recipe.cut, hops.Config) else None  # by more people than validate
    figures, temperature = scores(logits, side, recipe, model.left_context, scaled)
    played = as_played(logits, side, recipe, model.left_context, temperature)
    decision, points = operating.fit(
        played, recipe.classes, recipe.idle, recipe.decision, recipe.protocol.live
    )
    sides = {"train": material.train, "validate": side}
    return Run(
        recipe=recipe,
        dsp=material.dsp,
        subjects={name: one.subjects for name, one in sides.items()},
        fingerprints={name: one.fingerprints for name, one in sides.items()},
        temperature=temperature,
        decision=decision,
        operating=points,
        scores=figures,
        seconds=round(seconds, 1),
        versions=versions("torch", "lightning", "numpy", "scipy"),
    )


def _trainer(recipe: Recipe, progress: bool, stop_after: int | None) -> Any:
    folder = recipe.output
    start = f"start_{len(list(folder.glob('logs/start_*')))}"  # one folder of logs per start or resume
    callbacks: list[Any] = [EMAWeightAveraging(decay=recipe.optim.average)]
    if recipe.optim.keep == "best":  # before the other, whose file holds what this one has kept so far
        callbacks.append(_keeper(folder, BEST, monitor=JUDGED_BY, mode="min"))
    # Not save_last: that writes only when training ends, after the average has replaced the weights.
    callbacks.append(_keeper(folder, CHECKPOINT))
    if progress:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))  # the result is on standard output
    return L.Trainer(
        accelerator="cpu",
        max_epochs=recipe.optim.epochs if stop_after is None else min(stop_after, recipe.optim.epochs),
        callbacks=callbacks,
        plugins=[SafetensorsIO()],
        logger=[
            CSVLogger(folder, "logs", version=start, flush_logs_every_n_steps=1),
            TensorBoardLogger(folder, "logs", version=start),
        ],
        enable_progress_bar=progress,
        enable_model_summary=False,
        gradient_clip_val=recipe.optim.clip_norm,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        deterministic=True,
    )


def _keeper(folder: Path, name: Path, **judged: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder / name.parent, filename=name.stem, enable_version_counter=False, **judged)
