"""Where decisions go: one module per kind of sink."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, Self

from streamer.components import Config
from streamer.types import Decision, DecisionInfo


class Sink(Protocol):
    """A receiver of decisions; a context manager.

    ``lost`` counts the decisions that it could not keep, 0 where a display may leave some out.
    """

    lost: int

    def write(self, decision: Decision) -> None:
        """Send one decision on; must not block the hot path."""

    def close(self) -> None:
        """Flush and let go; may be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class SinkConfig(Config, ABC):
    """Base of the blocks under ``sinks:``."""

    kind: str

    @abstractmethod
    def open(self, info: DecisionInfo) -> Sink:
        """Return the sink, ready to write."""

    def of_stream(self, name: str) -> Self:
        """Return the settings for one of several streams, each with a sink of its own.

        Raises
        ------
        ConfigError
            This kind of sink is for one stream.
        """
        return self
