"""A step graph over a stream: what decisions, codes and decoded waveforms have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.backends import Arrays, Backend
from engine.bundle import Bundle
from engine.config import AcceptConfig
from engine.framer import Frame, Framer
from streamer.chain import Chain
from streamer.dsp.montage import Montage
from streamer.dsp.quality import Quality
from streamer.repair import Repair
from streamer.types import Chunk, StreamInfo

T = TypeVar("T")


class Seat(Protocol):
    """What a stream needs of a runner: a hop to write into, a step, a reset."""

    @property
    def input(self) -> NDArray[np.float32]:
        """The hop, (1, C, hop)."""

    def step(self) -> Arrays:
        """Run one hop over `input`; the outputs are views that the next step overwrites."""

    def reset(self) -> None:
        """Set the state to zero."""


class Stepping(ABC, Generic[T]):
    """DSP chain, framer and model over one stream; what becomes of the outputs is the subclass's.

    Parameters
    ----------
    bundle : Bundle
        Of the size that is fed: see `Bundle.sized`.
    backend : Backend
        The bundle's graph, compiled.
    info : StreamInfo
        The stream that will be fed.
    chain : Chain
        From that stream to the model's input.
    notes : sequence of str
        How the stream was adapted to the bundle.
    seat : Seat, optional
        The row of a runner that it shares with other streams; by default it has a runner of its own.

    Attributes
    ----------
    hop_s : float
        Seconds from one step to the next.
    resets : int
        Discontinuities answered so far.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        info: StreamInfo,
        chain: Chain,
        notes: Sequence[str] = (),
        seat: Seat | None = None,
    ) -> None:
        graph = bundle.manifest.graph
        self.bundle, self.info = bundle, info
        self.chain, self.notes = chain, tuple(notes)
        self.hop_s = graph.hop / bundle.manifest.input.sfreq
        self._runner = seat or _warm(backend)
        self._framer = Framer(self._runner.input, graph.left_context)
        self.resets = 0

    @abstractmethod
    def process(self, chunk: Chunk) -> Iterator[T]:
        """Yield what this chunk completes: nothing, one result or several."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what a reader of the results may want to know."""

    def steps(self, chunk: Chunk) -> Iterator[tuple[Frame, Arrays]]:
        """Yield each frame that this chunk completes, with the outputs; the next step overwrites those."""
        for frame in self.frames(chunk):
            yield frame, self._runner.step()

    def frames(self, chunk: Chunk) -> Iterator[Frame]:
        """Yield each frame that this chunk completes; the runner's input holds it until the next one.

        A discontinuity resets everything first, and is counted.
        """
        if chunk.discontinuity:
            self.reset()
            self.resets += 1
        yield from self._framer.frames(self.chain(chunk))

    def reset(self) -> None:
        """Forget the signal: what follows is treated as after a fresh start."""
        self.chain.reset()
        self._framer.reset()
        self._runner.reset()

    @property
    def columns(self) -> Sequence[int]:
        """Columns of the stream that the model depends on."""
        used = next((step.used for step in self.chain.steps if isinstance(step, Montage)), None)
        return range(self.info.n_chans) if used is None else used

    @property
    def bad_channels(self) -> dict[str, str]:
        """Channels of the stream that are bad now, and why; empty without quality checks."""
        return next((step.bad for step in self.chain.steps if isinstance(step, Quality)), {})

    @property
    def bad_s(self) -> dict[str, dict[str, float]]:
        """Seconds for which each channel has been bad so far, by reason; empty without quality checks."""
        return next((step.bad_s for step in self.chain.steps if isinstance(step, Quality)), {})

    def delays(self) -> dict[str, float]:
        """Return the algorithmic delay's parts, ms: what no machine, however fast, can take away."""
        manifest = self.bundle.manifest
        sfreq = manifest.input.sfreq
        return {
            "filters_ms": round(1e3 * self.chain.delay_s, 2),
            "hop_ms": round(1e3 * self.hop_s, 2),
            "model_ms": round(1e3 * manifest.graph.delay / sfreq, 2),
            "left_context_ms": round(1e3 * manifest.graph.left_context / sfreq, 2),
        }


def _warm(backend: Backend) -> Seat:
    runner = backend.runner()
    runner.warm_up()
    return runner


def repair_for(config: AcceptConfig, pipeline: Stepping[T]) -> Repair:
    """Return the repair for what the bundle uses: other electrodes may be as dead as they like."""
    max_bad = config.quality.max_bad if config.quality else 0.0
    return Repair(pipeline.info, config.max_gap_s, columns=pipeline.columns, max_bad=max_bad)
