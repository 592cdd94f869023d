"""A classifier for tasks with an idle class: first whether anything is meant, then what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


class IdleFirst:
    """Two classifiers: idle against the rest, and the classes of the rest against each other.

    What it says among the classes that are not idle is what a decoder that knows no idle class says, so its
    accuracy there is the one that is published for such decoders.

    Parameters
    ----------
    build : callable
        From a number of classes to an untrained classifier.
    n_classes : int
        Three or more.
    idle : int
    """

    def __init__(self, build: Callable[[int], Any], n_classes: int, idle: int) -> None:
        self._cued = [label for label in range(n_classes) if label != idle]
        self._idle, self._n_classes = idle, n_classes
        self._active, self._which = build(2), build(len(self._cued))

    def fit(self, x: NDArray[np.float64], labels: Labels) -> IdleFirst:
        """Fit both; every class occurs in ``labels`` (n,)."""
        active = labels != self._idle
        self._active.fit(x, active.astype(np.int64))
        self._which.fit(x[active], labels[active])
        return self

    def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of each class, (n, n_classes)."""
        active = self._active.predict_proba(x)[:, 1]
        found = np.empty((len(x), self._n_classes))
        found[:, self._idle] = 1 - active
        found[:, self._cued] = active[:, None] * self._which.predict_proba(x)
        return found
