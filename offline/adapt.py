"""A trained decoder adapted to one person by gradient, from a few labelled trials.

What differs between heads is where a source is seen: only the filters over electrodes move, those that a
model names in ``personal``, a few small steps from where they are.  Every trial is learned from as it is and
mirrored, so that nothing is learned of which side was shown more often.  Norms and dropout stay frozen.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from offline.evaluate.protocol import Trials
from offline.train.augment import Augment, Augmenter
from offline.train.data import Side
from offline.train.recipe import Recipe
from streamer.components import Config
from streamer.errors import ConfigError

LAST = 2  # hops at the answer that are learned from
FOLDS = 4  # in which trials are left out in turn
FEWEST = 4  # trials


class Settings(Config):
    """How far the filters go.

    Attributes
    ----------
    steps : int
        Of AdamW, each over all trials.
    lr : float
    """

    steps: PositiveInt = 20
    lr: PositiveFloat = 2e-3


@dataclass(frozen=True, slots=True)
class Shown:
    """Trials that somebody was asked for.

    Attributes
    ----------
    x : Tensor, shape (n, C, T)
        Preprocessed signal that the answer depends on, up to the time it is given.
    labels : Tensor, shape (n,), int64
        Place of the class in the recipe's.
    """

    x: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Shown:
        """Return these rows."""
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        return Shown(self.x[chosen], self.labels[chosen])

    def counts(self, classes: Sequence[str]) -> dict[str, int]:
        """Return how many there are of each class."""
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
    """

    model: Any
    before: float
    after: float

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
    before: list[float] = []
    after: list[float] = []
    for out in _folds(shown):
        kept = np.setdiff1d(np.arange(len(shown)), out)
        other = learned(model, recipe, shown.take(kept), settings)
        for found, one in ((before, model), (after, other)):
            with torch.inference_mode():
                found.append(float(_cost(one, recipe, shown.take(out), reduction="sum")))
    n = len(shown)
    return Adapted(learned(model, recipe, shown, settings), sum(before) / n, sum(after) / n)


def learned(model: Any, recipe: Recipe, shown: Shown, settings: Settings) -> Any:
    """Return a copy of the model whose filters over electrodes have learned these trials."""
    model = copy.deepcopy(model).eval()
    moved = []
    for name, parameter in model.named_parameters():
        mine = any(part in model.personal for part in name.split("."))
        parameter.requires_grad_(mine)
        moved += [parameter] if mine else []
    both = _with_mirrored(shown, recipe)
    optimizer = torch.optim.AdamW(moved, lr=settings.lr, weight_decay=0.0)
    for _ in range(settings.steps):
        optimizer.zero_grad()
        _cost(model, recipe, both).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.requires_grad_(False)


def shown_by(model: Any, side: Side, recipe: Recipe) -> tuple[Shown, list[float]]:
    """Return one person's trials in the order of their recordings, and each answer's time.

    Parameters
    ----------
    side : Side
        All recordings of that person.

    Returns
    -------
    Shown, list of float
        Seconds of signal from the first recording's first sample to the answer.

    Raises
    ------
    ConfigError
        The model has no filters of a person, or its recipe does not ask for one answer per cue.
    """
    if not hasattr(model, "personal"):
        raise ConfigError(f"A model of kind {recipe.model.kind} has no filters that could be a person's own.")
    if not isinstance(recipe.protocol, Trials):
        raise ConfigError("The model answers windows, not cues: there is no trial to adapt it to.")
    at, asked = round(recipe.protocol.at_s * recipe.sfreq), recipe.protocol.asked(recipe.classes, recipe.idle)
    hop = model.hop
    length = -(-model.left_context // hop) * hop + LAST * hop
    windows, labels, times, begun = [], [], [], 0.0
    for session, stretches in zip(side.sessions, side.stretches, strict=True):
        if not stretches:
            continue
        for one in stretches:
            for first, _, place in one.spans:
                end = (first + at) // hop * hop
                if place in asked and length <= end <= len(one.data):
                    windows.append(one.data[end - length : end].T)
                    labels.append(place)
                    times.append(begun + one.start_s + end / recipe.sfreq)
        begun += float(session.recording.times[-1]) + 1 / session.recording.info.sfreq
    empty = torch.zeros(0, recipe.model.n_chans, length)
    x = torch.from_numpy(np.ascontiguousarray(windows)) if windows else empty
    return Shown(x, torch.tensor(labels, dtype=torch.int64)), times


def _cost(model: Any, recipe: Recipe, shown: Shown, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of the answers among the classes that may be one."""
    assert isinstance(recipe.protocol, Trials)
    asked = recipe.protocol.asked(recipe.classes, recipe.idle)
    outputs, _ = model(shown.x, model.init_state(len(shown)))
    logits = outputs["logits"][:, -LAST:, asked].mean(dim=1)  # (n, K)
    truth = torch.tensor([asked.index(place) for place in shown.labels.tolist()])
    return F.cross_entropy(logits, truth, reduction=reduction)


def _with_mirrored(shown: Shown, recipe: Recipe) -> Shown:
    """Return the trials, and their mirror images where the recipe learned from such."""
    if not recipe.augment.mirror:
        return shown
    turn = Augmenter(Augment(mirror=1.0), recipe.ch_names, recipe.classes)
    x, labels = turn(shown.x.numpy().copy(), shown.labels.numpy(), np.random.default_rng(0))
    return Shown(
        torch.cat([shown.x, torch.from_numpy(x)]), torch.cat([shown.labels, torch.from_numpy(labels)])
    )


def _folds(shown: Shown) -> Iterator[NDArray[np.int64]]:
    """Yield the trials to leave out, dealt class by class."""
    dealt = np.argsort(shown.labels.numpy(), kind="stable")
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
