"""Windows around the cues of left and right, learned from at every hop and as whole trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from offline.data.trials import IGNORE, Prepared, Span
from offline.objectives import imagery as objectives
from offline.train.batches import Batch, Batches, Plan, member_logits
from streamer.components import Config as BaseConfig
from streamer.errors import RecordingError
from streamer.types import Samples


class Config(BaseConfig):
    """What is cut around a cue, seconds.

    Attributes
    ----------
    before_s, after_s : float
        Signal before the cue and after it.
    from_s, to_s : float
        The trial's answer is the mean over the hops in between.  For as long as ``from_s`` after any marker
        nobody has begun, or stopped, and hops are not scored.
    settle_s : float
        At the start of the window, where the model's past is cut off, no hop is scored; at least its left
        context.  With less, the net tells time by the cut: .80 of the hops right in windows, .47 live.
    jitter_s : float
        Windows start this much earlier or later, at random.
    objective : tuple of blocks
        Weights of the terms of the loss; a model's nets take turns, members first and then courses, so that
        one may learn to decide at any time and the next to answer at the end of a trial.
    """

    kind: Literal["trials"] = "trials"
    before_s: float = 3.6
    after_s: float = 5.0
    from_s: float = 0.5
    to_s: float = 3.0
    settle_s: float = 2.1
    jitter_s: float = 2.0
    objective: Annotated[tuple[objectives.Config, ...], Field(min_length=1)] = (objectives.Config(),)

    @model_validator(mode="after")
    def _holds_the_answer(self) -> Self:
        if self.after_s - self.jitter_s < self.to_s:
            raise ValueError("after_s - jitter_s must reach to_s: else a shifted window cuts the answer off")
        if self.before_s - self.jitter_s + self.from_s < self.settle_s:
            raise ValueError("before_s - jitter_s + from_s must reach settle_s: else the answer is unsettled")
        return self

    def batches(self, prepared: Sequence[Prepared], plan: Plan) -> TrialBatches:
        """Return what to train on."""
        return TrialBatches(prepared, self, plan)

    def unsettled(self, context_s: float) -> str | None:
        """Say why a model with this left context cannot learn from such windows."""
        if self.settle_s >= context_s:
            return None
        return (
            f"cut.settle_s is {self.settle_s:g} s, the model's left context {context_s:.2f} s: make settle_s "
            "longer, or the net learns to tell time by the cut."
        )

    def contradictions(self, recipe: Any) -> Iterator[str]:
        """Say what does not go together."""
        nets = getattr(recipe.model, "members", 1) + getattr(recipe.model, "courses", 0)
        if len(self.objective) > nets:
            yield f"cut.objective has {len(self.objective)} entries, and the model {nets} nets to take turns"
        hop_s, answer_s = recipe.model.hop / recipe.sfreq, self.to_s - self.from_s
        for place, one in enumerate(self.objective):
            if wrong := one.out_of_reach(answer_s, hop_s):
                yield f"cut.objective[{place}]: {wrong}"
        if len(recipe.classes) != 3 or recipe.idle != recipe.classes[0]:
            yield "cut trials learns one class against another: classes are the idle one and these two"
        if recipe.augment.shift_s or recipe.augment.recombine:
            yield "augment.shift_s and recombine are not for trials, which have cut.jitter_s"
        if recipe.optim.steps is not None:
            yield "optim.steps is not for trials: each epoch is every trial once"


class TrialBatches(Batches):
    """Batches of windows around cues.

    A batch is ``x`` (B, C, T) float32, ``hops`` (B, T / hop) int64 class of each hop or `IGNORE`, ``side``
    (B,) int64 class of the trial minus 1, and ``answer`` (B, T / hop) float32, 1 where the trial's answer
    is taken.
    """

    def __init__(self, prepared: Sequence[Prepared], config: Config, plan: Plan) -> None:
        self.config, self.plan = config, plan
        self._prepared, hop = prepared, plan.hop
        self._before = round(config.before_s * plan.sfreq / hop) * hop
        self._length = self._before + round(config.after_s * plan.sfreq / hop) * hop
        last = round(config.to_s * plan.sfreq)
        self.trials = [
            (i, span)
            for i, one in enumerate(prepared)
            for span in one.spans
            if span[2] > 0 and span[0] >= 0 and span[0] + last <= len(one.data)
        ]
        if not self.trials:
            raise RecordingError(f"No recording lasts {config.to_s:g} s after a cue: there is no trial.")
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw for this epoch from now on."""
        super().begin(epoch)
        shuffled = np.random.default_rng((self.plan.seed, epoch)).permutation(len(self.trials))
        self._order = shuffled if self.plan.augment else np.arange(len(self.trials))

    def __len__(self) -> int:
        full, rest = divmod(len(self.trials), self.plan.batch_size)
        return max(full, 1) if self.plan.augment else full + bool(rest)

    def __getitem__(self, item: int) -> Batch:
        if not 0 <= item < len(self):
            raise IndexError(item)
        size = self.plan.batch_size
        rng = np.random.default_rng((self.plan.seed, self.epoch, item))
        rows = self._order[item * size : (item + 1) * size]
        windows = [self._cut(index, cue, rng) for index, cue in (self.trials[row] for row in rows)]
        x, labels, answer = (np.stack(parts) for parts in zip(*windows, strict=True))
        x = np.ascontiguousarray(x.transpose(0, 2, 1))  # (B, C, T)
        if self.plan.augment:
            x, labels = self.plan.augment(x, labels, rng)
        hops, side = labels[:, :-1], labels[:, -1] - 1
        return tuple(torch.from_numpy(np.ascontiguousarray(one)) for one in (x, hops, side, answer))

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """Return the loss of the hops and of the trials, weighted."""
        x, hops, side, answer = batch
        logits = member_logits(model, x)
        hop_s = self.plan.hop / self.plan.sfreq
        return objectives.loss(logits, hops, side, answer, self.config.objective, hop_s), len(logits)

    def _cut(
        self, index: int, cue: Span, rng: np.random.Generator
    ) -> tuple[Samples, NDArray[np.int64], Samples]:
        """Return x (T, C), classes of hops and trial (T / hop + 1,) and answer (T / hop,) of one trial."""
        c, data, sfreq, hop = self.config, self._prepared[index].data, self.plan.sfreq, self.plan.hop
        jitter = round(c.jitter_s * sfreq) if self.plan.augment else 0
        start = cue[0] - self._before + int(rng.integers(-jitter, jitter + 1))
        x = np.zeros((self._length, data.shape[1]), dtype=np.float32)
        low, high = max(start, 0), min(start + self._length, len(data))
        x[low - start : high - start] = data[low:high]
        ends = start + np.arange(hop, self._length + 1, hop) - 1  # last sample of each hop
        since = (ends - cue[0]) / sfreq  # seconds since the cue
        answer = ((since > c.from_s) & (since <= c.to_s)).astype(np.float32)
        hops = self._labels(self._prepared[index].spans, ends)
        hops[((ends - start) / sfreq < c.settle_s) | (ends < 0) | (ends >= len(data))] = IGNORE
        return x, np.append(hops, cue[2]), answer

    def _labels(self, spans: Sequence[Span], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class asked for at these samples, `IGNORE` where none is or it has just changed."""
        wait = self.config.from_s * self.plan.sfreq
        labels = np.full(len(ends), IGNORE, dtype=np.int64)
        for first, after, name in spans:
            labels[(ends - first > wait) & (ends < after)] = name
        return labels
