"""A recording as training meets it: cleaned and preprocessed as live, cut into segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from engine.manifest import AnyStep
from streamer.chain import Chain
from streamer.clean import Cleaner
from streamer.clock import Clock
from streamer.components import Config
from streamer.dsp import StepConfig
from streamer.dsp.montage import Config as Montage
from streamer.dsp.resample import Config as Resample
from streamer.errors import EndOfStream, RecordingError
from streamer.montage import clean_name
from streamer.sources.recording import Recording, RecordingSource
from streamer.types import Chunk, StreamInfo

if TYPE_CHECKING:
    Step = StepConfig
else:
    Step = AnyStep

FEED_S = 30.0  # fed at a time: what bounds memory behind the reader
JUDGE_S = 1.0  # flat and railed channels are looked for in windows of this length
STUCK = 0.2  # share of a window at the recording's extreme value from which on the channel is railed
FLOAT16_MAX = 65504.0


class Signal(Config):
    """What is kept of a recording, and how it is preprocessed.

    The order is that of a live session (`engine.adapt.fit`): montage, rate, then ``dsp``, run causally from
    the recording's first sample and anew after every hole.

    Attributes
    ----------
    stype : "EEG" or "EMG"
        Only channels of this type are kept.
    ch_names : tuple of str, optional
        These, in this order, as the ``montage`` step picks them; all channels by default.
    min_present : int, optional
        How many of ``ch_names`` must be there, the others being interpolated; all by default.
    sfreq : float
        Hz; recordings at other rates are resampled.
    dsp : tuple of steps
        The DSP list of the bundles to come.
    segment_s : float
        Length of a segment, seconds.
    flat_uv : float
        A channel whose standard deviation over a second is less, µV, is flat.
    max_bad : float
        A segment is left out where more than this share of channels is flat, or railed (stuck at the
        recording's extreme value), at any time.
    reject_uv : float, optional
        A segment is left out where a channel's peak-to-peak is more, behind ``dsp``, in its unit.
    """

    stype: Literal["EEG", "EMG"]
    ch_names: tuple[str, ...] | None = Field(default=None, min_length=1)
    min_present: PositiveInt | None = None
    sfreq: PositiveFloat
    dsp: tuple[Step, ...] = ()
    segment_s: PositiveFloat = 20.0
    flat_uv: float = Field(default=0.5, ge=0)
    max_bad: float = Field(default=0.0, ge=0, lt=1)
    reject_uv: PositiveFloat | None = None

    @property
    def n_times(self) -> int:
        """Samples of a segment."""
        return round(self.segment_s * self.sfreq)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of preprocessed signal.

    Attributes
    ----------
    x : ndarray, shape (n_chans, n_times), float16
        In the unit of the chain's output.
    start : int
        First sample, on the grid of the output rate.
    """

    x: NDArray[np.float16]
    start: int


def chosen(recording: Recording, stype: str) -> Recording:
    """Return the recording's channels of this type, EEG under their 10-05 names, each name once.

    Raises
    ------
    RecordingError
        No such channel, or its unit is unknown.
    """
    info = recording.info
    names = [clean_name(name) if stype == "EEG" else name for name in info.ch_names]
    kept = [i for i, kind in enumerate(info.ch_types) if kind == stype.lower() and names.index(names[i]) == i]
    if not kept:
        raise RecordingError(
            f"{info.name} has no {stype} channel, only {', '.join(sorted(set(info.ch_types)))}"
        )
    if info.unit != "uV":
        raise RecordingError(f"{info.name} tells no unit: say how many microvolts a step is, `uv_per_count:`")
    picked = replace(
        info,
        stype=stype,
        ch_names=tuple(names[i] for i in kept),
        ch_types=tuple(info.ch_types[i] for i in kept),
    )
    return replace(recording, data=recording.data.take(kept, axis=1), info=picked)


class Cut:
    """Cuts one recording into segments; iterate over it once.

    Parameters
    ----------
    recording : Recording
        As `chosen` returns it.
    signal : Signal

    Attributes
    ----------
    info : StreamInfo
        Of the segments.
    seconds : float
        Signal in the recording.
    notes : tuple of str
        What had to be adapted.
    rejected : dict of str to int
        Segments left out: ``flat``, ``railed``, ``repaired`` (samples missing or no numbers), ``amplitude``.
    short_s : float
        Signal that filled no segment, at the end and before holes.

    Raises
    ------
    StreamMismatch
        The recording lacks channels, or a step cannot work on it.
    """

    def __init__(self, recording: Recording, signal: Signal) -> None:
        info = recording.info
        picks: list[StepConfig] = []
        if signal.ch_names is not None:
            picks.append(
                Montage(ch_names=signal.ch_names, min_present=signal.min_present or len(signal.ch_names))
            )
        rate = [] if info.sfreq == signal.sfreq else [Resample(sfreq=signal.sfreq)]
        self._chain = Chain([*picks, *rate, *signal.dsp], info)
        used = getattr(self._chain.steps[0], "used", None) if picks else None
        self._judge = _Judge(recording, signal, used if used is not None else range(info.n_chans))
        self._recording, self._signal = recording, signal
        self.info = self._chain.info
        self.seconds = len(recording.times) / info.sfreq
        self.notes = tuple(_notes(info, signal, self._chain))
        self.rejected: dict[str, int] = {}
        self.short_s = 0.0

    def __iter__(self) -> Iterator[Segment]:
        n_times, pending = self._signal.n_times, _Pending(self.info)
        for chunk in cleaned(self._recording):
            if chunk.discontinuity:
                self._chain.reset()
                self.short_s += pending.clear() / self._signal.sfreq
            pending.add(self._chain(self._judge(chunk)))
            while len(pending) >= n_times:
                data, valid, start = pending.take(n_times)
                fault = self._fault(data, valid, start)
                if fault is None:
                    yield Segment(np.ascontiguousarray(data.T, dtype=np.float16), start)
                else:
                    self.rejected[fault] = self.rejected.get(fault, 0) + 1
        self.short_s += pending.clear() / self._signal.sfreq

    def _fault(self, data: NDArray[np.float32], valid: NDArray[np.bool_], start: int) -> str | None:
        if not valid.all():
            first = (start + int(np.argmin(valid))) / self._signal.sfreq
            return self._judge.why(first, (start + len(data)) / self._signal.sfreq)
        limit = self._signal.reject_uv
        fits = np.abs(data).max() <= FLOAT16_MAX and (limit is None or np.ptp(data, axis=0).max() <= limit)
        return None if fits else "amplitude"


class _Pending:
    """Rows that wait to become a segment."""

    def __init__(self, info: StreamInfo) -> None:
        self._data = np.empty((0, info.n_chans), dtype=np.float32)
        self._valid = np.empty(0, dtype=bool)
        self._at = 0

    def __len__(self) -> int:
        return len(self._valid)

    def clear(self) -> int:
        """Drop what is there; return how much it was."""
        n = len(self)
        self.take(n)
        return n

    def add(self, chunk: Chunk) -> None:
        if not len(self):
            self._at = chunk.index
        self._data = np.concatenate([self._data, chunk.data])
        self._valid = np.concatenate([self._valid, chunk.valid])

    def take(self, n: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
        data, valid, start = self._data[:n], self._valid[:n], self._at
        self._data, self._valid, self._at = self._data[n:], self._valid[n:], start + n
        return data, valid, start


class _Judge:
    """Marks the rows of flat and railed channels as not valid, and remembers why."""

    def __init__(self, recording: Recording, signal: Signal, columns: Sequence[int]) -> None:
        self._columns = list(columns)
        self._signal, self._sfreq = signal, recording.info.sfreq
        data = recording.data[:, self._columns]
        self._low, self._high = np.fmin.reduce(data), np.fmax.reduce(data)  # NaN: only where all are
        self._spans: list[tuple[float, float, str]] = []

    def __call__(self, chunk: Chunk) -> Chunk:
        size = round(JUDGE_S * self._sfreq)
        valid = chunk.valid.copy()
        for start in range(0, max(len(chunk) - size // 2, 1), size):
            stop = start + size if len(chunk) - start - size >= size // 2 else len(chunk)
            fault = self._fault(chunk.data[start:stop, self._columns])
            if fault:
                valid[start:stop] = False
                bounds = (chunk.index + np.array([start, stop])) / self._sfreq
                self._spans.append((float(bounds[0]), float(bounds[1]), fault))
        return replace(chunk, valid=valid)

    def _fault(self, x: NDArray[np.float32]) -> str | None:
        if len(x) < 2:
            return None
        at_limit = np.maximum((x == self._low).mean(axis=0), (x == self._high).mean(axis=0))
        railed = (at_limit > STUCK) & (self._high > self._low)
        flat = x.std(axis=0) < self._signal.flat_uv
        if (flat | railed).mean() <= self._signal.max_bad:
            return None
        return "railed" if railed.mean() > self._signal.max_bad else "flat"

    def why(self, start_s: float, stop_s: float) -> str:
        """Return why rows between these times are not valid."""
        spans = [fault for begin, end, fault in self._spans if begin < stop_s and end > start_s]
        return spans[0] if spans else "repaired"


def cleaned(recording: Recording) -> Iterator[Chunk]:
    """Yield the recording as live delivers it, mended and with its holes flagged, only in longer chunks."""
    feed = max(1, round(FEED_S * recording.info.sfreq))
    with RecordingSource(recording, chunk=feed) as source:
        # its stamps are counted from its index: a third of the time to learn nothing
        cleaner = Cleaner(source, Clock(recording.info.sfreq, stamped=False), None)
        while True:
            try:
                yield from cleaner.read(0.0)
            except EndOfStream:
                break
        yield from cleaner.rest()


def _notes(info: StreamInfo, signal: Signal, chain: Chain) -> Iterator[str]:
    if info.sfreq < signal.sfreq:
        yield f"upsampled from {info.sfreq:g} to {signal.sfreq:g} Hz: empty above {info.sfreq / 2:g} Hz"
    elif info.sfreq > signal.sfreq:
        yield f"resampled from {info.sfreq:g} to {signal.sfreq:g} Hz"
    missing = getattr(chain.steps[0], "interpolated", ()) if chain.steps else ()
    if missing:
        yield f"{len(missing)} channels interpolated: {', '.join(missing)}"
