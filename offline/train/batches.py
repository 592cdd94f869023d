"""What training draws from: `Batches`, and the `Plan` that every cut is made by."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from offline.data.trials import IGNORE, Prepared
from offline.train.augment import Augmenter

Batch = tuple[Tensor, ...]
Weighting = Literal["balanced", "none"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the cut of a training is made by, beside its own settings.

    Attributes
    ----------
    sfreq : float
        Hz.
    hop : int
        Samples per decision of the model.
    n_classes, batch_size, seed : int
    epoch_steps : int or None
        Batches of an epoch; None: as many as go through the recordings once.
    augment : Augmenter or None
        None: everything in order, nothing random.
    """

    sfreq: float
    hop: int
    n_classes: int
    batch_size: int
    seed: int = 0
    epoch_steps: int | None = None
    augment: Augmenter | None = None


class Batches(Dataset[Batch]):
    """Batches drawn anew each epoch; an item is a whole batch.

    The draw depends on seed and epoch alone, so a resumed training sees the same batches.
    """

    epoch = 0

    def begin(self, epoch: int) -> None:
        """Draw for this epoch from now on."""
        self.epoch = epoch

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    @abstractmethod
    def __getitem__(self, item: int) -> Batch:
        """Return a batch; its first tensor is the signal (B, C, T)."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """Return the loss of a batch summed over the model's members, and their number."""


def member_logits(model: Any, x: Tensor) -> Tensor:
    """Return the logits of each member of a model, (M, B, F, K); one that has none is its own only one.

    Parameters
    ----------
    model : nn.Module
        On the state contract; with ``forward_members`` where it is a mean of nets that learn on their own.
    x : Tensor, shape (B, C, T)
    """
    state = model.init_state(len(x))
    if hasattr(model, "forward_members"):
        logits: Tensor = model.forward_members(x, state)[0]
        return logits
    outputs, _ = model(x, state)
    return outputs["logits"][None]  # type: ignore[no-any-return]


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> tuple[Tensor, int]:
    """Return the cross-entropy summed over members, and their number; 0 where nothing is labelled.

    Parameters
    ----------
    logits : Tensor, shape (M, ..., K)
    labels : Tensor, shape (...), int64
        Class or `IGNORE`.
    weights : Tensor, shape (K,)
        Of a label of each class.
    """
    members = len(logits)
    if not (labels != IGNORE).any():
        return 0.0 * logits.sum(), members
    each = labels.expand(members, *labels.shape).flatten()
    value = F.cross_entropy(
        logits.flatten(0, -2), each, weight=weights, ignore_index=IGNORE, label_smoothing=smoothing
    )
    return members * value, members


def class_weights(counts: NDArray[np.int64], weighting: Weighting) -> Tensor:
    """Return what a label of each class weighs, (K,): 1 on average over the labels."""
    if weighting == "none":
        return torch.ones(len(counts))
    return torch.from_numpy(counts.sum() / (np.maximum(counts, 1) * len(counts))).float()


def sample_labels(prepared: Prepared, from_samples: float) -> NDArray[np.int64]:
    """Return the class of each sample of a stretch, (n_times,).

    A span's class holds for its samples later than ``from_samples`` after its first; elsewhere `IGNORE`.
    """
    labels = np.full(len(prepared.data), IGNORE, dtype=np.int64)
    for first, after, name in prepared.spans:
        begin = max(0, int(np.floor(first + from_samples)) + 1)
        labels[begin : max(after, 0)] = name
    return labels
