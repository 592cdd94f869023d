"""Decides recordings anew that were played once, with many settings of the sequential test at a time.

With one setting that is `offline.evaluate.decide.decide`, which takes the decision stage itself; this is the
same for a search over hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.decision import EvidenceConfig
from engine.decision.evidence import log_odds
from offline.evaluate.decide import HOLE_HOPS
from offline.evaluate.played import Played


@dataclass(frozen=True, slots=True)
class Stack:
    """Recordings side by side, the shorter ones filled up with invalid hops.

    Attributes
    ----------
    ratios : ndarray, shape (n_hops, n_recordings, n_active), float64
        Log-odds of each class that may be the label.
    valid, fresh : ndarray, shape (n_hops, n_recordings), bool
        Decided on at all, and after a hole, behind which everything starts afresh.
    places : ndarray, shape (n_active,)
        Of the classes that may be the label.
    hop_s : float
    """

    ratios: NDArray[np.float64]
    valid: NDArray[np.bool_]
    fresh: NDArray[np.bool_]
    places: NDArray[np.intp]
    hop_s: float


def stack(played: Sequence[Played], classes: Sequence[str], idle: str | None) -> Stack:
    """Return these recordings side by side."""
    places = np.array([place for place, name in enumerate(classes) if name != idle])
    idle_place = None if idle is None else list(classes).index(idle)
    shape = (max(len(one) for one in played), len(played))
    ratios, valid = np.zeros((*shape, len(places))), np.zeros(shape, dtype=bool)
    fresh = np.zeros(shape, dtype=bool)
    for column, one in enumerate(played):
        ratios[: len(one), column] = log_odds(one.log_probs.astype(np.float64), places, idle_place)
        valid[: len(one), column] = one.valid
        fresh[1 : len(one), column] = np.diff(one.times) > HOLE_HOPS * one.hop_s
    return Stack(ratios, valid, fresh, places, float(np.median([one.hop_s for one in played])))


def accumulate(stacked: Stack, settings: Sequence[EvidenceConfig]) -> NDArray[np.float64]:
    """Return the evidence; shape (n_hops, n_settings, n_recordings, n_active), float64, nats."""
    n_hops, n_recordings, n_active = stacked.ratios.shape
    keep, weight = _wide([one.weights(stacked.hop_s) for one in settings])
    prior, clip, ceiling = _wide([(one.prior_log_odds(n_active), one.clip, one.ceiling) for one in settings])
    found = np.zeros((n_hops, len(settings), n_recordings, n_active))
    evidence = np.zeros(found.shape[1:])
    for hop in range(n_hops):
        evidence[:, stacked.fresh[hop]] = 0.0
        ratios = np.clip(stacked.ratios[hop] - prior, -clip, clip)
        evidence = np.clip(keep * evidence + weight * ratios, 0.0, ceiling)
        evidence[:, ~stacked.valid[hop]] = 0.0
        found[hop] = evidence
    return found


def sweep(
    stacked: Stack,
    settings: Sequence[EvidenceConfig],
    bounds: NDArray[np.float64],
    evidence: NDArray[np.float64] | None = None,
) -> NDArray[np.int8]:
    """Return the labels of every setting at each of its bounds.

    Parameters
    ----------
    settings : sequence of EvidenceConfig
        Each is taken ``at`` each of its bounds.
    bounds : ndarray, shape (n_settings, n_bounds), or (n_bounds,) for all settings
        None above the ceiling of a setting.
    evidence : ndarray, optional
        What `accumulate` gives for these settings, where it is known already.

    Returns
    -------
    ndarray, shape (n_hops, n_settings, n_bounds, n_recordings), int8
        Place of the label among the classes; -1 for none.
    """
    n_hops, n_recordings, _ = stacked.ratios.shape
    bounds = np.broadcast_to(bounds, (len(settings), bounds.shape[-1]))
    evidence = accumulate(stacked, settings) if evidence is None else evidence
    machine = _Machine(settings, bounds, n_recordings, stacked.hop_s)
    made = np.empty((n_hops, *bounds.shape, n_recordings), dtype=np.int8)
    for hop in range(n_hops):
        made[hop] = machine.step(evidence[hop], stacked.valid[hop], stacked.fresh[hop])
    return np.where(made < 0, np.int8(-1), stacked.places.astype(np.int8)[made])


def _wide(each: Sequence[tuple[float, ...]]) -> tuple[NDArray[np.float64], ...]:
    """Return one array per number, (n_settings, 1, 1), from one tuple of numbers per setting."""
    return tuple(np.array(column)[:, None, None] for column in zip(*each, strict=True))


class _Machine:
    """What `engine.decision.Decider` does with evidence, (settings, bounds, recordings) wide."""

    def __init__(
        self,
        settings: Sequence[EvidenceConfig],
        bounds: NDArray[np.float64],
        n_recordings: int,
        hop_s: float,
    ) -> None:
        shape = (*bounds.shape, n_recordings)
        self._bounds = bounds[:, :, None]
        self._margin = np.array([one.margin for one in settings])[:, None]
        release = np.array([one.release for one in settings])[:, None]
        self._release = np.minimum(release, bounds)[:, :, None]
        self._dwell = np.array([max(1, round(one.dwell_s / hop_s)) for one in settings])[:, None, None]
        refractory = np.array([round(one.refractory_s / hop_s) for one in settings])
        self._refractory = np.broadcast_to(refractory[:, None, None], shape)
        self._label, self._candidate = np.full(shape, -1), np.full(shape, -1)
        self._count, self._quiet = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)

    def step(
        self, evidence: NDArray[np.float64], valid: NDArray[np.bool_], fresh: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return the labels after one hop; ``evidence`` is (settings, recordings, active classes)."""
        if fresh.any():
            self._drop(np.broadcast_to(fresh, self._label.shape))
        self._quiet = np.where(fresh, 0, np.maximum(0, self._quiet - 1))
        self._drop(~(self._holds(evidence) & valid) & (self._label >= 0))
        open_ = valid & (self._label < 0) & (self._quiet == 0)
        ready = self._ready(evidence)
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

    def _holds(self, evidence: NDArray[np.float64]) -> NDArray[np.bool_]:
        wide = evidence[:, None]  # (S, 1, R, A)
        above = [
            (self._label == one) & (wide[..., one] >= self._release) & (wide[..., one] > 0)
            for one in range(evidence.shape[-1])
        ]
        return np.asarray(np.logical_or.reduce(above))

    def _ready(self, evidence: NDArray[np.float64]) -> NDArray[np.int64]:
        best = evidence.argmax(axis=-1)  # (S, R)
        ordered = np.sort(evidence, axis=-1)
        top = ordered[..., -1]
        leads = top > 0
        if evidence.shape[-1] > 1:
            leads &= top - ordered[..., -2] >= self._margin
        chosen = np.where(leads, best, -1)[:, None]  # (S, 1, R)
        return np.where(top[:, None] >= self._bounds, chosen, -1)
