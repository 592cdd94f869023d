"""Play any source as a live LSL stream, with its markers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from streamer.errors import EndOfStream
from streamer.lsl import load
from streamer.lsl_info import Replay, marker_info, tell_replay, to_lsl
from streamer.sources import Source
from streamer.types import Chunk

# A push costs 10 us; 50 a second are what an amplifier does.
CHUNK_S = 0.02
# At "max": one push per second of signal.
MAX_CHUNK_S = 1.0
POLL_S = 0.2


class Player:
    """Publishes a source as an LSL outlet, and its events as the string stream ``<name>-markers``.

    Stamps are the source's own, moved so that the first sample is stamped now: its grid stays its grid, a
    hole stays a hole, and a marker stays on its sample.  At ``speed`` 1 they are also the time at which each
    sample is sent.  At any other speed the stream is the same, stamps included, and only comes faster: a
    reader's clock finds nothing amiss and its decisions are those of speed 1, but stamps run ahead of the
    wall clock, so a latency taken from them means nothing.

    LSL has no back-pressure: a reader's buffer that is full loses its oldest samples.  So the description
    says how many samples will come and how fast (``<replay>``); `streamer.sources.lsl` makes its buffer as
    large, and ends with the last of them.  For other readers keep the speed within what they can take.

    A source that is live itself is passed on as it comes.

    Parameters
    ----------
    source : Source
        Read, not closed.
    name : str, optional
        Of the stream, and its ``source_id``.  Default: the source's.
    speed : float or "max"
        Times real time.
    stype : str, optional
        LSL content type.  Default: the source's.
    wait_s : float
        How long to wait for a reader before the first sample; then it is played anyway.
    linger_s : float
        How long the streams stay after the last sample, for it to reach a reader's buffer.
    clock, wait : callable, optional
        For tests: the time, s (default: LSL's), and a pause of so many seconds.

    Attributes
    ----------
    samples_out, markers_out : int
        What was sent.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str | None = None,
        speed: float | Literal["max"] = 1.0,
        stype: str | None = None,
        wait_s: float = 60.0,
        linger_s: float = 2.0,
        clock: Callable[[], float] | None = None,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        if speed != "max" and not speed > 0:
            raise ValueError(f"speed must be positive or 'max', got {speed}")
        pylsl = load()
        self.name = name or source.info.name
        self.speed = float("inf") if speed == "max" else float(speed)
        self.samples_out = self.markers_out = 0
        self._source = source
        self._wait_s = wait_s
        self._linger_s = linger_s
        self._clock = clock or pylsl.local_clock
        self._wait = wait
        self._origin: tuple[float, float] | None = None
        info = replace(source.info, name=self.name, source_id=self.name, stype=stype or source.info.stype)
        samples = source.n_times
        described = to_lsl(info)
        if not source.live:
            tell_replay(described, Replay(self.speed, samples or 0))
        seconds = (samples or 0) / info.sfreq
        self._samples: Any = pylsl.StreamOutlet(described, max_buffered=max(360, round(seconds) + 1))
        self._markers: Any = pylsl.StreamOutlet(marker_info(f"{self.name}-markers"))

    def run(
        self, stop: threading.Event | None = None, on_progress: Callable[[float], object] | None = None
    ) -> None:
        """Play to the end, or until ``stop``; ``on_progress`` is told the seconds of signal sent."""
        stop = stop or threading.Event()
        pause = self._wait or stop.wait
        self._await_reader(stop)
        try:
            while not stop.is_set():
                chunk = self._source.read(POLL_S)
                if chunk is not None and len(chunk):
                    self._play(chunk, stop, pause, on_progress or (lambda seconds: None))
        except EndOfStream:
            self._send_markers(np.inf)
        if self._samples.have_consumers():
            pause(self._linger_s)

    def close(self) -> None:
        """Take the streams off the network; may be called twice."""
        self._samples = self._markers = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _await_reader(self, stop: threading.Event) -> None:
        end = self._clock() + self._wait_s
        while not stop.is_set() and self._clock() < end:
            if self._samples.wait_for_consumers(POLL_S):
                return

    def _play(
        self,
        chunk: Chunk,
        stop: threading.Event,
        pause: Callable[[float], object],
        on_progress: Callable[[float], object],
    ) -> None:
        """Send a chunk in small parts, each when its last sample is due."""
        seconds = MAX_CHUNK_S if np.isinf(self.speed) else CHUNK_S * self.speed
        rows = max(1, round(seconds * self._source.info.sfreq))
        if self._origin is None:
            first = float(chunk.times[0])
            self._origin = first, first if self._source.live else self._clock()
        first, start = self._origin
        for row in range(0, len(chunk), rows):
            passed = chunk.times[row : row + rows] - first
            delay = start + float(passed[-1]) / self.speed - self._clock()
            if delay > 0 and not self._source.live:
                pause(delay)
            if stop.is_set():
                return
            self._send(chunk.data[row : row + rows], passed)
            on_progress(float(passed[-1]))

    def _send(self, data: NDArray[np.float32], passed: NDArray[np.float64]) -> None:
        assert self._origin is not None
        self._send_markers(float(passed[-1]))
        self._samples.push_chunk(data, (self._origin[1] + passed).tolist())
        self.samples_out += len(data)

    def _send_markers(self, until: float) -> None:
        """Send the events up to so many seconds after the first sample."""
        first, start = self._origin or (0.0, self._clock())
        for marker in self._source.markers()[self.markers_out :]:
            if marker.time - first > until:
                return
            self._markers.push_sample([marker.label], start + marker.time - first)
            self.markers_out += 1
