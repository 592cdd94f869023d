"""A window every hop, for the consumers that frame by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bench.meter import Meter

SILENT_S = 3.0  # nothing for so long: what has not come is lost


class Windows:
    """A mirrored ring: every window is one slice of it.

    Attributes
    ----------
    n : int
        Samples so far.
    """

    def __init__(self, meter: Meter) -> None:
        stream = meter.job.stream
        self.n = 0
        self._meter, self._hop, self._size = meter, stream.hop, stream.window
        self._due = self._hop
        self._ring = np.zeros((2 * self._size, stream.n_chans), dtype=np.float32)

    def add(self, rows: NDArray[Any]) -> None:
        """Take filtered rows, shape (n, n_chans); hand on each window that they complete, as a view."""
        start = 0
        while start < len(rows):
            at = self.n % self._size
            n = min(len(rows) - start, self._due - self.n, self._size - at)
            self._ring[at : at + n] = rows[start : start + n]
            self._ring[self._size + at : self._size + at + n] = rows[start : start + n]
            self.n += n
            start += n
            if self.n == self._due:
                self._hand_on()

    def _hand_on(self) -> None:
        self._due += self._hop
        if self.n >= self._size:
            newest = self.n % self._size + self._size
            self._meter.answer(self.n, self._ring[newest - self._size : newest])

    @property
    def missing(self) -> int:
        """Samples of the job that have not come."""
        return self._meter.job.samples - self.n
