"""Streams for tests: described, cut into chunks, played by a script."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.errors import EndOfStream
from streamer.types import Chunk, Marker, StreamInfo

START = 1e5  # s: a local clock some hours after the machine was started


def info(n_chans: int = 3, sfreq: float = 250.0, name: str = "amplifier") -> StreamInfo:
    """Describe a stream of EEG channels."""
    names = tuple(f"E{i}" for i in range(n_chans))
    return StreamInfo(name, f"{name}-1", "EEG", sfreq, names, ("eeg",) * n_chans, "uV")


def record(n_times: int, n_chans: int = 3, sfreq: float = 250.0, *, index: int = 0) -> Chunk:
    """Return rows whose first channel counts them, stamped on an exact grid."""
    data = np.random.default_rng(n_times).normal(0, 20, (n_times, n_chans)).astype(np.float32)
    data[:, 0] = np.arange(index, index + n_times)
    times = START + (index + np.arange(n_times)) / sfreq
    return Chunk(data, index, times, np.ones(n_times, dtype=bool))


def stamped(stamps: NDArray[np.float64]) -> Chunk:
    """Return rows that count themselves, with these stamps."""
    n_times = len(stamps)
    return Chunk(
        np.arange(n_times, dtype=np.float32)[:, None], 0, np.asarray(stamps), np.ones(n_times, dtype=bool)
    )


def part(chunk: Chunk, start: int, end: int) -> Chunk:
    """Return some rows of a chunk."""
    flag = chunk.discontinuity and start == 0
    rows = slice(start, end)
    return Chunk(chunk.data[rows], chunk.index + start, chunk.times[rows], chunk.valid[rows], flag)


def cut(chunk: Chunk, at: Sequence[int]) -> list[Chunk]:
    """Return the chunk in pieces; equal neighbours in ``at`` make empty ones."""
    edges = [0, *sorted(min(i, len(chunk)) for i in at), len(chunk)]
    return [part(chunk, start, end) for start, end in pairwise(edges)]


def every(chunk: Chunk, rows: int) -> list[Chunk]:
    """Return the chunk in pieces of so many rows."""
    return cut(chunk, range(rows, len(chunk), rows))


def cuts(n_times: int) -> st.SearchStrategy[list[int]]:
    """Draw where to cut so many rows."""
    return st.lists(st.integers(0, n_times), max_size=40)


def indices(chunks: Sequence[Chunk]) -> NDArray[np.int64]:
    """Return the index of every row."""
    return np.concatenate([np.arange(c.index, c.index + len(c)) for c in chunks] or [np.zeros(0, np.int64)])


class ScriptedSource:
    """Plays chunks, pauses (None) and errors, one a read; then its stream ends."""

    def __init__(
        self,
        script: Sequence[Chunk | Exception | None],
        *,
        live: bool = True,
        described: StreamInfo | None = None,
    ) -> None:
        self.info = described or info()
        self.live = live
        self.n_times: int | None = None
        self.closed = 0
        self.reads = 0
        self._script = list(script)

    def read(self, timeout_s: float) -> Chunk | None:
        if self.reads == len(self._script):
            raise EndOfStream("the script is over")
        step = self._script[self.reads]
        self.reads += 1
        if isinstance(step, Exception):
            raise step
        return step

    def markers(self) -> Sequence[Marker]:
        return (Marker(START, "go"),)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
