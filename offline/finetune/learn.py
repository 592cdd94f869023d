"""The gradient steps of a fine-tuning: what learns, on what, and when to keep it; resumable to the bit.

Training windows are met as crops: ``context_s`` of signal from an empty past, then the frames that are
pooled; the crop ends at a frame of the window, another one each time.  Validation recordings are stepped
from their first sample, as live.  The backbone stays in eval mode: dropout is off, and codebooks and
whatever else follows a running mean stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offline import checkpoint
from offline.blocks.conv import Stack
from offline.finetune.data import Labelled, Progress
from offline.finetune.recipe import Recipe
from offline.finetune.run import Scores
from offline.models.decoder import Decoder
from offline.probe.finetune import order, rate_share
from offline.probe.tasks import Index
from offline.resume import changed_settings, check_unchanged
from offline.runs import CHECKPOINT
from streamer.errors import ConfigError

COST = "cross_entropy"  # what the weights are chosen by


@dataclass
class Progressed:
    """Where a training stands.

    Attributes
    ----------
    step : int
    kept : int
        The step of the best weights.
    best : dict of str to Tensor
        Those weights.
    history : list of dict
        Scores, ``step`` among them, of every look at the validation subjects.
    """

    step: int = 0
    kept: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[Scores] = field(default_factory=list)

    @property
    def scores(self) -> Scores:
        """Return those of the weights that are kept."""
        return next(scores for scores in self.history if scores["step"] == self.kept)

    def look(self, scores: Scores, net: nn.Module) -> None:
        """Note the scores of the net at this step, and keep its weights if none were better."""
        self.history.append({"step": self.step, **scores})
        if self.step == 0 or _cost(scores) < _cost(self.scores):
            self.kept, self.best = self.step, weights(net)

    def stuck(self, patience: int | None) -> bool:
        """Say whether as many looks as that have passed without a better one."""
        later = [scores for scores in self.history if (scores["step"] or 0) > self.kept]
        return patience is not None and len(later) >= patience


class Training:
    """The steps of one fine-tuning.

    Parameters
    ----------
    net : Decoder
        What of its part is to learn, `choose` said; its head is where the training starts.
    data : Labelled
    rows : ndarray of int
        Places of the windows whose labels are used.
    recipe : Recipe
    """

    def __init__(self, net: Decoder, data: Labelled, rows: Index, recipe: Recipe) -> None:
        self._net, self._data, self._rows, self._recipe = net, data, rows, recipe
        optim, chosen = recipe.optim, [weight for weight in net.part.parameters() if weight.requires_grad]
        self._rates = [optim.lr, optim.head_lr]
        groups = [{"params": chosen}, {"params": [*net.head.parameters()]}]
        self._optimizer = torch.optim.AdamW(groups, lr=optim.lr, weight_decay=optim.weight_decay)
        self._class_weights = _class_weights(data, rows, recipe).to(net.head.weight.device)

    def run(
        self, look: Callable[[], Scores], identity: dict[str, Any], *, resume: bool, progress: Progress
    ) -> Progressed:
        """Train, and leave the net with the weights of the best look at the validation subjects.

        Parameters
        ----------
        look : callable
            Scores the net on the validation subjects.
        identity : JSON values
            What a checkpoint must agree with to be resumed from.

        Raises
        ------
        ConfigError
            There is no checkpoint to resume from, or one of another training; the loss is no longer a number.
        """
        optim, at = self._recipe.optim, self._restored(identity) if resume else Progressed()
        if not resume:
            at.look(look(), self._net)
        batches = order(len(self._rows), optim.batch_size, optim.steps, self._recipe.seed)
        for places in islice(batches, at.step, None):
            if at.stuck(optim.patience):
                break
            self._step(self._rows[places], at.step)
            at.step += 1
            progress("fine-tuning", at.step, optim.steps)
            if at.step % optim.evaluate_every == 0 or at.step == optim.steps:
                at.look(look(), self._net)
                self._keep(at, identity)
        self._net.load_state_dict(at.best)
        return at

    def _step(self, rows: Index, step: int) -> None:
        """Make one update, from these windows."""
        net, optim = self._net, self._recipe.optim
        pooled = net.config.pool_frames
        context = round(optim.context_s * net.config.sfreq / net.hop)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * rate_share(step, optim.steps)
        frames = self._data.drawn(rows, np.random.default_rng((self._recipe.seed, step)), pooled - 1)
        device = self._class_weights.device
        logits = net.final(self._data.crops(frames, context + pooled).to(device))
        labels = torch.from_numpy(self._data.labels(frames)).to(device)
        loss = nn.functional.cross_entropy(logits, labels, weight=self._class_weights)
        if not torch.isfinite(loss):
            raise ConfigError(f"Fine-tuning left the finite numbers at step {step}: lower optim.lr.")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), optim.clip_norm)
        self._optimizer.step()

    @property
    def _path(self) -> Path:
        return self._recipe.output / CHECKPOINT

    def _keep(self, at: Progressed, identity: dict[str, Any]) -> None:
        state = {
            "identity": identity,
            "at": {"step": at.step, "kept": at.kept, "best": at.best, "history": at.history},
            "net": weights(self._net),
            "optimizer": self._optimizer.state_dict(),
        }
        checkpoint.save(state, self._path)

    def _restored(self, identity: dict[str, Any]) -> Progressed:
        """Bring net and optimiser to where a checkpoint left them."""
        if not self._path.is_file():
            raise ConfigError(f"Nothing to resume: {self._path} is not there. Fine-tune without --resume.")
        state = checkpoint.load(self._path)
        check_unchanged(self._recipe.output, changed_settings(state["identity"], identity))
        self._net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        return Progressed(**state["at"])


def choose(part: nn.Module, mode: str, layers: int) -> list[nn.Parameter]:
    """Let what the mode names learn, and nothing else; return it.

    ``partial`` is the last ``layers`` blocks of each tower of blocks, or layers of each convolutional stack,
    and the norm behind a tower.

    Raises
    ------
    ConfigError
        A part that has no such blocks, or fewer.
    """
    part.requires_grad_(mode == "full")
    if mode == "partial":
        towers = [*_towers(part)]
        if not towers:
            raise ConfigError(
                "partial: this backbone has no blocks of which the last ones could learn: take full."
            )
        for blocks, norm in towers:
            if layers > len(blocks):
                raise ConfigError(f"layers: {layers} of {len(blocks)} blocks cannot learn: lower it.")
            for block in [*blocks[-layers:], *([norm] if norm is not None else [])]:
                block.requires_grad_(True)
    return [weight for weight in part.parameters() if weight.requires_grad]


def weights(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the net's weights and buffers, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in net.state_dict().items()}


def _towers(part: nn.Module) -> Iterator[tuple[list[nn.Module], nn.Module | None]]:
    """Yield each sequence of blocks of a net with the norm behind it."""
    for module in part.modules():
        blocks = getattr(module, "blocks", None)
        if isinstance(blocks, nn.ModuleList):
            yield [*blocks], getattr(module, "norm", None)
        elif isinstance(module, Stack):
            yield [layer for layer in module if any(True for _ in layer.parameters())], None


def _class_weights(data: Labelled, rows: Index, recipe: Recipe) -> Tensor:
    """Return what a label of each class weighs, (n_classes,): 1 on average over the labels."""
    n_classes = len(recipe.task.classes)
    if recipe.class_weights == "none":
        return torch.ones(n_classes)
    counts = np.bincount(data.windows.labels[rows], minlength=n_classes)
    return torch.from_numpy(len(rows) / (np.maximum(counts, 1) * n_classes)).float()


def _cost(scores: Scores) -> float:
    cost = scores[COST]
    assert cost is not None
    return float(cost)
