"""The Lightning side of a pretraining: `Pretraining` steps a system, counts, logs, keeps what was learned."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from offline import runs
from offline.pretrain.data import PretrainData
from offline.pretrain.recipe import Optim, PretrainRecipe
from offline.provenance import versions
from offline.resume import changed_settings, check_unchanged
from offline.runs import CHECKPOINT, PretrainRun
from offline.systems import Moment, Segments, System
from streamer.errors import ConfigError

SHOWN_EVERY = 20  # micro-batches; on a GPU reading the loss waits for the step to be over


class Tally:
    """Running means of what the steps of an epoch report, on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """Add one scalar per name."""
        for name, value in figures.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self, strategy: Any) -> dict[str, float]:
        """Return the mean of each figure over the steps and the processes."""
        names = sorted(self._sums)
        means = torch.stack([self._sums[name] / self._counts[name] for name in names])
        return dict(zip(names, strategy.reduce(means, reduce_op="mean").tolist(), strict=True))


class Pretraining(L.LightningModule):  # type: ignore[misc]
    """A system under training.

    Parameters
    ----------
    data : PretrainData
        For what the run says about its corpus.
    machine : dict of str to str
        Likewise about where it ran.

    Attributes
    ----------
    shown : dict of str to float
        For the progress bar.
    """

    def __init__(
        self, recipe: PretrainRecipe, system: System, data: PretrainData, machine: dict[str, str]
    ) -> None:
        super().__init__()
        self.recipe, self.system, self.data, self.machine = recipe, system, data, machine
        self.shown: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._past = {"seconds": 0.0, "hours": 0.0, "channel_hours": 0.0}  # up to the last validation
        self._steps = 0
        self._marked = time.monotonic()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW; matrices and kernels decay, vectors do not."""
        optim = self.recipe.optim
        weights = [weight for weight in self.system.parameters() if weight.requires_grad]
        groups = [
            {"params": [w for w in weights if w.ndim > 1], "weight_decay": optim.weight_decay},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ]
        kept = [group for group in groups if group["params"]]
        return torch.optim.AdamW(kept, lr=optim.lr, betas=optim.betas)

    def on_train_epoch_start(self) -> None:
        """Seed dropout by epoch and process, so that a resumed training goes on as it would have."""
        torch.manual_seed((self.recipe.seed * 100_003 + self.current_epoch) * 1009 + self.global_rank)
        self._tally = Tally()
        self._seen = {"hours": 0.0, "channel_hours": 0.0}
        self._began = time.monotonic()

    def on_train_batch_start(self, _batch: Segments, _index: int) -> None:
        """Set the learning rate of the step."""
        rate = learning_rate(self.recipe.optim, self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, batch: Segments, index: int) -> Tensor:
        """Return the loss of a micro-batch."""
        at = Moment(self.global_step, self.recipe.optim.steps, self.recipe.seed)
        loss, figures = self.system.loss(batch, at)
        self._tally.add({"loss": loss} | figures)
        hours = batch.x.shape[0] * batch.x.shape[-1] / self.data.train.sfreq / 3600 * self.data.world
        self._seen["hours"] += hours
        self._seen["channel_hours"] += hours * batch.x.shape[1]
        if index % SHOWN_EVERY == 0:
            self.shown["loss"] = float(loss.detach())
        return loss

    def configure_gradient_clipping(self, _optimizer: Any, **_unused: Any) -> None:
        """Scale gradients down to the recipe's norm, and log the norm they had."""
        norm = torch.nn.utils.clip_grad_norm_(self.system.parameters(), self.recipe.optim.clip_norm)
        self._tally.add({"grad_norm": norm})

    def on_validation_epoch_start(self) -> None:
        """Begin a validation; the time of training steps ends here."""
        self._trained_s = time.monotonic() - self._began
        self.system.begin_validation()

    def validation_step(self, batch: Segments, _index: int) -> None:
        """Let the system look at a held-out batch."""
        self.system.validate(batch)

    def on_validation_epoch_end(self) -> None:
        """Take the system's figures."""
        self._scores = self.system.end_validation()
        if "loss" in self._scores:
            self.shown["val_loss"] = self._scores["loss"]

    def on_train_epoch_end(self) -> None:
        """Keep what was learned, then log it; a loss that is not a number ends the training."""
        figures = self._tally.means(self.trainer.strategy)
        if not math.isfinite(figures["loss"]):
            raise ConfigError(
                f"The loss is {figures['loss']} after step {self.global_step}. The last checkpoint is from "
                f"step {self._steps}. Lower optim.lr or optim.clip_norm, or warm up for longer."
            )
        self._steps = self.global_step
        self._count()
        if self.trainer.is_global_zero:
            runs.write(self.run(), self.system)
        self.trainer.save_checkpoint(self.recipe.output / CHECKPOINT, weights_only=False)
        self._log(figures)

    def run(self) -> PretrainRun:
        """Return the run as it stood at the last validation."""
        shards, recipe = self.data.train, self.recipe
        return PretrainRun(
            recipe=recipe,
            sfreq=shards.sfreq,
            stype=shards.stype,
            unit=shards.unit,
            dsp=shards.dsp,
            montages=shards.montages,
            subjects=self.data.subjects,
            fingerprints=self.data.fingerprints | recipe.system.inherited(),
            scores=self._scores,
            steps=self._steps,
            finished=self._steps == recipe.optim.steps,
            versions=versions("torch", "lightning", "numpy", "scipy"),
            machine=self.machine,
            **{name: round(value, 4) for name, value in self._past.items()},
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is counted, and what the training is of."""
        checkpoint["pretraining"] = {
            "course": self.recipe.course(),
            "fingerprints": self.data.fingerprints,
            "past": self._past,
            "scores": self._scores,
            "steps": self._steps,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the counts; refuse to go on with another training."""
        kept = checkpoint["pretraining"]
        changed = changed_settings(kept["course"], self.recipe.course())
        if kept["fingerprints"] != self.data.fingerprints:
            changed.append("the recordings in data.shards or the rows of data.tables")
        check_unchanged(self.recipe.output, changed)
        self._past, self._scores, self._steps = kept["past"], kept["scores"], kept["steps"]

    def _count(self) -> None:
        """Add the epoch's signal and time to the run's."""
        now = time.monotonic()
        self._past = {
            "seconds": self._past["seconds"] + now - self._marked,
            "hours": self._past["hours"] + self._seen["hours"],
            "channel_hours": self._past["channel_hours"] + self._seen["channel_hours"],
        }
        self._marked = now

    def _log(self, figures: Mapping[str, float]) -> None:
        """Write a line: means over the epoch's steps, validation, rate, and signal trained on per second."""
        line = {f"train_{name}": value for name, value in figures.items()}
        line |= {f"val_{name}": value for name, value in self._scores.items()}
        line["lr"] = learning_rate(self.recipe.optim, self.global_step - 1)
        line |= {f"{name}_per_s": value / self._trained_s for name, value in self._seen.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics(line, step=self.global_step)
            logger.save()


def learning_rate(optim: Optim, step: int) -> float:
    """Return the rate of a step: linear up to ``lr``, then half a cosine down towards ``lr_end``."""
    if step < optim.warmup_steps:
        return optim.lr * (step + 1) / optim.warmup_steps
    share = (step - optim.warmup_steps) / (optim.steps - optim.warmup_steps)
    return optim.lr_end + (optim.lr - optim.lr_end) * (1 + math.cos(math.pi * share)) / 2
