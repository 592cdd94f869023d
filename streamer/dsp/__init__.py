"""DSP steps: one module per kind, each a causal, stateful map from chunks to chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from streamer.components import Config
from streamer.types import Chunk, StreamInfo


class Step(Protocol):
    """One step of the signal chain.

    ``info`` describes its output and ``delay`` is the group delay it adds, in samples of its output.
    Whatever the chunking, the concatenated output is the same bit for bit.  The input chunk is not
    written to.  A step does not act on ``chunk.discontinuity``: whoever owns the chain calls ``reset``
    first, and the step only passes the flag on.
    """

    info: StreamInfo
    delay: int

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the output that this input makes possible; may be empty."""

    def reset(self) -> None:
        """Forget everything: the next chunk is treated as the first one."""


class StepConfig(Config, ABC):
    """Base of the blocks under ``dsp:``."""

    kind: str

    @property
    def outputs_per_channel(self) -> int:
        """Channels that leave for each that enters, where that follows from the settings alone."""
        return 1

    @abstractmethod
    def build(self, info: StreamInfo) -> Step:
        """Return the step for a stream described by ``info``; `StreamMismatch` when it cannot work on it."""
