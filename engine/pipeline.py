"""From chunks to decisions, and the loop that drives it.

The same `Pipeline` serves a live session, a replay and the evaluation: what differs is who calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from engine.adapt import fit
from engine.backends import Arrays, Backend
from engine.bundle import Bundle
from engine.calibration import Calibration
from engine.calibration import check as check_calibration
from engine.decision import Decider, DecisionSettings
from engine.framer import Frame
from engine.stepping import Seat, Stepping
from engine.telemetry import Timing
from streamer.acquire import Feed
from streamer.dsp import StepConfig
from streamer.errors import EndOfStream, StreamLost
from streamer.types import Chunk, Decision, StreamInfo

POLL_S = 0.25  # how often the loop looks at its stop flag while no sample comes
T = TypeVar("T")
In = TypeVar("In", contravariant=True)


class Pipeline(Stepping[Decision]):
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
    decision : DecisionSettings, optional
        Instead of the bundle's own.
    calibration : Calibration, optional
        Its head gives the logits from the latent, instead of the graph's own.
    observe : callable, optional
        Told each frame and what the graph put out for it, before it is decided on.  The arrays are the
        runner's own: copy what is to be kept.
    seat : Seat, optional
        As `Stepping`.

    Attributes
    ----------
    temperature : float
        Logits are divided by it.
    notes : tuple of str
        How the stream was adapted to the bundle.
    interpolated : tuple of int
        How many of the bundle's channels the stream lacks, so that they are made of others, and of how many.
    resets : int
        Discontinuities answered so far.

    Raises
    ------
    StreamMismatch
        The stream does not fit the bundle.
    BundleError
        The bundle puts out something else than decisions.
    ConfigError
        The calibration is of another bundle.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        info: StreamInfo,
        *,
        quality: StepConfig | None = None,
        decision: DecisionSettings | None = None,
        calibration: Calibration | None = None,
        observe: Callable[[Frame, Arrays], None] | None = None,
        seat: Seat | None = None,
    ) -> None:
        readout = bundle.readout
        if calibration is not None:
            check_calibration(calibration, bundle)
        fitted = fit(bundle, info, quality)
        super().__init__(bundle, backend, info, fitted.chain, fitted.notes, seat)
        self.interpolated = (len(fitted.interpolated), len(bundle.manifest.input.ch_names))
        self.temperature = readout.temperature
        self._decider = Decider(
            decision or readout.decision, readout.classes, readout.idle, self.temperature, self.hop_s
        )
        self._logits, self._latent, self._observe = readout.logits, readout.latent, observe
        self._calibration = calibration
        self._head = calibration.head if calibration is not None else None

    def process(self, chunk: Chunk) -> Iterator[Decision]:
        """Yield the decisions that this chunk completes: none, one or several."""
        for frame, outputs in self.steps(chunk):
            yield self.decide(frame, outputs)

    def decide(self, frame: Frame, outputs: Arrays) -> Decision:
        """Return the decision on a frame from what the graph put out for it."""
        if self._head is not None and self._latent is not None:
            outputs = {**outputs, self._logits: self._head.logits(outputs[self._latent])}
        if self._observe is not None:
            self._observe(frame, outputs)
        logits = outputs[self._logits]  # (1, 1, n_classes)
        return self._decider.step(logits.reshape(-1), frame)

    def reset(self) -> None:
        """Forget the signal: what follows is decided as after a fresh start."""
        super().reset()
        self._decider.reset()

    def describe(self) -> dict[str, Any]:
        """Return what a reader of the decisions may want to know."""
        manifest = self.bundle.manifest
        return {
            "bundle": manifest.name,
            "version": manifest.version,
            "classes": list(self.bundle.readout.classes),
            "decisions_per_s": round(1 / self.hop_s, 6),
            "adapted": list(self.notes),
            "calibration": None if self._calibration is None else self._calibration.words(),
            "algorithmic_delay": self.delays(),
        }


class Receiver(Protocol[In]):
    """What takes the results: every `Sink` does for decisions.

    ``lost`` counts those that it could not keep.
    """

    lost: int

    def write(self, item: In, /) -> None:
        """Send one result on; must not block."""


def run(
    feed: Feed,
    pipeline: Stepping[T],
    sinks: Sequence[Receiver[T]],
    telemetry: Timing[T],
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
    pipeline: Stepping[T],
    chunk: Chunk,
    sinks: Sequence[Receiver[T]],
    telemetry: Timing[T],
    clock: Callable[[], float],
) -> None:
    """Send on everything that one chunk completes as soon as it is there."""
    started = time.perf_counter()
    for item in pipeline.process(chunk):
        telemetry.computed(time.perf_counter() - started)
        for sink in sinks:
            sink.write(item)
        telemetry.emitted(item, clock())
        started = time.perf_counter()
