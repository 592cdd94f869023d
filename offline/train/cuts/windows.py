"""One window per draw, answered at its end: for nets that look at a window of fixed length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from offline.data.trials import Prepared
from offline.train.batches import Batch, Batches, Plan, Weighting, class_weights, cross_entropy
from streamer.components import Config as BaseConfig
from streamer.errors import RecordingError


class Config(BaseConfig):
    """Windows, seconds; the loss is the cross-entropy at their ends.

    Attributes
    ----------
    window_s : float
        What the net looks at.
    from_s, to_s : float
        A window ends so long after a marker's onset, at random in between and not after the marker's span.
    class_weights : "balanced" or "none"
        ``balanced``: every class counts alike, however many markers it has.
    label_smoothing : float
    """

    kind: Literal["windows"] = "windows"
    window_s: PositiveFloat
    from_s: NonNegativeFloat = 0.0
    to_s: PositiveFloat
    class_weights: Weighting = "balanced"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def batches(self, prepared: Sequence[Prepared], plan: Plan) -> WindowBatches:
        """Return what to train on."""
        return WindowBatches(prepared, self, plan)

    def unsettled(self, _context_s: float) -> str | None:
        """Say nothing: a window holds all that the net sees."""
        return None

    def contradictions(self, recipe: Any) -> Iterator[str]:
        """Say what does not go together."""
        if self.to_s < self.from_s:
            yield f"cut.to_s {self.to_s:g} is before cut.from_s {self.from_s:g}"
        if recipe.augment.shift_s:
            yield "augment.shift_s is for crops; here from_s and to_s say where windows end"
        window = getattr(recipe.model, "window", None)
        if window is None:
            yield f"cut windows is for nets with a window; {recipe.model.kind} learns from crops or trials"
        elif window != round(self.window_s * recipe.sfreq):
            yield f"cut.window_s {self.window_s:g} is not the model's window of {window} samples"


class WindowBatches(Batches):
    """Windows at the recordings' markers, each marker once before any comes again.

    A batch is ``x`` (B, C, T) float32, zeros before a recording's first sample, and ``labels`` (B,) int64.
    """

    def __init__(self, prepared: Sequence[Prepared], config: Config, plan: Plan) -> None:
        self.config, self.plan = config, plan
        self._length = round(config.window_s * plan.sfreq)
        self._data = [one.data for one in prepared]
        self._draws = np.array(
            [draw for i, one in enumerate(prepared) for draw in self._ranges(i, one)], dtype=np.int64
        ).reshape(-1, 4)
        if not len(self._draws):
            raise RecordingError(
                f"No recording goes on for {config.from_s:g} s after a marker of the recipe's classes: lower "
                "cut.from_s."
            )
        counts = np.bincount(self._draws[:, 3], minlength=plan.n_classes)
        self._weights = class_weights(counts, config.class_weights)
        self._n_batches = plan.epoch_steps or -(-len(self._draws) // plan.batch_size)

    def __len__(self) -> int:
        return self._n_batches

    def __getitem__(self, item: int) -> Batch:
        if not 0 <= item < len(self):
            raise IndexError(item)
        size = self.plan.batch_size
        rng = np.random.default_rng((self.plan.seed, self.epoch, item))
        draws = self._draws[self._order(item * size, size)]
        stops = rng.integers(draws[:, 1], draws[:, 2] + 1)
        x = np.stack([self._window(i, int(stop)) for i, stop in zip(draws[:, 0], stops, strict=True)])
        labels = draws[:, 3]
        if self.plan.augment:
            x, labels = self.plan.augment(x, labels, rng)
        return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(labels)

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """Return the cross-entropy at the windows' ends."""
        x, labels = batch
        logits = model.last(x)[None]  # (1, B, K)
        return cross_entropy(logits, labels, self._weights.to(x.device), self.config.label_smoothing)

    def _ranges(self, place: int, one: Prepared) -> Iterator[tuple[int, int, int, int]]:
        """Yield stretch, earliest and latest sample behind a window, and class of each marker."""
        low, high = (round(s * self.plan.sfreq) for s in (self.config.from_s, self.config.to_s))
        for first, after, name in one.spans:
            earliest, latest = max(first + low, 1), min(first + high, after, len(one.data))
            if earliest <= latest:
                yield place, earliest, latest, name

    def _order(self, start: int, size: int) -> Any:
        """Return places ``start`` to ``start + size`` of this epoch's endless sequence of shuffles."""
        n = len(self._draws)
        turns = range(start // n, (start + size - 1) // n + 1)
        rngs = (np.random.default_rng((self.plan.seed, self.epoch, turn, n)) for turn in turns)
        shuffles = np.concatenate([rng.permutation(n) for rng in rngs])
        return shuffles[start % n : start % n + size]

    def _window(self, place: int, stop: int) -> Any:
        """Return the window that ends before a sample, (C, T)."""
        piece = self._data[place][max(0, stop - self._length) : stop].T
        return np.pad(piece, ((0, 0), (self._length - piece.shape[1], 0)))
