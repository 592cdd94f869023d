"""Running standardisation of features: what came before says what is usual for this person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offline.benchmark.readers import Features
from offline.probe.tasks import Index

TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Standard:
    """Mean and variance of every feature, (p,) each."""

    mean: Features
    variance: Features


def standard_of(each: Sequence[Features]) -> Standard:
    """Return the mean over recordings (n, p) of their mean and of their variance around it."""
    mean = np.mean([one.mean(axis=0) for one in each], axis=0)
    variance = np.mean([one.var(axis=0) for one in each], axis=0)
    return Standard(mean, variance)


def running(
    features: Features, stretch: Index, start: Standard, hop_s: float, constant_s: float | None
) -> Features:
    """Return features (n, p) standardised by an exponentially forgetting mean and SD of those before.

    Every stretch begins at ``start``, which counts like ``constant_s`` of signal.  Each row is standardised
    first and taken into mean and variance then.

    Parameters
    ----------
    stretch : ndarray, shape (n,), int
        In which stretch between holes a row lies.
    constant_s : float
        Time constant of forgetting.
    """
    assert constant_s is not None, "asked for with a time constant only"
    share = 1 - np.exp(-hop_s / constant_s)
    found = np.empty_like(features)
    mean, variance, last = start.mean, start.variance, -1
    for row, x in enumerate(features):
        if stretch[row] != last:
            mean, variance, last = start.mean, start.variance, int(stretch[row])
        away = x - mean
        found[row] = away / np.sqrt(variance + TINY)
        mean = mean + share * away
        variance = (1 - share) * (variance + share * away**2)  # West 1979, with weights that decay
    return found
