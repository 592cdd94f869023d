"""A whole run from its config: opens everything, drives it, closes it, reports."""

from __future__ import annotations

import gc
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from engine.bundle import load
from engine.config import RunConfig
from engine.pipeline import Pipeline, run
from engine.telemetry import Telemetry
from engine.watch import Watch
from streamer.acquire import Feed, feed
from streamer.errors import StreamLost, StreamMismatch
from streamer.repair import Repair
from streamer.sinks import Sink
from streamer.types import Decision, DecisionInfo

SWITCH_INTERVAL_S = (
    5e-4  # one busy Python thread takes p50 from 0.5 to 5-21 ms at the default 5 ms, to 1 ms here
)
LOST, CHANGED = "stream lost", "stream changed"


class Observer:
    """A sink that hands every decision to a function; the demo's scoring and the tests listen through it."""

    lost = 0

    def __init__(self, heard: Callable[[Decision], None]) -> None:
        self._heard = heard

    def write(self, decision: Decision) -> None:
        """Hand the decision over."""
        self._heard(decision)

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def run_config(
    config: RunConfig,
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda line: None,
    extra: Sink | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Run until the stream ends, ``seconds`` of signal have passed, or somebody interrupts.

    Parameters
    ----------
    say : callable
        Receives lines for the person at the screen.
    extra : Sink, optional
        One more receiver of decisions.
    stop : threading.Event, optional
        Ends the run when set.
    clock : callable, optional
        Seconds; the local LSL clock by default.

    Returns
    -------
    dict
        The report: what was decoded, what was lost, how long it took.
    """
    stop = stop or threading.Event()
    bundle = load(config.bundle)
    with ExitStack() as stack:
        backend = stack.enter_context(config.backend.open(bundle))
        source = stack.enter_context(config.source.open())
        pipeline = Pipeline(bundle, backend, source.info, quality=config.quality, decision=config.decision)
        stack.enter_context(_interruptible(stop))  # from here on there is something to report
        info = _decision_info(config, pipeline)
        sinks: list[Sink] = [stack.enter_context(sink.open(info)) for sink in config.sinks]
        sinks += [extra] if extra else []
        repair = _repair(config, pipeline)
        samples = stack.enter_context(feed(source, repair=repair, late=config.late))
        opened = _Opened(pipeline, samples, sinks, Telemetry(pipeline.hop_s), source.live, backend.name)
        for line in _greeting(opened):
            say(line)
        ended = _drive(opened, config, _Deadline(stop, seconds, opened), say, clock or _lsl_clock())
    return _report(opened, ended)


@dataclass(frozen=True, slots=True)
class _Opened:
    """Everything that a run has open."""

    pipeline: Pipeline
    feed: Feed
    sinks: list[Sink]
    telemetry: Telemetry
    live: bool
    backend: str


class _Deadline:
    """When a run is to stop: somebody says so, or so many seconds of signal have passed."""

    def __init__(self, stop: threading.Event, seconds: float | None, opened: _Opened) -> None:
        self.stop = stop
        self._opened = opened
        self._end = time.monotonic() + seconds if seconds else None
        self._rows = seconds * opened.feed.info.sfreq if seconds else None

    @property
    def over(self) -> bool:
        """Whether time is up; a file's time is its own."""
        if self._end is None or self._rows is None:
            return False
        if self._opened.live:
            return time.monotonic() >= self._end
        return self._opened.feed.counters.samples_in >= self._rows

    def __call__(self) -> bool:
        return self.stop.is_set() or self.over


def _repair(config: RunConfig, pipeline: Pipeline) -> Repair:
    """Return the repair for what the bundle uses: other electrodes may be as dead as they like."""
    max_bad = config.quality.max_bad if config.quality else 0.0
    return Repair(pipeline.info, config.max_gap_s, columns=pipeline.columns, max_bad=max_bad)


def _decision_info(config: RunConfig, pipeline: Pipeline) -> DecisionInfo:
    classes = pipeline.bundle.manifest.readout.classes
    return DecisionInfo(config.name, classes, 1 / pipeline.hop_s, pipeline.info, pipeline.describe())


def _lsl_clock() -> Callable[[], float]:
    from pylsl import local_clock

    clock: Callable[[], float] = local_clock
    return clock


def _drive(
    opened: _Opened,
    config: RunConfig,
    done: _Deadline,
    say: Callable[[str], None],
    clock: Callable[[], float],
) -> tuple[str, str]:
    """Run the loop; return how and why it ended."""
    watch = Watch(opened.feed, opened.pipeline, say)
    patient = not opened.live  # a pause in a file is no stall
    with _low_latency():
        try:
            run(
                opened.feed,
                opened.pipeline,
                opened.sinks,
                opened.telemetry,
                clock=clock,
                stop=done,
                stall_s=math.inf if patient else config.stall_s,
                give_up_s=math.inf if patient else config.give_up_s,
                on_stall=watch.stalled,
                on_chunk=watch.look,
            )
        except (StreamLost, StreamMismatch) as error:  # what was decided so far still gets its report
            say(str(error))
            return LOST if isinstance(error, StreamLost) else CHANGED, str(error)
    if done.stop.is_set():
        return "stopped", ""
    return ("time is up" if done.over else "end of stream"), ""


@contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the run in order, with its report; only the main thread can ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _low_latency() -> Iterator[None]:
    """Short thread switches, and nothing that exists now is ever scanned by the garbage collector again."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)


def _greeting(opened: _Opened) -> list[str]:
    pipeline, info, delays = opened.pipeline, opened.pipeline.info, opened.pipeline.delays()
    return [
        f"stream   {info.name}: {info.n_chans} {info.stype} channels, {info.sfreq:g} Hz, {info.unit}",
        f"bundle   {pipeline.bundle.label}: {pipeline.bundle.manifest.title}",
        *[f"adapted  {note}" for note in pipeline.notes],
        f"backend  {opened.backend}",
        f"delay    filters {delays['filters_ms']:g} ms + hop {delays['hop_ms']:g} ms; first decision after "
        f"{delays['left_context_ms'] / 1e3 + pipeline.hop_s:.2f} s of signal",
    ]


def _report(opened: _Opened, ended: tuple[str, str]) -> dict[str, Any]:
    pipeline, telemetry = opened.pipeline, opened.telemetry
    return {
        "ended": ended[0],
        "reason": ended[1],
        "stream": opened.feed.info.name,
        "backend": opened.backend,
        **pipeline.describe(),
        "decisions": telemetry.decisions,
        "labelled": telemetry.labelled,
        "invalid": telemetry.invalid,
        "resets": pipeline.resets,
        "late": telemetry.late if opened.live else 0,
        "early": telemetry.early if opened.live else 0,
        "unsent": sum(sink.lost for sink in opened.sinks),
        "stalls": telemetry.stalls,
        "bad_channels": pipeline.bad_channels,
        **asdict(opened.feed.counters),
        # A file's stamps are its own time axis: there is nothing to be late against.
        "latency_ms": telemetry.latency.summary() if opened.live else None,
        "compute_ms": telemetry.compute.summary(),
    }
