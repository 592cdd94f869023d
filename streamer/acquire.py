"""A source made clean and handed over: in the caller's thread, or through a ring by a thread of its own.

What a device sends is kept by liblsl or BrainFlow, in threads and buffers of their own, until it is read: a
third thread in between loses nothing less and costs the hand-over.  What is given up: a stream that comes
back is attached to where samples are computed, which may take a few times `streamer.lsl.ATTACH_S` if it does
not answer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, Self

from streamer.clean import Cleaner, StreamCounters
from streamer.clock import Clock
from streamer.errors import EndOfStream
from streamer.repair import Repair
from streamer.ring import Ring
from streamer.sources import Source
from streamer.types import Chunk, Marker, StreamInfo

__all__ = ["DirectFeed", "Feed", "Late", "StreamCounters", "ThreadedFeed", "feed"]

Late = Literal["skip", "catch_up"]

# How long one read may keep the acquisition thread from noticing that it is to stop.
POLL_S = 0.2
# Half a second is where a user feels the lag.
MAX_BACKLOG_S = 0.5


class Feed(Protocol):
    """A stream as the engine reads it: contiguous or flagged, finite, on its own time axis."""

    info: StreamInfo

    @property
    def counters(self) -> StreamCounters:
        """What happened so far."""

    def read(self, timeout_s: float) -> Chunk | None:
        """Return the next chunk, or None after ``timeout_s``; raises what the source raised."""

    def markers(self) -> Sequence[Marker]:
        """Return the source's events so far."""

    def close(self) -> None:
        """Stop and close the source; may be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def feed(
    source: Source,
    clock: Clock | None = None,
    repair: Repair | None = None,
    *,
    buffer_s: float = 5.0,
    late: Late = "catch_up",
    max_backlog_s: float = MAX_BACKLOG_S,
) -> Feed:
    """Return the feed that suits: direct, but for a device of which a backlog is to be skipped."""
    if source.live and late == "skip":
        return ThreadedFeed(source, clock, repair, buffer_s=buffer_s, late=late, max_backlog_s=max_backlog_s)
    return DirectFeed(source, clock, repair)


class DirectFeed:
    """Reads in the caller's thread; of a file the same chunks in the same order each time.

    Parameters
    ----------
    source : Source
        Closed with the feed.
    clock, repair : Clock, Repair, optional
        Default: fresh ones for the source.
    """

    def __init__(self, source: Source, clock: Clock | None = None, repair: Repair | None = None) -> None:
        self.info = source.info
        self._source = source
        self._clean = Cleaner(source, clock, repair)
        self._ready: deque[Chunk] = deque()
        self._end: EndOfStream | None = None

    @property
    def counters(self) -> StreamCounters:
        """What happened so far."""
        return self._clean.counters()

    def read(self, timeout_s: float) -> Chunk | None:
        """Return the next chunk, or None after ``timeout_s``."""
        if not self._ready and self._end is None:
            try:
                self._ready.extend(self._clean.read(timeout_s))
            except EndOfStream as end:
                self._end = end
                self._ready.extend(self._clean.rest())
        if self._ready:
            return self._ready.popleft()
        if self._end is not None:
            raise self._end
        return None

    def markers(self) -> Sequence[Marker]:
        """Return the source's events so far."""
        return self._source.markers()

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class ThreadedFeed:
    """Reads in a thread of its own, which never computes; hands over through a ring, which can be skipped.

    The reader wakes through a condition, within a scheduler tick of the sample's arrival.  A process with
    another busy Python thread should lower ``sys.setswitchinterval`` to 5e-4: at the default, each wake-up
    may wait 5 ms for the interpreter lock.  That is for the process's owner to decide, not for the feed.

    A source that is not live is never dropped from: the thread waits for room instead.

    Parameters
    ----------
    source : Source
        Closed with the feed; from here on read by the thread only.
    clock, repair : Clock, Repair, optional
        Default: fresh ones for the source.
    buffer_s : float
        What may wait unread, s; more is dropped, oldest first, and counted.
    late : {"catch_up", "skip"}
        What to do with a backlog: read all of it, or, when more than ``max_backlog_s`` waits, go to the
        newest sample, counted and flagged as a discontinuity.
    max_backlog_s : float
        For "skip".
    arrived : callable, optional
        Called in the thread whenever there is something to read, the end too: for a reader of several feeds.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock | None = None,
        repair: Repair | None = None,
        *,
        buffer_s: float = 5.0,
        late: Late = "catch_up",
        max_backlog_s: float = MAX_BACKLOG_S,
        arrived: Callable[[], object] = lambda: None,
    ) -> None:
        self.info = source.info
        self._source, self._arrived = source, arrived
        self._clean = Cleaner(source, clock, repair)
        self._ring = Ring(source.info, max(1, round(buffer_s * source.info.sfreq)))
        self._backlog = round(max_backlog_s * source.info.sfreq) if late == "skip" else None
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"acquire-{source.info.name}", daemon=True)
        self._thread.start()

    @property
    def counters(self) -> StreamCounters:
        """What happened so far."""
        return self._clean.counters(self._ring.dropped)

    @property
    def ring(self) -> Ring:
        """The ring, for a display that wants the newest window beside the engine's reading."""
        return self._ring

    def read(self, timeout_s: float) -> Chunk | None:
        """Return all that has arrived up to the next discontinuity, or None after ``timeout_s``."""
        if self._backlog is not None and self._ring.unread > self._backlog:
            self._ring.skip(keep=1)
        chunk = self._ring.read_new(timeout_s)
        if chunk is None and self._error is not None and not self._ring.unread:
            raise self._error
        return chunk

    def markers(self) -> Sequence[Marker]:
        """Return the source's events so far."""
        return self._source.markers()

    def close(self) -> None:
        """Stop the thread and close the source; may be called twice."""
        self._stop.set()
        self._ring.close()
        self._thread.join()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._hand_over(self._clean.read(POLL_S))
        except EndOfStream as end:
            self._hand_over(self._clean.rest())
            self._error = end
        except BaseException as error:  # not swallowed: whoever reads gets it
            self._error = error
        finally:
            self._ring.close()
            self._arrived()

    def _hand_over(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            if self._source.live:
                self._ring.write(chunk)
            else:
                self._write_all(chunk)
            self._arrived()

    def _write_all(self, chunk: Chunk) -> None:
        """Write in parts that fit, each when there is room; gives up only when the feed is closed."""
        part = max(1, self._ring.capacity // 2)
        for start in range(0, len(chunk), part):
            rows = slice(start, start + part)
            piece = Chunk(
                chunk.data[rows],
                chunk.index + start,
                chunk.times[rows],
                chunk.valid[rows],
                chunk.discontinuity and start == 0,
            )
            while not self._ring.wait_space(len(piece), POLL_S):
                if self._stop.is_set():
                    return
            self._ring.write(piece)
