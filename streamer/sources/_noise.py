"""Random signals whose state is carried from block to block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Array = NDArray[np.float64]

EXPONENT = (
    1.6  # of the 1/f background: from 4 to 40 Hz power falls 25-fold in EEGMMIDB, rhythms and noise on top
)


class Coloured:
    """A filter over parallel signals, its state carried.

    Parameters
    ----------
    sos : ndarray, shape (n_sections, 6)
        Second-order sections.
    n_signals : int
        Columns.
    """

    def __init__(self, sos: Array, n_signals: int) -> None:
        self._sos = sos
        self._state: Array = np.zeros((len(sos), 2, n_signals))

    def __call__(self, white: Array) -> Array:
        """Return the next rows, (n_times, n_signals), filtered."""
        y, self._state = signal.sosfilt(self._sos, white, axis=0, zi=self._state)
        return np.asarray(y)


class Bursts:
    """An envelope of humps, 0 to about 1, that come at random.

    Parameters
    ----------
    rng : Generator
        Of when, how long and how high.
    per_min : float
        How many a minute.
    shortest, longest : float
        Seconds.
    sfreq : float
        Hz.
    """

    def __init__(
        self, rng: np.random.Generator, per_min: float, shortest: float, longest: float, sfreq: float
    ) -> None:
        self._rng = rng
        self._per_sample = per_min / 60 / sfreq
        self._lengths = round(shortest * sfreq), round(longest * sfreq) + 1
        self._pending = np.zeros(0)

    def __call__(self, n_times: int) -> Array:
        """Return the envelope's next rows, (n_times,)."""
        envelope = np.zeros(max(n_times + self._lengths[1], len(self._pending)))
        envelope[: len(self._pending)] = self._pending
        for _ in range(self._rng.poisson(self._per_sample * n_times)):
            start, length = self._rng.integers(n_times), self._rng.integers(*self._lengths)
            envelope[start : start + length] += self._rng.uniform(0.7, 1.3) * np.hanning(length)
        self._pending = envelope[n_times:]
        return envelope[:n_times]


def band(low: float, high: float, sfreq: float) -> Array:
    """Return a band-pass, as second-order sections, that makes white noise of 1 a rhythm of rms 1."""
    sos: Array = signal.butter(2, (low, high), "bandpass", fs=sfreq, output="sos")
    return _normalised(sos, sfreq, 0.0, sfreq / 2)


def pink(sfreq: float) -> Array:
    """Return a filter, as second-order sections, that makes white noise of 1 fall with ``EXPONENT``.

    Poles two octaves apart, a zero between each and the next.  The rms is 1 from 4 to 40 Hz.
    """
    poles = 0.3 * 4.0 ** np.arange(6)
    poles = poles[poles < sfreq / 2]
    zeros = poles * 4.0 ** (EXPONENT / 2)
    p, z = (np.exp(-2 * np.pi * corner / sfreq) for corner in (poles, zeros))
    sos: Array = signal.zpk2sos(z, p, 1.0)
    return _normalised(sos, sfreq, 4.0, 40.0)


def _normalised(sos: Array, sfreq: float, low: float, high: float) -> Array:
    """Return the filter with the gain that leaves unit power of white noise between two frequencies."""
    freqs, response = signal.sosfreqz(sos, worN=1 << 15, fs=sfreq)
    inside = (freqs >= low) & (freqs < high)
    power = np.square(np.abs(response[inside])).sum() / len(freqs)
    return np.concatenate([sos[:1] / [[*np.full(3, np.sqrt(power)), 1, 1, 1]], sos[1:]])
