"""A recorded file as a source: the same chunks as live, at any speed."""

from __future__ import annotations

import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat

from streamer.errors import EndOfStream, RecordingError
from streamer.montage import clean_name, located
from streamer.sources import SourceConfig
from streamer.sources._content import Recording
from streamer.sources._formats import READERS, load, of_brainflow, of_signal, streams
from streamer.sources._holes import Holes, repeated
from streamer.sources._streams import StreamEntry
from streamer.types import Chunk, Marker, StreamInfo, make_chunk
from streamer.units import Unit, told_unit

__all__ = [
    "READERS",
    "Config",
    "Holes",
    "Recording",
    "RecordingSource",
    "StreamEntry",
    "load",
    "of_brainflow",
    "of_signal",
    "repeated",
    "streams",
]

log = logging.getLogger(__name__)

_CHUNK_S = 0.04  # as LSL devices send: 10 samples at 250 Hz
Speed = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["max"]


class Config(SourceConfig):
    """Play a recorded file.

    Attributes
    ----------
    path : Path
        The file; see `load` for the formats.
    stream : str, optional
        Name, type or number of the stream in a file of several.
    chunk : int, optional
        Samples per chunk; about 40 ms by default.
    speed : float or "max"
        1 is real time, 2 twice as fast; "max" does not wait.
    labels : dict of str to str
        New names for markers, such as ``{"T1": "left_fist"}``.
    board_id : int, optional
        BrainFlow's board number, for a file of BrainFlow rows.
    channels : tuple of str, optional
        Names of all channels, in order, for a file that only numbers them.
    unit : "uV", "mV", "V" or float, optional
        For a file that does not tell it; one that does is believed.  A number is the microvolts of one count.
    holes : "split" or "repeat"
        A file that keeps the first seconds of every epoch is one stretch after the other, or one signal in
        which each fills its epoch by being repeated, for a net that looks at the first seconds only.
    """

    kind: Literal["recording"] = "recording"
    path: Path
    stream: str | None = None
    chunk: Annotated[int, Field(gt=0)] | None = None
    speed: Speed = "max"
    labels: dict[str, str] = Field(default_factory=dict)
    board_id: int | None = None
    channels: tuple[str, ...] | None = None
    unit: Unit | PositiveFloat | None = None
    holes: Holes = "split"

    def open(self) -> RecordingSource:
        """Read the file and return it as a source, at its first sample."""
        recording = load(self.path, self.stream, board_id=self.board_id)
        recording = repeated(recording) if self.holes == "repeat" else recording
        recording = told(recording, self.channels, self.unit)
        return RecordingSource(recording, chunk=self.chunk, speed=self.speed, labels=self.labels)


class RecordingSource:
    """Plays a `Recording`.

    At speed ``"max"`` nothing waits and the first sample's time is 0, so that two runs are equal bit for
    bit.  At any other speed the first sample's time is that of opening on the LSL clock, stamps go on by the
    sample grid, and a chunk comes when its last sample would have been there, pauses included.

    Parameters
    ----------
    recording : Recording
        What to play.
    chunk : int, optional
        Samples per chunk; about 40 ms by default.  Shorter before a break and at the end.
    speed : float or "max"
        How much faster than real time.
    labels : mapping of str to str, optional
        New names for markers.
    clock, wait : callable, optional
        Seconds on the local LSL clock; a wait of so many seconds.  Unused at speed ``"max"``.

    Attributes
    ----------
    seconds : float
        From the first sample to the end of the last, holes included, s.
    """

    live = False

    def __init__(
        self,
        recording: Recording,
        *,
        chunk: int | None = None,
        speed: float | Literal["max"] = "max",
        labels: Mapping[str, str] | None = None,
        clock: Callable[[], float] | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.info = recording.info
        self.n_times: int | None = len(recording.times)
        self.seconds = float(np.ptp(recording.times)) + 1 / self.info.sfreq if self.n_times else 0.0
        self._speed = None if speed == "max" else float(speed)
        self._clock = clock or (_lsl_clock() if self._speed else _no_clock)
        self._wait = wait
        self._opened = self._clock() if self._speed else 0.0
        self._data = recording.data.view()
        self._data.flags.writeable = False
        self._times = recording.times + self._opened
        self._index = recording.index
        self._stops = [*recording.breaks, len(recording.times)]
        self._chunk = chunk or max(1, round(_CHUNK_S * self.info.sfreq))
        self._row = 0
        names = labels or {}
        self._markers = tuple(
            replace(marker, time=marker.time + self._opened, label=names.get(marker.label, marker.label))
            for marker in recording.markers
        )

    def read(self, timeout_s: float) -> Chunk | None:
        """Return the next rows, never across a break; the index jumps there by what is missing."""
        start = self._row
        if start >= len(self._times):
            raise EndOfStream(f"recording {self.info.name!r} was played to its end")
        stop = min(start + self._chunk, self._stops[bisect_right(self._stops, start)])
        if not self._is_due(stop, timeout_s):
            return None
        self._row = stop
        return make_chunk(self._data[start:stop], int(self._index[start]), self._times[start:stop])

    def markers(self) -> Sequence[Marker]:
        """Return all markers of the file, on the axis of the chunks' times."""
        return self._markers

    def close(self) -> None:
        """Stop; reading goes on with `EndOfStream`."""
        self._row = len(self._times)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _is_due(self, stop: int, timeout_s: float) -> bool:
        """Wait for the row before ``stop``, at most ``timeout_s``; say whether it is there."""
        if self._speed is None:
            return True
        played = float(self._times[stop - 1]) - self._opened + 1 / self.info.sfreq
        left = self._opened + played / self._speed - self._clock()
        if left > 0:
            self._wait(min(left, max(timeout_s, 0.0)))
        return left <= timeout_s


def told(recording: Recording, channels: Sequence[str] | None, unit: str | float | None) -> Recording:
    """Return the recording with what its file leaves open.

    Raises
    ------
    RecordingError
        There are more or fewer names than channels.
    """
    info = recording.info
    if channels is not None:
        if len(channels) != info.n_chans:
            raise RecordingError(
                f"{len(channels)} names under 'channels' ({', '.join(channels)}), but recording "
                f"{info.name!r} has {info.n_chans} channels ({', '.join(info.ch_names)}). "
                "Name each one, in order, or none."
            )
        if recording.meta.get("format") != "BrainFlow":  # whose names are the board's, wherever they sit
            _tell_renamed(info, channels)
        info = replace(info, ch_names=tuple(channels))
    if unit is not None and info.unit == "unknown":
        info = replace(info, unit=told_unit(unit))
    elif unit is not None:
        log.warning(
            "unit %r is not needed: recording %r tells its own and comes in %s", unit, info.name, info.unit
        )
    return replace(recording, info=info)


def _tell_renamed(info: StreamInfo, channels: Sequence[str]) -> None:
    """Say which electrodes that a file names itself get another name."""
    pairs = zip(info.ch_names, channels, strict=True)
    moved = [(own, new) for own, new in pairs if located(own) and clean_name(own) != clean_name(new)]
    if moved:
        (own, new), *others = moved
        listed = ", ".join([f"{own} is taken for {new}", *(f"{one} for {other}" for one, other in others)])
        log.warning("'channels' goes before the names that recording %r tells: %s", info.name, listed)


def _lsl_clock() -> Callable[[], float]:
    """Return LSL's clock, loaded only where a recording is played in time."""
    import pylsl

    clock: Callable[[], float] = pylsl.local_clock
    return clock


def _no_clock() -> float:
    """Stand in for the clock where nothing is timed."""
    return 0.0
