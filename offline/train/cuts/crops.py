"""Random crops of whole recordings, learned from at every labelled hop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from offline.data.trials import IGNORE, Prepared
from offline.train.batches import (
    Batch,
    Batches,
    Plan,
    Weighting,
    class_weights,
    cross_entropy,
    member_logits,
    sample_labels,
)
from streamer.components import Config as BaseConfig
from streamer.errors import RecordingError


class Config(BaseConfig):
    """Crops, seconds; the loss is the cross-entropy of their labelled hops.

    Attributes
    ----------
    length_s : float
    settle_s : float
        At the start of a crop, where the model's past is cut off, no hop is learned from; at least its left
        context.  A crop that begins with its recording has a past like live, and is learned from at once.
    from_s : float
        For so long after a marker's onset nobody has begun what is asked, and hops carry no label.
    class_weights : "balanced" or "none"
        ``balanced``: every class counts alike, however many samples it has.
    label_smoothing : float
    on_hops : bool
        Crops begin where a hop of their recording does, as live: for a model whose hop is an epoch of the
        recording, each with its own label.  Else anywhere.
    """

    kind: Literal["crops"] = "crops"
    length_s: PositiveFloat
    settle_s: NonNegativeFloat = 0.0
    from_s: NonNegativeFloat = 0.0
    class_weights: Weighting = "balanced"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    on_hops: bool = False

    def batches(self, prepared: Sequence[Prepared], plan: Plan) -> CropBatches:
        """Return what to train on."""
        return CropBatches(prepared, self, plan)

    def unsettled(self, context_s: float) -> str | None:
        """Say why a model with this left context cannot learn from such crops."""
        if self.settle_s >= context_s:
            return None
        return (
            f"cut.settle_s is {self.settle_s:g} s, the model's left context {context_s:.2f} s: make settle_s "
            "longer, or the net learns from a past that it never has live."
        )

    def contradictions(self, _recipe: Any) -> Iterator[str]:
        """Say what does not go together."""
        if self.settle_s >= self.length_s:
            yield f"cut.settle_s {self.settle_s:g} leaves nothing of crops of {self.length_s:g} s"


class CropBatches(Batches):
    """Crops around labelled samples, each of which is equally likely to be in one.

    A batch is ``x`` (B, C, T) float32 and ``hops`` (B, T / hop) int64: the class at each hop's last sample,
    or `IGNORE`.
    """

    def __init__(self, prepared: Sequence[Prepared], config: Config, plan: Plan) -> None:
        self.config, self.plan = config, plan
        self._length = max(1, round(config.length_s * plan.sfreq / plan.hop)) * plan.hop
        self._settle = round(config.settle_s * plan.sfreq)
        self._shift = round(plan.augment.config.shift_s * plan.sfreq) if plan.augment else 0
        self._data = [one.data for one in prepared]
        self._labels = [sample_labels(one, config.from_s * plan.sfreq) for one in prepared]
        places = [np.flatnonzero(labels != IGNORE) for labels in self._labels]
        if config.on_hops:
            places = [some[some % plan.hop == plan.hop - 1] for some in places]
        self._place = np.concatenate([np.empty(0, dtype=np.int64), *places])  # of each labelled sample
        self._stretch = np.repeat(np.arange(len(places)), [len(some) for some in places])
        if not len(self._place):
            raise RecordingError(
                f"No sample lies later than {config.from_s:g} s after a marker of the recipe's classes: "
                "lower cut.from_s."
            )
        found = np.concatenate([labels[some] for labels, some in zip(self._labels, places, strict=True)])
        self._weights = class_weights(np.bincount(found, minlength=plan.n_classes), config.class_weights)
        learned = plan.batch_size * (self._length - self._settle) / (plan.hop if config.on_hops else 1)
        self._n_batches = plan.epoch_steps or math.ceil(len(self._place) / learned)

    def __len__(self) -> int:
        return self._n_batches

    def __getitem__(self, item: int) -> Batch:
        if not 0 <= item < len(self):
            raise IndexError(item)
        rng = np.random.default_rng((self.plan.seed, self.epoch, item))
        chosen = rng.integers(len(self._place), size=self.plan.batch_size)
        back = rng.integers(self._settle, self._length, size=self.plan.batch_size)
        shifts = rng.integers(-self._shift, self._shift + 1, size=self.plan.batch_size)
        crops = [
            self._crop(self._stretch[k], int(self._place[k] - b), int(s))
            for k, b, s in zip(chosen, back, shifts, strict=True)
        ]
        x, hops = (np.stack(parts) for parts in zip(*crops, strict=True))
        x = np.ascontiguousarray(x.transpose(0, 2, 1))  # (B, C, T)
        if self.plan.augment:
            x, hops = self.plan.augment(x, hops, rng)
        return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(hops)

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """Return the cross-entropy of the labelled hops."""
        x, hops = batch
        weights = self._weights.to(x.device)
        return cross_entropy(member_logits(model, x), hops, weights, self.config.label_smoothing)

    def _crop(self, stretch: int, start: int, shift: int) -> tuple[Any, Any]:
        """Return x (T, C) and hops (T / hop,) of one crop, moved to where its stretch has signal."""
        data, labels, hop = self._data[stretch], self._labels[stretch], self.plan.hop
        start = max(0, min(start, len(data) - self._length))
        start -= start % hop if self.config.on_hops else 0
        piece = data[start : start + self._length]
        ends = start + np.arange(hop, self._length + 1, hop) - 1  # last sample of each hop
        asked = ends + shift
        there = (ends < len(data)) & (asked >= 0) & (asked < len(data))
        hops = np.where(there, labels[np.where(there, asked, 0)], IGNORE)
        if start > 0:
            hops[ends - start < self._settle] = IGNORE
        if len(piece) < self._length:
            piece = np.pad(piece, ((0, self._length - len(piece)), (0, 0)))
        return piece, hops
