"""A mirrored ring between the thread that acquires and the thread that computes."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from streamer.types import Chunk, Samples, StreamInfo


@dataclass(slots=True)
class _Run:
    """Rows that follow each other: where they begin in the ring's own count, and their index there."""

    position: int
    index: int
    discontinuity: bool


class Ring:
    """The newest ``capacity`` rows of a stream, for one writer and one reader.

    Each row is written twice, ``capacity`` rows apart, so that any window of the newest rows is one
    contiguous view: 1.2 us where shifting a 10-s buffer costs 92 us.

    A reader that falls behind by more than the capacity loses the oldest rows; they are counted in
    ``dropped`` and the next chunk read is a discontinuity.

    Parameters
    ----------
    info : StreamInfo
        The stream.
    capacity : int
        Rows.
    """

    def __init__(self, info: StreamInfo, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a ring needs room for at least one row, got {capacity}")
        self.info = info
        self.capacity = capacity
        self.dropped = 0
        self._data = np.zeros((2 * capacity, info.n_chans), dtype=np.float32)
        self._times = np.zeros(2 * capacity)
        self._valid = np.zeros(2 * capacity, dtype=bool)
        self._runs: deque[_Run] = deque()
        self._written = 0
        self._read = 0
        self._closed = False
        self._changed = threading.Condition()

    def write(self, chunk: Chunk) -> None:
        """Append a chunk (copied); never waits: the oldest rows give way."""
        if not len(chunk):
            return
        with self._changed:
            self._open_run(chunk)
            if len(chunk) > self.capacity:
                self._written += len(chunk) - self.capacity
            self._put(chunk)
            excess = self._written - self._read - self.capacity
            if excess > 0:
                self._skip(excess)
            self._changed.notify_all()

    def read_new(self, timeout_s: float = 0.0) -> Chunk | None:
        """Return all rows not read yet, up to the next discontinuity (copied).

        None when there are none within ``timeout_s``, or none and the ring is closed.
        """
        with self._changed:
            if timeout_s > 0 and self._read == self._written:
                self._changed.wait_for(lambda: self._read != self._written or self._closed, timeout_s)
            if self._read == self._written:
                return None
            run = self._runs[0]
            end = self._runs[1].position if len(self._runs) > 1 else self._written
            chunk = self._copy(run, end)
            self._read = end
            if len(self._runs) > 1:
                self._runs.popleft()
            else:
                run.position, run.index, run.discontinuity = end, run.index + len(chunk), False
            self._changed.notify_all()
            return chunk

    def latest(self, n: int) -> Samples:
        """Return the newest ``n`` rows, read or not.

        Returns
        -------
        ndarray, shape (n, n_chans), float32
            A view, true until ``capacity - n`` more rows are written; shorter while fewer were.
        """
        if not 0 <= n <= self.capacity:
            raise ValueError(f"the ring holds {self.capacity} rows, asked for {n}")
        with self._changed:
            end = self._written % self.capacity + self.capacity
            return self._data[end - min(n, self._written) : end]

    def skip(self, keep: int = 0) -> int:
        """Drop all unread rows but the newest ``keep``; return how many, counted in ``dropped``."""
        with self._changed:
            excess = max(0, self._written - self._read - keep)
            if excess:
                self._skip(excess)
            return excess

    @property
    def unread(self) -> int:
        """Rows written and not read yet."""
        return self._written - self._read

    def wait_space(self, n: int, timeout_s: float) -> bool:
        """Block until ``n`` rows fit without loss, the ring is closed or time is up; return whether."""
        with self._changed:
            self._changed.wait_for(lambda: self.unread + n <= self.capacity or self._closed, timeout_s)
            return self.unread + n <= self.capacity

    def close(self) -> None:
        """Wake whoever waits; what is unread can still be read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _open_run(self, chunk: Chunk) -> None:
        if self._runs and not chunk.discontinuity:
            run = self._runs[-1]
            if chunk.index == run.index + self._written - run.position:
                return
        if self._runs and self._runs[-1].position == self._written:
            self._runs.pop()
        first = self._written == 0
        self._runs.append(_Run(self._written, chunk.index, chunk.discontinuity or not first))

    def _put(self, chunk: Chunk) -> None:
        rows = min(len(chunk), self.capacity)
        start = self._written % self.capacity
        head = min(rows, self.capacity - start)
        for target, source in (
            (self._data, chunk.data),
            (self._times, chunk.times),
            (self._valid, chunk.valid),
        ):
            source = source[len(source) - rows :]
            target[start : start + head] = source[:head]
            target[start + self.capacity : start + self.capacity + head] = source[:head]
            if head < rows:
                target[: rows - head] = source[head:]
                target[self.capacity : self.capacity + rows - head] = source[head:]
        self._written += rows

    def _skip(self, rows: int) -> None:
        """Let ``rows`` unread rows go and make what follows a discontinuity."""
        self.dropped += rows
        self._read += rows
        while len(self._runs) > 1 and self._runs[1].position <= self._read:
            self._runs.popleft()
        run = self._runs[0]
        run.index += self._read - run.position
        run.position, run.discontinuity = self._read, True

    def _copy(self, run: _Run, end: int) -> Chunk:
        start = self._read % self.capacity
        window = slice(start, start + end - self._read)
        return Chunk(
            self._data[window].copy(),
            run.index,
            self._times[window].copy(),
            self._valid[window].copy(),
            run.discontinuity,
        )
