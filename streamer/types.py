"""What flows: stream descriptions, chunks of samples, markers and decisions.

Two array layouts exist in the project: ``(n_times, n_chans)`` for samples, here, and ``(B, C, T)`` for
models.  The one transposition between them is in ``engine.framer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a stream is: constant from its first chunk to its last.

    Attributes
    ----------
    name, source_id : str
        As in LSL; ``source_id`` is what a reconnecting reader looks for first.
    stype : str
        LSL content type, upper case: ``"EEG"``, ``"EMG"``, ...
    sfreq : float
        Nominal sampling rate, Hz.
    ch_names, ch_types : tuple of str
        One per channel, in column order.  Types are MNE's words (``eeg``, ``emg``, ``eog``, ``ecg``,
        ``stim``, ``misc``, ...).
    unit : str
        ``"uV"``, ``"mV"``, ``"V"``, counts such as ``"10 uV"``, or ``"unknown"``: the unit of every channel.
    """

    name: str
    source_id: str
    stype: str
    sfreq: float
    ch_names: tuple[str, ...]
    ch_types: tuple[str, ...]
    unit: str

    def __post_init__(self) -> None:
        if len(self.ch_names) != len(self.ch_types):
            raise ValueError(f"{len(self.ch_names)} channel names but {len(self.ch_types)} channel types")
        if not self.sfreq > 0:
            raise ValueError(f"sfreq must be positive, got {self.sfreq}")

    @property
    def n_chans(self) -> int:
        """Number of channels."""
        return len(self.ch_names)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Samples that arrived together.  Any length, zero included.

    Attributes
    ----------
    data : ndarray, shape (n_times, n_chans), float32
        In the unit of the stream.  Never written to after the chunk is made.
    index : int
        Sample index of the first row on the stream's own grid: the clock of record.
    times : ndarray, shape (n_times,), float64
        Seconds on the local LSL clock, one per row.
    valid : ndarray, shape (n_times,), bool
        False where a sample was repaired, replaced or otherwise not measured.
    discontinuity : bool
        The first row does not follow the previous chunk's last one: every state must be reset.
    """

    data: Samples
    index: int
    times: NDArray[np.float64]
    valid: NDArray[np.bool_]
    discontinuity: bool = False

    def __len__(self) -> int:
        return len(self.data)

    def carrying(self, data: Samples, valid: NDArray[np.bool_] | None = None) -> Chunk:
        """Return a chunk of other samples for the same rows; 0.8 us where `dataclasses.replace` takes 3."""
        return Chunk(data, self.index, self.times, self.valid if valid is None else valid, self.discontinuity)


@dataclass(frozen=True, slots=True)
class Marker:
    """An event on a stream's time axis.

    Attributes
    ----------
    time : float
        Seconds, on the same clock as the chunks' ``times``.
    label : str
        As the recorder wrote it, or a class name.
    duration : float
        Seconds; 0 for a point event.
    """

    time: float
    label: str
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What the engine says after one hop.

    Attributes
    ----------
    index : int
        Sample index (on the model's grid) of the last sample used.
    time : float
        Stamp of that sample, s on the local LSL clock; latency is emit time minus this.
    probabilities : tuple of float
        Calibrated and smoothed, one per class; they sum to 1.
    label : str or None
        The class decided for.  None: idle, rejected, warming up or bad signal.
    confidence : float
        By the kind of decision: probability of the most likely class (``threshold``), or evidence for the
        leading class as a share of what a label takes (``evidence``).
    valid : bool
        False while the model warms up or the signal under the decision is bad.
    """

    index: int
    time: float
    probabilities: tuple[float, ...]
    label: str | None
    confidence: float
    valid: bool


@dataclass(frozen=True, slots=True)
class DecisionInfo:
    """What a stream of decisions is: constant for a run; sinks are opened with it.

    Attributes
    ----------
    name : str
        Name of the run; the LSL sink's stream is called so.
    classes : tuple of str
        One per probability.
    rate : float
        Decisions per second.
    source : StreamInfo
        The stream that is decoded.
    meta : mapping
        What a reader may want to know: bundle name and version, delays, versions.
    """

    name: str
    classes: tuple[str, ...]
    rate: float
    source: StreamInfo
    meta: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def make_chunk(
    data: Samples, index: int, times: NDArray[np.float64], *, discontinuity: bool = False
) -> Chunk:
    """Return a chunk whose samples are all valid."""
    return Chunk(data, index, times, np.ones(len(data), dtype=bool), discontinuity)


def empty_chunk(info: StreamInfo, index: int = 0) -> Chunk:
    """Return a chunk of no samples."""
    data = np.zeros((0, info.n_chans), dtype=np.float32)
    return Chunk(data, index, np.zeros(0), np.zeros(0, dtype=bool))


def concatenate(chunks: Sequence[Chunk]) -> Chunk:
    """Join chunks that follow each other; copies.

    Raises
    ------
    ValueError
        No chunk, or a discontinuity after the first one.
    """
    if not chunks:
        raise ValueError("nothing to concatenate")
    if any(chunk.discontinuity for chunk in chunks[1:]):
        raise ValueError("a discontinuity lies between these chunks: join each side by itself")
    first = chunks[0]
    return Chunk(
        np.concatenate([chunk.data for chunk in chunks]),
        first.index,
        np.concatenate([chunk.times for chunk in chunks]),
        np.concatenate([chunk.valid for chunk in chunks]),
        first.discontinuity,
    )
