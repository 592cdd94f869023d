"""What every system is asked to do, and what it must answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from streamer.errors import ConfigError

CHUNK = 10  # samples a push
WINDOW_S, HOP_S = 2.0, 0.1
NOTCH_HZ, NOTCH_Q = 50.0, 30.0
ORDER = 4
EEG_BAND, EMG_BAND = (4.0, 38.0), (20.0, 450.0)  # Hz
PERIOD = 64  # pushes after which the noise begins again
LOWEST_SFREQ = 128.0  # Hz; the notch and the band must fit below half of it


@dataclass(frozen=True, slots=True)
class Stream:
    """What the outlet gives and what is to be kept of it.

    Attributes
    ----------
    ch_names : tuple of str
        Of the channels.
    sfreq : float
        Hz.
    band : tuple of float
        Pass band, Hz.
    """

    name: str
    ch_names: tuple[str, ...]
    sfreq: float
    band: tuple[float, float]
    stype: str = "EEG"

    @property
    def n_chans(self) -> int:
        """Number of channels."""
        return len(self.ch_names)

    @property
    def hop(self) -> int:
        """Samples between two windows."""
        return round(HOP_S * self.sfreq)

    @property
    def window(self) -> int:
        """Samples of a window."""
        return round(WINDOW_S * self.sfreq)

    @property
    def sos(self) -> NDArray[np.float64]:
        """Band-pass and notch as second-order sections, shape (n_sections, 6)."""
        band = signal.butter(ORDER, self.band, "bandpass", fs=self.sfreq, output="sos")
        notch = signal.tf2sos(*signal.iirnotch(NOTCH_HZ, NOTCH_Q, self.sfreq))
        return np.concatenate([band, notch])

    def words(self) -> str:
        """Return the stream in a line."""
        return f"{self.n_chans} channels at {self.sfreq:g} Hz, in pushes of {CHUNK} samples"


def _numbered(name: str, n_chans: int, sfreq: float, stype: str = "EEG") -> Stream:
    band = EMG_BAND if sfreq >= 2000 else EEG_BAND
    return Stream(name, tuple(f"{stype}{i + 1}" for i in range(n_chans)), sfreq, band, stype)


STREAMS = {
    stream.name: stream
    for stream in (
        _numbered("eeg-8", 8, 250.0),
        _numbered("eeg-64", 64, 250.0),
        _numbered("eeg-64-1k", 64, 1000.0),
        _numbered("emg-16-2k", 16, 2000.0, "EMG"),
        _numbered("fast-64-40k", 64, 40_000.0),
    )
}
ALL = ("eeg-8", "eeg-64", "eeg-64-1k", "emg-16-2k")  # fast-64-40k asks for throughput, not for latency


def checked(sfreq: float) -> float:
    """Return a rate, Hz; `ConfigError` where the filter does not fit it."""
    if not LOWEST_SFREQ <= sfreq < math.inf:
        raise ConfigError(f"--sfreq is at least {LOWEST_SFREQ:g} Hz, got {sfreq:g}.")
    return sfreq


def own(n_chans: int, sfreq: float) -> Stream:
    """Return a stream of one's own size; `ConfigError` where the filter does not fit its rate."""
    return _numbered("own", n_chans, checked(sfreq))


@dataclass(frozen=True, slots=True)
class Job:
    """One turn's work.

    Attributes
    ----------
    seconds, settle_s : float
        What is measured, and what comes before: start-up, first windows, caches.
    source_id : str
        Of the outlet; each turn has its own.
    hop_s : float
        Seconds between answers: one that takes longer is a missed hop.
    """

    stream: Stream
    seconds: float
    settle_s: float
    source_id: str = ""
    hop_s: float = HOP_S

    @property
    def pushes(self) -> int:
        """How often the outlet pushes."""
        return math.ceil((self.settle_s + self.seconds) * self.stream.sfreq / CHUNK)

    @property
    def samples(self) -> int:
        """How many samples there will be."""
        return self.pushes * CHUNK

    @property
    def settled(self) -> int:
        """The first sample that counts."""
        return round(self.settle_s * self.stream.sfreq)

    def over(self, source_id: str) -> Job:
        """Return the same work over another outlet."""
        return replace(self, source_id=source_id)


def noise(n_chans: int) -> NDArray[np.float32]:
    """Return what is pushed, µV, shape (PERIOD, CHUNK, n_chans): push ``i`` is ``noise[i % PERIOD]``."""
    drawn = np.random.default_rng(0).normal(scale=10.0, size=(PERIOD, CHUNK, n_chans))
    return drawn.astype(np.float32)


def pushed(stream: Stream, start: int, end: int) -> NDArray[np.float32]:
    """Return samples ``start`` to ``end`` of the stream, shape (end - start, n_chans)."""
    flat = noise(stream.n_chans).reshape(PERIOD * CHUNK, stream.n_chans)
    return flat[np.arange(start, end) % len(flat)]


def expected(stream: Stream, ends: Sequence[int]) -> list[NDArray[np.float64]]:
    """Return the windows that end before the samples ``ends``: SciPy's filter over all samples from 0."""
    filtered = signal.sosfilt(stream.sos, pushed(stream, 0, max(ends)), axis=0)
    return [filtered[end - stream.window : end] for end in ends]
