"""Where samples come from: one module per kind of source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, Self

from streamer.components import Config
from streamer.types import Chunk, Marker, StreamInfo


class Source(Protocol):
    """A stream of samples; a context manager.

    ``read`` returns what has arrived, in arrival order, or None when nothing came within ``timeout_s``.
    It raises `StreamLost` when the stream is gone for good and `EndOfStream` when it ended as it should.
    ``index`` of the chunks counts samples from the first one read; where the device numbers its samples,
    missing numbers are missing indices, otherwise `streamer.clock` finds the holes from the stamps.
    ``live`` says whether samples are lost when nobody reads (a device) or wait (a file).  ``n_times`` is how
    many samples there will be in all, None where nobody knows.
    """

    info: StreamInfo
    live: bool
    n_times: int | None

    def read(self, timeout_s: float) -> Chunk | None:
        """Return the next chunk, or None after ``timeout_s`` seconds without one."""

    def markers(self) -> Sequence[Marker]:
        """Return the events known so far, in time order; empty where the source has none."""

    def close(self) -> None:
        """Let go of the device or file; may be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class SourceConfig(Config, ABC):
    """Base of the ``source:`` blocks."""

    kind: str

    @abstractmethod
    def open(self) -> Source:
        """Connect and return the source; `StreamNotFound` or `RecordingError` when that fails."""

    def look(self) -> StreamInfo:
        """Return what the stream says of itself, without reading from it."""
        with self.open() as source:
            return source.info
