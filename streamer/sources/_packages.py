"""How many samples a device lost, read off its package numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEARN = 64  # rows that show how a device counts
USABLE = 0.8  # share of them that must follow the rule


class PackageCounter:
    """Counts the samples missing before each row.

    Devices count in their own ways: up to 255, up to 200, by two, one number for two samples, or not at all.
    The first 64 rows tell which; until then nothing is found missing.  The number at which counting starts
    again is the highest one seen; a whole turn lost is not seen here but by the stamps.
    """

    def __init__(self) -> None:
        self._first: NDArray[np.float64] = np.zeros(0)
        self._step = 0.0
        self._repeat = 1
        self._last = 0.0
        self._top = 0.0

    def missing(self, numbers: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return how many samples are missing before each row, shape (n_times,).

        Parameters
        ----------
        numbers : ndarray, shape (n_times,), float64
            The package number of each row; calls continue each other.
        """
        to_learn = LEARN - len(self._first)
        head, tail = numbers[:to_learn], numbers[max(to_learn, 0) :]
        if to_learn > 0:
            self._first = np.concatenate([self._first, head])
            if len(self._first) == LEARN:
                self._learn()
        else:
            head, tail = numbers[:0], numbers
        known = np.zeros(len(head), dtype=np.intp)
        return np.concatenate([known, self._count(tail)]) if len(tail) else known

    def _learn(self) -> None:
        steps = np.diff(self._first)
        up = steps[steps > 0]
        self._last, self._top = float(self._first[-1]), float(self._first.max())
        if not up.size:
            return
        step = float(np.median(up))
        follows = np.isin(steps, (0.0, step)) | (steps < 0)
        if follows.mean() >= USABLE:
            self._step = step
            self._repeat = round(len(steps) / np.count_nonzero(steps))

    def _count(self, numbers: NDArray[np.float64]) -> NDArray[np.intp]:
        if not self._step:
            return np.zeros(len(numbers), dtype=np.intp)
        steps = np.diff(numbers, prepend=self._last)
        tops = np.maximum.accumulate(np.concatenate([[self._top], numbers]))
        turned = steps < 0
        steps[turned] += tops[:-1][turned] + self._step
        self._last, self._top = float(numbers[-1]), float(tops[-1])
        lost = np.rint(steps / self._step).astype(np.intp) - 1
        return np.maximum(lost, 0) * self._repeat
