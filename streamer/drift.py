"""The line that time stamps follow over the sample index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Stamps = NDArray[np.float64]

# A block is what the line learns from at once: short against the seconds in which clocks drift, long
# enough that a chunk seldom touches two. One costs 6 us, where a Python loop takes 1 us per sample.
BLOCK_S = 0.1
# EEG recordings at hand run 45 to 1270 ppm off their nominal rate (Muse, Cyton), motion sensors 3200, one XDF
# stream 6000 after its clock was reset. Beyond 1 % a device does not deliver what it promises, and that must
# show as holes or steps, not as a stretched axis.
MAX_DRIFT = 1e-2
# Final bandwidth of the fit, rad/s: 5 ms of jitter at 250 Hz moves the stamps by 0.1 ms, the rate by 4 ppm.
BANDWIDTH = 0.05
# Mean absolute jitter assumed before any was measured.
JITTER_PRIOR_S = 5e-3
# Software that stamps on arrival is late by up to 20 ms now and then, however calm it is otherwise;
# only stamps that were computed (jitter below some us) are trusted to a fraction of a sample.
HICCUP_S = 20e-3


class DriftLine:
    """Time over sample index: a second-order tracking loop that learns block by block.

    Attributes
    ----------
    period : float
        Seconds per sample, as measured.
    jitter : float
        Mean distance of the stamps from the line over the last seconds, s.
    threshold : float
        How far ahead of the line a stamp may be without a reason to ask why, s.
    tolerance : float
        By how much a steady lead may vary, s.
    steps : int
        How often the stamps stepped back and stayed there.
    """

    def __init__(self, sfreq: float) -> None:
        self.nominal = 1 / sfreq
        self.period = self.nominal
        self.steps = 0
        self.anchored = False
        self.jitter = 0.0
        self._level = JITTER_PRIOR_S
        self._offset = 0.0
        self._index = 0
        self._time = 0.0
        self._blocks = 0
        self._block = np.empty(max(1, round(BLOCK_S * sfreq)))
        self._filled = 0
        self._tighten()

    def anchor(self, index: int, stamps: Stamps) -> None:
        """Start the line at the first finite stamp; its rate and what is known of the jitter stay."""
        finite = np.flatnonzero(np.isfinite(stamps))
        self.anchored = bool(finite.size)
        if self.anchored:
            self._time = float(stamps[finite[0]])
            self._index = index + int(finite[0])
            self._filled = self._blocks = 0
            self._offset = 0.0

    @property
    def room(self) -> int:
        """Rows until the block is full."""
        return len(self._block) - self._filled

    def predict(self, index: int, n: int) -> Stamps:
        """Return the line's times for ``n`` rows from ``index``."""
        first = index - self._index
        return self._time + self.period * np.arange(first, first + n, dtype=np.float64)

    def skip(self, samples: int) -> None:
        """Move the line ahead by so many samples."""
        self._time += samples * self.period
        self._offset = 0.0

    def learn(self, residual: Stamps, index: int) -> None:
        """Take in the residuals of the rows that end before ``index``; not beyond `room`."""
        filled = self._filled + len(residual)
        self._block[self._filled : filled] = residual
        self._filled = filled
        if filled == len(self._block):
            self._filled = 0
            self._update(self._block[np.isfinite(self._block)], index)

    def _update(self, residual: Stamps, index: int) -> None:
        self._time += self.period * (index - self._index)
        self._index = index
        if not residual.size:
            return
        if residual.max() < -self.threshold and np.ptp(residual) <= self.tolerance:
            step = float(np.median(residual))
            self._time += step
            self._offset = 0.0
            self.steps += 1
            residual = residual - step
        limit = 4 * self._level + self.nominal
        residual = residual.clip(self._offset - limit, self._offset + limit)
        error = float(residual.mean())
        self._measure(float(np.abs(residual - self._offset).mean()))
        self._track(error)
        self._blocks += 1
        self._tighten()

    def _track(self, error: float) -> None:
        """Critically damped, with a bandwidth that narrows as the record grows."""
        omega = max(BANDWIDTH, 2 / (5 + self._blocks * BLOCK_S)) * BLOCK_S
        correction = max(1 / (self._blocks + 1), 2 * omega) * error
        self._time += correction
        self._offset = error - correction
        period = self.period + omega**2 * error / len(self._block)
        self.period = min(max(period, self.nominal * (1 - MAX_DRIFT)), self.nominal * (1 + MAX_DRIFT))

    def _measure(self, spread: float) -> None:
        """Rise at once, fall over half a second: a burst of jitter must not look like holes."""
        fall = max(1 / (self._blocks + 2), 0.2)
        self._level += (0.5 if spread > self._level else fall) * (spread - self._level)
        self.jitter += max(1 / (self._blocks + 1), 0.02) * (spread - self.jitter)

    def _tighten(self) -> None:
        self.threshold = max(0.75 * self.nominal, 5 * self._level, min(1e3 * self._level, HICCUP_S))
        self.tolerance = max(0.02 * self.nominal, 6 * self._level)
