"""A trained decoder adapted to one person by gradient, from a few labelled trials.

What differs between heads is where a source is seen: only the filters over electrodes move, those that a
model names in ``personal``, a few small steps from where they are.  Every trial is learned from as it is and
mirrored, so that nothing is learned of which side was shown more often.  Norms and dropout stay frozen.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from offline.data.trials import Prepared, Span
from offline.evaluate.protocol import Trials
from offline.train.augment import Augment, Augmenter
from offline.train.data import Side
from offline.train.recipe import Recipe
from streamer.components import Config
from streamer.errors import ConfigError

Times = NDArray[np.float64]
LAST = 2  # hops at the answer that are learned from
HELD = 24  # hops before that time in rest, of which the model goes on saying what it said
FOLDS = 4  # in which trials are left out in turn
FEWEST = 4  # trials


class Settings(Config):
    """How far the filters go.

    Attributes
    ----------
    steps : int
        Of AdamW, each over all trials.
    lr : float
    hold : float
        Weight of what was said of rest before, against the trials: without it the net grows bolder, and false
        activations double.
    """

    steps: PositiveInt = 20
    lr: PositiveFloat = 2e-3
    hold: NonNegativeFloat = 1.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What somebody was asked for: trials, and rest.

    Attributes
    ----------
    x : Tensor, shape (n, C, T)
        Preprocessed signal that each trial's answer depends on, up to the time it is given.
    labels : Tensor, shape (n,), int64
        Place of the class in the recipe's.
    times : ndarray, shape (n,), float64
        Of the answers, seconds of signal after the first sample of the first recording.
    rest : Tensor, shape (m, C, T')
        The same of rest, and `HELD` hops long at the end; none where there is no idle class.
    rest_times : ndarray, shape (m,), float64
    """

    x: Tensor
    labels: Tensor
    times: Times
    rest: Tensor
    rest_times: Times

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Shown:
        """Return these trials, and all rest."""
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        return replace(self, x=self.x[chosen], labels=self.labels[chosen], times=self.times[chosen.numpy()])

    def without(self, trials: NDArray[np.int64], rest: NDArray[np.int64]) -> Shown:
        """Return all but these."""
        some = self.take(np.setdiff1d(np.arange(len(self)), trials))
        kept = np.setdiff1d(np.arange(len(self.rest)), rest)
        return replace(some, rest=self.rest[torch.from_numpy(kept)], rest_times=self.rest_times[kept])

    def first(self, n: int) -> Shown:
        """Return the first trials, and the rest before the last of them was answered."""
        begun = np.flatnonzero(self.rest_times <= self.times[:n].max(initial=0.0))
        some = self.take(range(n))
        return replace(some, rest=self.rest[torch.from_numpy(begun)], rest_times=self.rest_times[begun])

    def counts(self, classes: Sequence[str]) -> dict[str, int]:
        """Return how many trials there are of each class."""
        return dict(Counter(classes[place] for place in self.labels.tolist()))


@dataclass(frozen=True, slots=True)
class Adapted:
    """What came of it.

    Attributes
    ----------
    model : nn.Module
        The adapted one.
    before, after : float
        Cross-entropy of trials that were left out in turn, nats, by the model as it was and as adapted to the
        others.
    bolder : float
        How much further apart, at least 1, its logits lie in rest that was left out in turn: what its
        temperature takes, so that it is no surer in rest than it was.
    """

    model: Any
    before: float
    after: float
    bolder: float

    @property
    def better(self) -> bool:
        """Whether trials that had no part in it speak for it."""
        return self.after < self.before


def adapt(model: Any, recipe: Recipe, shown: Shown, settings: Settings) -> Adapted:
    """Return the model adapted to these trials, and what trials that were left out say of such models.

    Raises
    ------
    ConfigError
        Too few trials, or of one class only.
    """
    _enough(shown, recipe)
    before, after, apart = [], [], []
    for out, resting in zip(_dealt(shown.labels), _dealt(torch.zeros(len(shown.rest))), strict=True):
        other = learned(model, recipe, shown.without(out, resting), settings)
        left = shown.take(out)
        with torch.inference_mode():
            before.append(float(_cost(model, recipe, left, reduction="sum")))
            after.append(float(_cost(other, recipe, left, reduction="sum")))
            apart.append([_spread(one, shown.rest[resting]) for one in (model, other)])
    was, now = np.sum(apart, axis=0)
    bolder = max(1.0, float(np.sqrt(now / was))) if was else 1.0
    n = len(shown)
    return Adapted(learned(model, recipe, shown, settings), sum(before) / n, sum(after) / n, bolder)


def learned(model: Any, recipe: Recipe, shown: Shown, settings: Settings) -> Any:
    """Return a copy of the model whose filters over electrodes have learned these trials."""
    model = copy.deepcopy(model).eval()
    moved = []
    for name, parameter in model.named_parameters():
        mine = any(part in model.personal for part in name.split("."))
        parameter.requires_grad_(mine)
        moved += [parameter] if mine else []
    both = _with_mirrored(shown, recipe)
    with torch.no_grad():
        said = _of_rest(model, both.rest)
    optimizer = torch.optim.AdamW(moved, lr=settings.lr, weight_decay=0.0)
    for _ in range(settings.steps):
        optimizer.zero_grad()
        cost = _cost(model, recipe, both)
        if len(both.rest):
            cost = cost + settings.hold * F.kl_div(
                _of_rest(model, both.rest), said, reduction="batchmean", log_target=True
            )
        cost.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.requires_grad_(False)


def shown_by(model: Any, side: Side, recipe: Recipe) -> Shown:
    """Return one person's trials and rest, in the order of their recordings.

    Parameters
    ----------
    side : Side
        All recordings of that person.

    Raises
    ------
    ConfigError
        The model has no filters of a person, or its recipe does not ask for one answer per cue.
    """
    if not hasattr(model, "personal"):
        raise ConfigError(f"A model of kind {recipe.model.kind} has no filters that could be a person's own.")
    if not isinstance(recipe.protocol, Trials):
        raise ConfigError("The model answers windows, not cues: there is no trial to adapt it to.")
    asked = recipe.protocol.asked(recipe.classes, recipe.idle)
    idle = sorted(set(range(len(recipe.classes))) - set(asked))
    at = round(recipe.protocol.at_s * recipe.sfreq)
    x, labels, times = _windows(model, side, recipe.sfreq, at, asked, LAST)
    rest, _, rest_times = _windows(model, side, recipe.sfreq, at, idle, HELD)
    return Shown(x, labels, times, rest, rest_times)


def _windows(
    model: Any, side: Side, sfreq: float, at: int, places: Sequence[int], hops: int
) -> tuple[Tensor, Tensor, Times]:
    """Return the signal that so many hops up to ``at`` samples after each cue depend on, (n, C, T).

    And the classes of these cues, ``places``, and when those hops end.
    """
    hop = model.hop
    length = (-(-model.left_context // hop) + hops) * hop
    windows, labels, times, begun = [], [], [], 0.0
    for session, stretches in zip(side.sessions, side.stretches, strict=True):
        if not stretches:
            continue
        for one in stretches:
            for first, until, place in _spans(one):
                end = (first + at) // hop * hop
                if place in places and length <= end <= until:
                    windows.append(one.data[end - length : end].T)
                    labels.append(place)
                    times.append(begun + one.start_s + end / sfreq)
        begun += float(session.recording.times[-1]) + 1 / session.recording.info.sfreq
    empty = torch.zeros(0, model.config.n_chans, length)
    x = torch.from_numpy(np.ascontiguousarray(windows)) if windows else empty
    return x, torch.tensor(labels, dtype=torch.int64), np.array(times)


def _spans(one: Prepared) -> Iterator[Span]:
    """Yield what was asked for when; until the next cue where a marker tells no duration."""
    spans = sorted(one.spans)
    for (first, after, place), following in zip_longest(spans, spans[1:]):
        cut = len(one.data) if following is None else min(following[0], len(one.data))
        yield first, min(after, cut) if after > first else cut, place


def _of_rest(model: Any, rest: Tensor) -> Tensor:
    """Return the log-probabilities of all classes at the last `HELD` hops, (m HELD, K)."""
    if not len(rest):
        return torch.zeros(0, 1)
    outputs, _ = model(rest, model.init_state(len(rest)))
    return F.log_softmax(outputs["logits"][:, -HELD:], dim=-1).flatten(0, 1)


def _cost(model: Any, recipe: Recipe, shown: Shown, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of the answers among the classes that may be one."""
    assert isinstance(recipe.protocol, Trials)
    asked = recipe.protocol.asked(recipe.classes, recipe.idle)
    outputs, _ = model(shown.x, model.init_state(len(shown)))
    logits = outputs["logits"][:, -LAST:, asked].mean(dim=1)  # (n, K)
    truth = torch.tensor([asked.index(place) for place in shown.labels.tolist()])
    return F.cross_entropy(logits, truth, reduction=reduction)


def _with_mirrored(shown: Shown, recipe: Recipe) -> Shown:
    """Return trials and rest, and their mirror images where the recipe learned from such."""
    if not recipe.augment.mirror:
        return shown
    turn = Augmenter(Augment(mirror=1.0), recipe.ch_names, recipe.classes)
    rng = np.random.default_rng(0)  # unused: all are turned
    x, labels = turn(shown.x.numpy().copy(), shown.labels.numpy(), rng)
    rest, _ = turn(shown.rest.numpy().copy(), np.zeros(len(shown.rest), dtype=np.int64), rng)
    return Shown(
        torch.cat([shown.x, torch.from_numpy(x)]),
        torch.cat([shown.labels, torch.from_numpy(labels)]),
        np.tile(shown.times, 2),
        torch.cat([shown.rest, torch.from_numpy(rest)]),
        np.tile(shown.rest_times, 2),
    )


def _spread(model: Any, rest: Tensor) -> float:
    """Return the summed squares of the logits of rest, each hop's mean taken off."""
    if not len(rest):
        return 0.0
    said = _of_rest(model, rest)
    return float((said - said.mean(dim=-1, keepdim=True)).square().sum())


def _dealt(labels: Tensor) -> Iterator[NDArray[np.int64]]:
    """Yield what is left out in turn, dealt class by class."""
    dealt = np.argsort(labels.numpy(), kind="stable")
    for fold in range(FOLDS):
        yield np.sort(dealt[fold::FOLDS])


def _enough(shown: Shown, recipe: Recipe) -> None:
    found = shown.counts(recipe.classes)
    if len(shown) < FEWEST or len(found) < 2:
        named = ", ".join(f"{count} of {name}" for name, count in found.items()) or "none"
        raise ConfigError(
            f"{len(shown)} labelled trials ({named}): it takes at least {FEWEST}, of two classes. Give more "
            "signal, or check the names of the events."
        )
