"""Decides recordings anew that were played once, with many settings of a decision stage at a time.

With one setting that is `offline.evaluate.decide.decide`, which takes the decision stage itself; this is the
same, label for label, for a search over hundreds and for curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.decision import DecisionConfig, DecisionSettings, EvidenceConfig
from engine.decision.evidence import log_odds
from offline.evaluate.decide import HOLE_HOPS
from offline.evaluate.played import Played

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]
NOTHING = -1.0  # below any release: what is 0 holds no label of the sequential test


@dataclass(frozen=True, slots=True)
class Stack:
    """Recordings side by side, the shorter ones filled up with invalid hops.

    Attributes
    ----------
    logs : ndarray, shape (n_hops, n_recordings, n_classes), float64
        Log-probabilities.
    valid, fresh : ndarray, shape (n_hops, n_recordings), bool
        Decided on at all, and after a hole, behind which everything starts afresh.
    places : ndarray, shape (n_active,)
        Of the classes that may be the label.
    idle : int or None
        Place of the one that means nothing.
    hop_s : float
    """

    logs: Floats
    valid: NDArray[np.bool_]
    fresh: NDArray[np.bool_]
    places: NDArray[np.intp]
    idle: int | None
    hop_s: float

    @property
    def ratios(self) -> Floats:
        """Log-odds of each class that may be the label; shape (n_hops, n_recordings, n_active)."""
        return log_odds(self.logs, self.places, self.idle)


def stack(played: Sequence[Played], classes: Sequence[str], idle: str | None) -> Stack:
    """Return these recordings side by side."""
    places = np.array([place for place, name in enumerate(classes) if name != idle])
    shape = (max(len(one) for one in played), len(played))
    logs, valid = np.zeros((*shape, len(classes))), np.zeros(shape, dtype=bool)
    fresh = np.zeros(shape, dtype=bool)
    for column, one in enumerate(played):
        logs[: len(one), column] = one.log_probs
        valid[: len(one), column] = one.valid
        fresh[1 : len(one), column] = np.diff(one.times) > HOLE_HOPS * one.hop_s
    idle_place = None if idle is None else list(classes).index(idle)
    hop_s = float(np.median([one.hop_s for one in played]))
    return Stack(logs, valid, fresh, places, idle_place, hop_s)


def redecide(
    played: Sequence[Played],
    settings: DecisionSettings,
    bounds: Sequence[float],
    classes: Sequence[str],
    idle: str | None,
) -> list[Labels]:
    """Return each recording's labels, (n_hops, n_bounds), by these settings at each bound; -1 for none."""
    labels = sweep(stack(played, classes, idle), [settings], np.asarray(bounds, dtype=np.float64))
    return [labels[: len(one), 0, :, column] for column, one in enumerate(played)]


def grown(stacked: Stack, settings: Sequence[DecisionSettings]) -> Floats:
    """Return what speaks for each class that may be the label, hop by hop.

    Parameters
    ----------
    settings : sequence of DecisionSettings
        All of one kind.

    Returns
    -------
    ndarray, shape (n_hops, n_settings, n_recordings, n_active), float64
        Evidence in nats, or smoothed probabilities.
    """
    tests = [one for one in settings if isinstance(one, EvidenceConfig)]
    if len(tests) == len(settings):
        return _evidence(stacked, tests)
    return _smoothed(stacked, settings)[..., stacked.places]


def sweep(
    stacked: Stack,
    settings: Sequence[DecisionSettings],
    bounds: Floats,
    spoken: Floats | None = None,
) -> Labels:
    """Return the labels of every setting at each of its bounds.

    Parameters
    ----------
    settings : sequence of DecisionSettings
        All of one kind; each is taken ``at`` each of its bounds.
    bounds : ndarray, shape (n_settings, n_bounds), or (n_bounds,) for all settings
    spoken : ndarray, optional
        What `grown` gives for these settings, where it is known already.

    Returns
    -------
    ndarray, shape (n_hops, n_settings, n_bounds, n_recordings), int8
        Places of labels; -1 for none.
    """
    n_hops, n_recordings = stacked.valid.shape
    bounds = np.broadcast_to(bounds, (len(settings), bounds.shape[-1]))
    spoken, leading = _spoken(stacked, settings, spoken)
    machine = _Machine(settings, bounds, n_recordings, stacked.hop_s)
    made = np.empty((n_hops, *bounds.shape, n_recordings), dtype=np.int8)
    for hop in range(n_hops):
        made[hop] = machine.step(spoken[hop], leading[hop], stacked.valid[hop], stacked.fresh[hop])
    return np.where(made < 0, np.int8(-1), stacked.places.astype(np.int8)[made])


def _spoken(
    stacked: Stack, settings: Sequence[DecisionSettings], spoken: Floats | None
) -> tuple[Floats, NDArray[np.int8]]:
    """Return what speaks for each class, and the one that may begin where that suffices; -1 for none."""
    if any(isinstance(one, DecisionConfig) for one in settings):
        smooth = _smoothed(stacked, settings)
        leads = smooth.argmax(axis=-1)
        place_of = np.full(smooth.shape[-1], -1, dtype=np.int8)
        place_of[stacked.places] = np.arange(len(stacked.places))
        return smooth[..., stacked.places], place_of[leads]
    spoken = grown(stacked, settings) if spoken is None else spoken
    ordered = np.sort(spoken, axis=-1)
    margin = np.array([getattr(one, "margin", 0.0) for one in settings])[:, None]
    alone = spoken.shape[-1] == 1
    leads = alone | (ordered[..., -1] - ordered[..., -2 % ordered.shape[-1]] >= margin)
    leading = np.where(leads & (ordered[..., -1] > 0), spoken.argmax(axis=-1), -1).astype(np.int8)
    return np.where(spoken > 0, spoken, NOTHING), leading


def _evidence(stacked: Stack, settings: Sequence[EvidenceConfig]) -> Floats:
    """Return the evidence of the sequential test; shape (n_hops, n_settings, n_recordings, n_active)."""
    every = stacked.ratios
    n_hops, n_recordings, n_active = every.shape
    keep, weight = _wide([one.weights(stacked.hop_s) for one in settings])
    prior, clip, ceiling = _wide(
        [
            (0.0 if stacked.idle is None else one.prior_log_odds(n_active), one.clip, one.ceiling)
            for one in settings
        ]
    )
    found = np.zeros((n_hops, len(settings), n_recordings, n_active))
    evidence = np.zeros(found.shape[1:])
    for hop in range(n_hops):
        evidence[:, stacked.fresh[hop]] = 0.0
        ratios = np.clip(every[hop] - prior, -clip, clip)
        evidence = np.clip(keep * evidence + weight * ratios, 0.0, ceiling)
        evidence[:, ~stacked.valid[hop]] = 0.0
        found[hop] = evidence
    return found


def _smoothed(stacked: Stack, settings: Sequence[DecisionSettings]) -> Floats:
    """Return smoothed probabilities; shape (n_hops, n_settings, n_recordings, n_classes)."""
    weights = np.exp(stacked.logs - stacked.logs.max(axis=-1, keepdims=True))
    now = weights / weights.sum(axis=-1, keepdims=True)  # (n_hops, n_recordings, n_classes)
    keep = np.array([one.keep(stacked.hop_s) for one in settings])[:, None, None]
    found = np.empty((len(now), len(settings), *now.shape[1:]))
    smooth, unseen = np.zeros(found.shape[1:]), np.ones(now.shape[1], dtype=bool)
    for hop, one in enumerate(now):
        unseen |= stacked.fresh[hop]
        mixed = keep * smooth + (1 - keep) * one
        smooth = np.where(unseen[:, None], one, mixed)
        found[hop] = smooth
        unseen = ~stacked.valid[hop]
    return found


def _wide(each: Sequence[tuple[float, ...]]) -> tuple[Floats, ...]:
    """Return one array per number, (n_settings, 1, 1), from one tuple of numbers per setting."""
    return tuple(np.array(column)[:, None, None] for column in zip(*each, strict=True))


class _Machine:
    """What `engine.decision.Decider` does with what speaks, (settings, bounds, recordings) wide."""

    def __init__(
        self, settings: Sequence[DecisionSettings], bounds: Floats, n_recordings: int, hop_s: float
    ) -> None:
        shape = (*bounds.shape, n_recordings)
        self._bounds = bounds[:, :, None]
        self._release = np.array(
            [
                [one.at(float(bound)).ends_below for bound in row]
                for one, row in zip(settings, bounds, strict=True)
            ]
        )[:, :, None]
        self._dwell = np.array([max(1, round(one.dwell_s / hop_s)) for one in settings])[:, None, None]
        refractory = np.array([round(one.refractory_s / hop_s) for one in settings])
        self._refractory = np.broadcast_to(refractory[:, None, None], shape)
        self._label, self._candidate = np.full(shape, -1), np.full(shape, -1)
        self._count, self._quiet = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)

    def step(
        self,
        spoken: Floats,
        leading: NDArray[np.int8],
        valid: NDArray[np.bool_],
        fresh: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Return the labels after one hop.

        Parameters
        ----------
        spoken : ndarray, shape (n_settings, n_recordings, n_active)
        leading : ndarray, shape (n_settings, n_recordings)
            The class that may begin, -1 for none.
        """
        if fresh.any():
            self._drop(np.broadcast_to(fresh, self._label.shape))
        self._quiet = np.where(fresh, 0, np.maximum(0, self._quiet - 1))
        self._drop(~(self._holds(spoken) & valid) & (self._label >= 0))
        open_ = valid & (self._label < 0) & (self._quiet == 0)
        ready = np.where(spoken.max(axis=-1)[:, None] >= self._bounds, leading[:, None], -1)
        grown = np.where(ready < 0, 0, np.where(ready == self._candidate, self._count + 1, 1))
        self._count = np.where(valid, np.where(open_, grown, self._count), 0)
        self._candidate = np.where(valid, np.where(open_, ready, self._candidate), -1)
        self._label = np.where(open_ & (self._count >= self._dwell), ready, self._label)
        return self._label

    def _drop(self, ended: NDArray[np.bool_]) -> None:
        self._quiet = np.where(ended, self._refractory, self._quiet)
        self._label = np.where(ended, -1, self._label)
        self._candidate = np.where(ended, -1, self._candidate)
        self._count = np.where(ended, 0, self._count)

    def _holds(self, spoken: Floats) -> NDArray[np.bool_]:
        wide = spoken[:, None]  # (S, 1, R, A)
        above = [(self._label == one) & (wide[..., one] >= self._release) for one in range(spoken.shape[-1])]
        return np.asarray(np.logical_or.reduce(above))
