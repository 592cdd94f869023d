"""From chunks to decisions, and the loop that drives it.

The same `Pipeline` serves a live session, a replay and the evaluation: what differs is who calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine.adapt import fit
from engine.backends import Backend
from engine.bundle import Bundle
from engine.decision import Decider, DecisionConfig
from engine.framer import Framer
from engine.runner import Runner
from engine.telemetry import Telemetry
from streamer.acquire import Feed
from streamer.dsp import StepConfig
from streamer.dsp.montage import Montage
from streamer.dsp.quality import Quality
from streamer.errors import EndOfStream, StreamLost
from streamer.sinks import Sink
from streamer.types import Chunk, Decision, StreamInfo

POLL_S = 0.25  # how often the loop looks at its stop flag while no sample comes


class Pipeline:
    """DSP chain, framer, model and decision stage over one stream.

    Parameters
    ----------
    bundle : Bundle
    backend : Backend
        The bundle's graph, compiled.
    info : StreamInfo
        The stream that will be fed.
    quality : StepConfig, optional
        Signal checks on the raw channels.
    decision : DecisionConfig, optional
        Instead of the bundle's own.

    Attributes
    ----------
    notes : tuple of str
        How the stream was adapted to the bundle.
    resets : int
        Discontinuities answered so far.

    Raises
    ------
    StreamMismatch
        The stream does not fit the bundle.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        info: StreamInfo,
        *,
        quality: StepConfig | None = None,
        decision: DecisionConfig | None = None,
    ) -> None:
        manifest = bundle.manifest
        graph, readout = manifest.graph, manifest.readout
        fitted = fit(bundle, info, quality)
        self.bundle, self.info = bundle, info
        self.chain, self.notes = fitted.chain, fitted.notes
        self.hop_s = graph.hop / manifest.input.sfreq
        self._runner = Runner(backend)
        self._runner.warm_up()
        self._framer = Framer(self._runner.input, graph.left_context)
        self._decider = Decider(
            decision or readout.decision, readout.classes, readout.idle, readout.temperature, self.hop_s
        )
        self._logits = readout.logits
        self.resets = 0

    def process(self, chunk: Chunk) -> Iterator[Decision]:
        """Yield the decisions that this chunk completes: none, one or several."""
        if chunk.discontinuity:
            self.reset()
            self.resets += 1
        for frame in self._framer.frames(self.chain(chunk)):
            logits = self._runner.step()[self._logits]  # (1, 1, n_classes)
            yield self._decider.step(logits.reshape(-1), frame)

    def reset(self) -> None:
        """Forget the signal: what follows is decided as after a fresh start."""
        self.chain.reset()
        self._framer.reset()
        self._runner.reset()
        self._decider.reset()

    @property
    def columns(self) -> Sequence[int]:
        """Columns of the stream that the decisions depend on."""
        used = next((step.used for step in self.chain.steps if isinstance(step, Montage)), None)
        return range(self.info.n_chans) if used is None else used

    @property
    def bad_channels(self) -> dict[str, str]:
        """Channels of the stream that are bad now, and why; empty without quality checks."""
        return next((step.bad for step in self.chain.steps if isinstance(step, Quality)), {})

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

    def describe(self) -> dict[str, Any]:
        """Return what a reader of the decisions may want to know."""
        manifest = self.bundle.manifest
        return {
            "bundle": manifest.name,
            "version": manifest.version,
            "classes": list(manifest.readout.classes),
            "decisions_per_s": round(1 / self.hop_s, 6),
            "adapted": list(self.notes),
            "algorithmic_delay": self.delays(),
        }


def run(
    feed: Feed,
    pipeline: Pipeline,
    sinks: Sequence[Sink],
    telemetry: Telemetry,
    *,
    clock: Callable[[], float],
    stop: Callable[[], bool] = lambda: False,
    stall_s: float = 2.0,
    give_up_s: float = 30.0,
    on_stall: Callable[[float], None] = lambda seconds: None,
    on_chunk: Callable[[float, int], None] = lambda now, rows: None,
) -> None:
    """Drive a pipeline from a feed until the stream ends or ``stop`` says so.

    Parameters
    ----------
    clock : callable
        The local LSL clock, s: what chunk stamps are on.
    on_stall : callable
        Told once per stall for how long nothing has come.
    on_chunk : callable
        Told the time and the number of samples after each chunk is dealt with.

    Raises
    ------
    StreamLost
        Nothing came for ``give_up_s``, or the source says that it is gone.
    """
    last = clock()
    stalled = False
    while not stop():
        try:
            chunk = feed.read(POLL_S)
        except EndOfStream:
            return
        now = clock()
        if chunk is None or not len(chunk):
            if now - last > give_up_s:
                raise StreamLost(
                    f"No sample from {feed.info.name!r} for {now - last:.0f} s. Is the device on, in range "
                    "and streaming? Raise give_up_s to wait longer."
                )
            if not stalled and now - last > stall_s:
                stalled = True
                telemetry.stalls += 1
                on_stall(now - last)
            continue
        last, stalled = now, False
        _emit(pipeline, chunk, sinks, telemetry, clock)
        on_chunk(now, len(chunk))


def _emit(
    pipeline: Pipeline,
    chunk: Chunk,
    sinks: Sequence[Sink],
    telemetry: Telemetry,
    clock: Callable[[], float],
) -> None:
    """Send on every decision of one chunk as soon as it is there."""
    started = time.perf_counter()
    for decision in pipeline.process(chunk):
        telemetry.computed(time.perf_counter() - started)
        for sink in sinks:
            sink.write(decision)
        telemetry.emitted(decision, clock())
        started = time.perf_counter()
