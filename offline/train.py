"""Trains a recipe with Lightning, resumable to the bit, and leaves a run folder behind.

::

    OUTPUT/
      run.json              the recipe, the DSP list with its prior, what was trained on, the scores
      weights.safetensors   the averaged weights
      checkpoints/last.ckpt where ``--resume`` goes on; see `offline.checkpoint`
      logs/                 CSV and TensorBoard
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from offline import run_folder
from offline.calibrate import fit_temperature
from offline.checkpoint import SafetensorsIO
from offline.data.corpus import Corpus, Recording
from offline.data.trials import IGNORE, Batch, Prepared, TrialBatches, mirror, prepare, with_prior
from offline.objectives import imagery as objectives
from offline.provenance import versions
from offline.recipe import Recipe, Step
from streamer.components import Config
from streamer.errors import ConfigError, RecordingError

CHECKPOINT = Path("checkpoints") / "last.ckpt"


class Run(Config):
    """A finished training: what export needs beside the weights.

    Attributes
    ----------
    dsp : tuple of steps
        The recipe's, its `align` with the population's prior.
    fingerprints : dict of str to tuple of str
        Of every recording that had a part in the weights: ``train`` and ``validate``.
    temperature : float
        Fitted on the validation subjects.
    scores : dict
        On the validation subjects, from whole windows; the pipeline's figures come from `evaluate`.
    """

    recipe: Recipe
    dsp: tuple[Step, ...]
    fingerprints: dict[str, tuple[str, ...]]
    temperature: float
    scores: dict[str, float]
    seconds: float
    versions: dict[str, str]


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
    ConfigError, RecordingError
        The recipe does not fit the recordings, or there is no checkpoint to resume from.
    """
    started = time.monotonic()
    checkpoint = recipe.output / CHECKPOINT
    if resume and not checkpoint.is_file():
        raise ConfigError(f"Nothing to resume: {checkpoint} is not there. Train without --resume.")
    L.seed_everything(recipe.seed, verbose=False)
    data = ImageryData(recipe)
    module = Imagery(recipe, data.train_batches)
    trainer = _trainer(recipe, progress, stop_after)
    with warnings.catch_warnings():
        # Batches come ready-made from memory: workers would only copy them between processes.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # It is not empty when a training is resumed or repeated, which is what was asked for.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        # Lightning 2.6 asks torch's pytree in a way that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint if resume else None, weights_only=True)
    run = Run(
        recipe=recipe,
        dsp=data.dsp,
        fingerprints=data.fingerprints,
        temperature=_temperature(module, data),
        scores={
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")
        },
        seconds=round(time.monotonic() - started, 1),
        versions=versions("torch", "lightning", "numpy", "scipy"),
    )
    run_folder.write(recipe.output, run, module.model)
    return run


def load_run(folder: str | Path) -> Run:
    """Read the ``run.json`` of a run folder; `ConfigError` when it is not one."""
    return run_folder.read(folder, Run, "train", "a finished training")


class ImageryData(L.LightningDataModule):  # type: ignore[misc]
    """Training and validation windows, preprocessed once and kept in memory (0.1 MB a second of 22 channels).

    Attributes
    ----------
    dsp : tuple of steps
        As in `Run`.
    fingerprints : dict of str to tuple of str
        As in `Run`.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        corpus = Corpus(recipe.data.folder)
        train_subjects = corpus.select(recipe.data.train)
        validate_subjects = corpus.select(recipe.data.validate_)
        shared = set(train_subjects) & set(validate_subjects)
        if shared:
            raise ConfigError(f"Subjects {', '.join(sorted(shared))} both train and validate: separate them.")
        train_set = _recordings(corpus, train_subjects, recipe)
        validate_set = _recordings(corpus, validate_subjects, recipe)
        self.dsp = with_prior(train_set, recipe.ch_names, recipe.dsp)
        self.fingerprints = {
            "train": tuple(sorted(recording.fingerprint for recording in train_set)),
            "validate": tuple(sorted(recording.fingerprint for recording in validate_set)),
        }
        order = mirror(recipe.ch_names) if recipe.augment.mirror else []
        prepared = self._prepare(train_set)
        self.train_batches = self._batches(prepared, augment=recipe.augment, mirror_order=order)
        self.validation_batches = self._batches(self._prepare(validate_set))

    def _prepare(self, recordings: Sequence[Recording]) -> list[Prepared]:
        recipe = self.recipe
        return [prepare(recording, recipe.ch_names, self.dsp, recipe.classes) for recording in recordings]

    def _batches(self, prepared: Sequence[Prepared], **options: Any) -> TrialBatches:
        recipe = self.recipe
        return TrialBatches(
            prepared,
            recipe.window,
            sfreq=recipe.sfreq,
            hop=recipe.model.hop,
            batch_size=recipe.optim.batch_size,
            seed=recipe.seed,
            **options,
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training loader; the module tells its data set which epoch it is."""
        return _loader(self.train_batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation loader."""
        return _loader(self.validation_batches)


class Imagery(L.LightningModule):  # type: ignore[misc]
    """The model, its loss and its optimiser; ``batches`` is what the training loader draws from."""

    def __init__(self, recipe: Recipe, batches: TrialBatches) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = recipe.model.build()
        self._batches = batches
        self._seen: list[tuple[Tensor, ...]] = []

    def on_train_epoch_start(self) -> None:
        """Draw batches and dropout by the epoch, so that a resumed training goes on as it would have."""
        self._batches.begin(self.current_epoch)
        torch.manual_seed(self.recipe.seed * 100_003 + self.current_epoch)

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """Return the loss of one batch."""
        x, hops, side, answer = batch
        logits, _, _ = self.model.forward_members(x, self.model.init_state(len(x)))
        value = objectives.loss(logits, hops, side, answer, self.recipe.objective) / len(logits)
        self.log("train_loss", value, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(x))
        return value * len(logits)  # the gradient of each member is what it would be alone

    def validation_step(self, batch: Batch, _index: int) -> None:
        """Collect answers and hops."""
        x, hops, side, answer = batch
        outputs, _ = self.model(x, self.model.init_state(len(x)))
        odds = objectives.log_odds(outputs["logits"], answer)
        self._seen.append((odds, side, outputs["logits"].argmax(-1).flatten(), hops.flatten()))

    def on_validation_epoch_end(self) -> None:
        """Log the share of right answers, left against right, and the balanced share of right hops."""
        odds, side, found, hops = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
        self._seen.clear()
        scored = [found[hops == k] == k for k in range(len(self.recipe.classes)) if (hops == k).any()]
        balanced = torch.stack([right.float().mean() for right in scored]).mean()
        self.log("val_accuracy", ((odds > 0) == (side > 0)).float().mean(), prog_bar=True)
        self.log("val_trial_loss", torch.nn.functional.binary_cross_entropy_with_logits(odds, side.float()))
        self.log("val_hop_balanced_accuracy", balanced)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW and one cycle of the learning rate."""
        optim = self.recipe.optim
        optimizer = torch.optim.AdamW(self.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
        steps = optim.epochs * len(self._batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, optim.lr, steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _trainer(recipe: Recipe, progress: bool, stop_after: int | None) -> Any:
    folder = recipe.output
    start = f"start_{len(list(folder.glob('logs/start_*')))}"  # one folder of logs per start or resume
    callbacks: list[Any] = [
        EMAWeightAveraging(decay=recipe.optim.average),
        # Not save_last: that writes only when training ends, after the average has replaced the weights.
        ModelCheckpoint(folder / CHECKPOINT.parent, filename=CHECKPOINT.stem, enable_version_counter=False),
    ]
    if progress:
        callbacks.append(RichProgressBar())
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


def _loader(batches: TrialBatches) -> DataLoader[Batch]:
    """Return a loader with a generator of its own: else it draws from the one that dropout draws from."""
    return DataLoader(batches, batch_size=None, generator=torch.Generator())


def _recordings(corpus: Corpus, subjects: Sequence[str], recipe: Recipe) -> list[Recording]:
    """Return the recordings of the task, at the model's rate, that cue any class but the first."""
    chosen = [
        recording
        for subject in subjects
        for recording in corpus.recordings(subject)
        if recording.meta.get("task", recipe.data.task) == recipe.data.task
        and recording.cues(recipe.classes[1:])
        and recording.info.sfreq == recipe.sfreq
    ]
    if not chosen:
        raise RecordingError(
            f"{corpus.folder}: none of {', '.join(subjects)} has a recording of task {recipe.data.task!r} at "
            f"{recipe.sfreq:g} Hz with cues {' or '.join(recipe.classes[1:])}."
        )
    return chosen


def _temperature(module: Imagery, data: ImageryData) -> float:
    """Fit the temperature on the validation hops, with the averaged weights."""
    model, batches = module.model.eval(), data.validation_batches
    with torch.inference_mode():
        results = [
            (model(x, model.init_state(len(x)))[0]["logits"].flatten(0, 1), hops.flatten())
            for x, hops, _, _ in (batches[i] for i in range(len(batches)))
        ]
    logits, hops = (torch.cat(parts) for parts in zip(*results, strict=True))
    return fit_temperature(logits[hops != IGNORE], hops[hops != IGNORE])
