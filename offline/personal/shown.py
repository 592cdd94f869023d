"""What somebody was asked for, cut out of their recordings: trials, and rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline.data.trials import Prepared, Span
from offline.evaluate.protocol import Trials
from offline.train.augment import Augment, Augmenter
from offline.train.data import Side
from offline.train.recipe import Recipe

Times = NDArray[np.float64]
Rows = NDArray[np.int64]
LAST = 2  # hops at the answer that are learned from
HELD = 24  # hops at the end of rest, of which the model goes on saying what it said


@dataclass(frozen=True, slots=True)
class Shown:
    """What somebody was asked for: trials, and rest.

    Attributes
    ----------
    x : Tensor, shape (n, C, T)
        Preprocessed signal that each trial's answer depends on, up to the time it is given.
    labels : Tensor, shape (n,), int64
        Place of the class in the recipe's.
    answered, ended : ndarray, shape (n,), float64
        When the answer is given and when something else is asked, seconds of signal after the first sample
        of the first recording.
    rest : Tensor, shape (m, C, T')
        Signal that the last `HELD` hops of rest depend on; none where there is no idle class.
    rested : ndarray, shape (m,), float64
        When those hops end.
    left_out : int
        Cues without enough signal before them, or before the next.
    """

    x: Tensor
    labels: Tensor
    answered: Times
    ended: Times
    rest: Tensor
    rested: Times
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, trials: Sequence[int] | Rows, rest: Rows | None = None) -> Shown:
        """Return these trials, and these stretches of rest (by default all)."""
        rows, resting = (
            np.asarray(trials, dtype=np.int64),
            np.arange(len(self.rest)) if rest is None else rest,
        )
        return replace(
            self,
            x=self.x[torch.from_numpy(rows)],
            labels=self.labels[torch.from_numpy(rows)],
            answered=self.answered[rows],
            ended=self.ended[rows],
            rest=self.rest[torch.from_numpy(resting)],
            rested=self.rested[resting],
        )

    def first(self, n: int) -> Shown:
        """Return the first trials, and the rest before the last of them was answered."""
        return self.take(np.arange(n), np.flatnonzero(self.rested <= self.answered[:n].max(initial=0.0)))

    def counts(self, classes: Sequence[str]) -> dict[str, int]:
        """Return how many trials there are of each class."""
        return dict(Counter(classes[place] for place in self.labels.tolist()))


def shown_by(model: Any, side: Side, recipe: Recipe) -> Shown:
    """Return one person's trials and rest, in the order of their recordings.

    Parameters
    ----------
    side : Side
        All recordings of that person.
    """
    assert isinstance(recipe.protocol, Trials)
    asked = recipe.protocol.asked(recipe.classes, recipe.idle)
    at, hop = round(recipe.protocol.at_s * recipe.sfreq), model.hop
    context = -(-model.left_context // hop) * hop
    x: list[NDArray[np.float32]] = []
    rest: list[NDArray[np.float32]] = []
    labels, answered, ended, rested, left_out, begun = [], [], [], [], 0, 0.0
    for session, stretches in zip(side.sessions, side.stretches, strict=True):
        if not stretches:
            continue
        for one in stretches:
            for first, until, following, place in _spans(one):
                end = (first + at if place in asked else min(first + at, until)) // hop * hop
                start = end - context - (LAST if place in asked else HELD) * hop
                seconds = begun + one.start_s + np.array([end, following]) / recipe.sfreq
                if place not in asked and start >= 0 and end - HELD * hop >= first:
                    rest.append(one.data[start:end].T)
                    rested.append(seconds[0])
                elif place in asked and start >= 0 and end <= following:
                    x.append(one.data[start:end].T)
                    labels.append(place)
                    answered.append(seconds[0])
                    ended.append(seconds[1])
                else:
                    left_out += place in asked
        begun += float(session.recording.times[-1]) + 1 / session.recording.info.sfreq
    return Shown(
        _stacked(x, recipe.model.n_chans),
        torch.tensor(labels, dtype=torch.int64),
        np.array(answered),
        np.array(ended),
        _stacked(rest, recipe.model.n_chans),
        np.array(rested),
        left_out,
    )


def _spans(one: Prepared) -> Iterator[tuple[int, int, int, int]]:
    """Yield of each cue its first sample, until when it lasts, when the next comes, and its class.

    A marker without a duration lasts until the next.
    """
    spans: list[Span] = sorted(one.spans)
    for (first, after, place), following in zip_longest(spans, spans[1:]):
        cut = len(one.data) if following is None else min(following[0], len(one.data))
        yield first, min(after, cut) if after > first else cut, cut, place


def _stacked(windows: Sequence[NDArray[np.float32]], n_chans: int) -> Tensor:
    if not windows:
        return torch.zeros(0, n_chans, 1)
    return torch.from_numpy(np.ascontiguousarray(windows))


def with_mirrored(shown: Shown, recipe: Recipe) -> Shown:
    """Return trials and rest, and their mirror images where the recipe learned from such."""
    if not recipe.augment.mirror:
        return shown
    turn = Augmenter(Augment(mirror=1.0), recipe.ch_names, recipe.classes)
    rng = np.random.default_rng(0)  # nothing is drawn that counts: all are turned
    x, labels = turn(shown.x.numpy().copy(), shown.labels.numpy(), rng)
    rest, _ = turn(shown.rest.numpy().copy(), np.zeros(len(shown.rest), dtype=np.int64), rng)
    return replace(
        shown,
        x=torch.cat([shown.x, torch.from_numpy(x)]),
        labels=torch.cat([shown.labels, torch.from_numpy(labels)]),
        answered=np.tile(shown.answered, 2),
        ended=np.tile(shown.ended, 2),
        rest=torch.cat([shown.rest, torch.from_numpy(rest)]),
        rested=np.tile(shown.rested, 2),
    )
