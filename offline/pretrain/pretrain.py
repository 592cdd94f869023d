"""Pretrains a system on shards with Lightning, on one process or many, resumable to the bit.

``torchrun --nproc-per-node=N -m offline.cli pretrain RECIPE`` runs it on N processes, ``--nnodes=M`` on M
machines that share the output folder.  Each process takes its slice of the recipe's global batch, so what is
learned does not depend on how many there are, but for rounding and for dropout, of which each draws its own.

The order of events at the end of an epoch is: validation, ``weights.safetensors`` and ``run.json``, the
checkpoint, a line in the logs.  A process killed at any time resumes from the last whole checkpoint and
repeats what came after, with the same batches and the same random numbers.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from offline import provenance, run_folder, runs
from offline.checkpoint import SafetensorsIO
from offline.pretrain.data import PretrainData
from offline.pretrain.module import Pretraining
from offline.pretrain.recipe import PretrainRecipe
from offline.quiet import LIGHTNING, quiet
from offline.resume import interruptible
from offline.runs import CHECKPOINT, PretrainRun
from streamer.errors import ConfigError

GPU_WORKERS = 4  # processes that read ahead beside a GPU


class Machine(NamedTuple):
    """Where a training runs: accelerator, processes here and in all, and what they compute in."""

    accelerator: str
    rank: int
    local_world: int
    world: int
    precision: str

    @property
    def gpu(self) -> bool:
        """Return whether there is one."""
        return self.accelerator == "cuda"


def machine(recipe: PretrainRecipe) -> Machine:
    """Return what there is to train on: a GPU before the CPU, and the processes that torchrun started.

    On the CPU the precision is ``32-true``, whatever the recipe asks for.
    """
    gpu = torch.cuda.is_available()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    return Machine(
        accelerator="cuda" if gpu else "cpu",
        rank=int(os.environ.get("RANK", "0")),
        local_world=int(os.environ.get("LOCAL_WORLD_SIZE", str(world))),
        world=world,
        precision=recipe.optim.precision if gpu else "32-true",
    )


def pretrain(
    recipe: PretrainRecipe, *, resume: bool = False, progress: bool = True, stop_after: int | None = None
) -> PretrainRun:
    """Train and write the run folder.

    Parameters
    ----------
    resume : bool
        Go on from the last checkpoint; the result is the same as without the interruption.
    stop_after : int, optional
        Epochs (of ``steps_per_epoch``) after which to stop as if interrupted.

    Raises
    ------
    ConfigError, RecordingError
        The recipe does not fit the shards or the number of processes; there is no checkpoint to resume
        from, or one of another recipe; the loss is no longer a number.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; the last checkpoint is kept.
    """
    _check_output(recipe, resume)
    on = machine(recipe)
    data = PretrainData(recipe, rank=on.rank, world=on.world, num_workers=_workers(recipe, on), pin=on.gpu)
    torch.manual_seed(recipe.seed)
    system = recipe.system.build(data.train.sfreq)
    module = Pretraining(recipe, system, data, _words(on))
    with _quiet(), quiet(*LIGHTNING), interruptible():
        trainer = _trainer(recipe, on, progress, stop_after)
        checkpoint = recipe.output / CHECKPOINT if resume else None
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return module.run()


def _check_output(recipe: PretrainRecipe, resume: bool) -> None:
    """Refuse to resume from nothing, and to begin anew over an unfinished training."""
    checkpoint = recipe.output / CHECKPOINT
    if resume and not checkpoint.is_file():
        raise ConfigError(f"Nothing to resume: {checkpoint} is not there. Pretrain without --resume.")
    if resume or not checkpoint.is_file() or not (recipe.output / run_folder.RUN).is_file():
        return
    last = runs.load_run(recipe.output)
    if not last.finished:
        raise ConfigError(
            f"{recipe.output} holds a training that stopped at step {last.steps} of "
            f"{last.recipe.optim.steps}: go on with --resume, or remove the folder to begin anew."
        )


def _workers(recipe: PretrainRecipe, on: Machine) -> int:
    wanted = recipe.data.num_workers
    return wanted if wanted is not None else GPU_WORKERS if on.gpu else 0


def _words(on: Machine) -> dict[str, str]:
    return {
        "machine": provenance.machine(),
        "device": torch.cuda.get_device_name() if on.gpu else "CPU",
        "processes": str(on.world),
        "precision": on.precision,
    }


def _trainer(recipe: PretrainRecipe, on: Machine, progress: bool, stop_after: int | None) -> Any:
    folder = recipe.output
    start = f"start_{len(list(folder.glob('logs/start_*')))}"  # one folder of logs per start or resume
    return L.Trainer(
        accelerator=on.accelerator,
        devices=on.local_world,
        num_nodes=on.world // on.local_world,
        strategy="ddp" if on.world > 1 else "auto",
        precision=on.precision,
        accumulate_grad_batches=recipe.optim.accumulate,
        max_epochs=recipe.epochs if stop_after is None else min(stop_after, recipe.epochs),
        plugins=[SafetensorsIO()],
        callbacks=[_Bar()] if progress else [],
        logger=[CSVLogger(folder, "logs", version=start), TensorBoardLogger(folder, "logs", version=start)],
        enable_progress_bar=progress,
        enable_model_summary=False,
        enable_checkpointing=False,  # `Pretraining` keeps them
        use_distributed_sampler=False,  # batches are cut by process already
        num_sanity_val_steps=0,
        inference_mode=False,  # what validation leaves in buffers must be usable in training
        log_every_n_steps=1,
        deterministic=not on.gpu,
    )


class _Bar(RichProgressBar):  # type: ignore[misc]
    """The progress bar, on standard error, with the last loss."""

    def __init__(self) -> None:
        super().__init__(console_kwargs={"stderr": True})

    def get_metrics(self, trainer: Any, module: Any) -> dict[str, Any]:
        """Return what is shown beside the bar."""
        return dict(module.shown)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # How many processes read ahead is a setting; on the CPU more than none rarely pays.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Codebooks and scales are in eval mode or not as their system wants them.
        warnings.filterwarnings("ignore", message=".*module.* in eval mode at the start of training.*")
        # Gradients of 1-wide kernels have strides of their own; several processes add them up all the same.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # Lightning 2.6 asks torch's pytree in a way that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        yield
