"""A run of several streams from its config: one process, a thread to acquire each, one step for all.

A stream that is lost for good, or that changes, ends by itself; the run ends with the last one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from engine.bundle import Bundle, load
from engine.calibration import Calibration, personal
from engine.calibration import check as check_calibration
from engine.calibration import read as read_calibration
from engine.config import ManyConfig, StreamConfig
from engine.decision import DecisionSettings
from engine.faults import for_each, refuse
from engine.live import counts, decision_info
from engine.many import Many
from engine.operating import outlook, settle
from engine.pipeline import POLL_S, Pipeline
from engine.priority import prioritised
from engine.session import (
    CHANGED,
    LOST,
    Say,
    Session,
    greeting,
    interruptible,
    low_latency,
    lsl_clock,
    report,
    undecided,
)
from engine.stepping import repair_for
from engine.telemetry import Telemetry
from engine.watch import Watch
from streamer.acquire import ThreadedFeed
from streamer.errors import BciError, EndOfStream, StreamLost, StreamMismatch
from streamer.sources import Source, SourceConfig
from streamer.types import Chunk, Decision

END, TIME, STOPPED = "end of stream", "time is up", "stopped"


def run_many(
    config: ManyConfig,
    *,
    seconds: float | None = None,
    say: Say = lambda line: None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Run until every stream has ended, ``seconds`` of signal have passed, or somebody interrupts.

    Parameters
    ----------
    say, stop, clock
        As `engine.live.run_config`.

    Returns
    -------
    dict
        ``ended`` (that of the worst stream), ``reason``, ``steps`` (batched ones) and ``streams``: the report
        of each, by name.
    """
    stop, arrived = stop or threading.Event(), threading.Event()
    bundle, n = load(config.bundle), len(config.sources)
    readout = bundle.readout
    settings = settle(readout.decision, readout.operating, config.decision, bundle.label)
    heads = for_each(config.names, lambda place: _calibration(config.sources[place], bundle))
    sinks = [[sink.of_stream(name) for sink in config.sinks] for name in config.names]
    with ExitStack() as stack:
        backend = stack.enter_context(config.backend.open(bundle.batched(n)))
        opened = [stack.enter_context(source) for source in _opened(config)]
        many = Many(
            bundle,
            backend,
            [source.info for source in opened],
            patience_s=config.patience_s,
            quality=config.quality,
            decision=settings,
            calibrations=heads,
            names=config.names,
        )
        stack.enter_context(interruptible(stop))
        streams = []
        for one, name, source, own, pipeline in zip(
            config.sources, config.names, opened, sinks, many.pipelines, strict=True
        ):
            info = decision_info(f"{config.name}-{name}", pipeline)
            receivers = [stack.enter_context(sink.open(info)) for sink in own]
            samples = ThreadedFeed(
                source, repair=repair_for(config, pipeline), late=config.late, arrived=arrived.set
            )
            telemetry = Telemetry(pipeline.hop_s)
            stack.enter_context(samples)
            session = Session(pipeline, samples, receivers, telemetry, source.live, backend.name)
            streams.append(_Stream(name, one.source, session, telemetry, config, seconds, say))
        _greet(streams, say)
        whose = dict(zip(config.names, zip(heads, many.pipelines, strict=True), strict=True))
        for line in _outlooks(bundle, settings, whose):
            say(line)
        with low_latency(), prioritised(config.realtime, config.cores, say):
            _drive(many, streams, arrived, stop, clock or lsl_clock())
    return _report(many, streams)


def _outlooks(
    bundle: Bundle, settings: DecisionSettings, streams: Mapping[str, tuple[Calibration | None, Pipeline]]
) -> Iterator[str]:
    """Yield what to expect of the streams, once of all of which the same is known."""
    readout = bundle.readout
    groups: dict[tuple[bool, tuple[int, int]], list[str]] = {}
    for name, (head, pipeline) in streams.items():
        groups.setdefault((personal(bundle, head), pipeline.interpolated), []).append(name)
    for (own, made), names in groups.items():
        whose = "" if len(names) == len(streams) else f"{', '.join(names)}: "
        told = outlook(readout.decision, readout.operating, settings, personal=own, interpolated=made)
        yield f"decides  {whose}{told}"


def _calibration(one: StreamConfig, bundle: Bundle) -> Calibration | None:
    """Return a stream's calibration, if it has one, once it is known to be of this bundle."""
    if one.calibration is None:
        return None
    head = read_calibration(one.calibration)
    check_calibration(head, bundle)
    return head


def _opened(config: ManyConfig) -> list[Source]:
    """Open all at once: one after the other, the first would have seconds of backlog when the last is there.

    Those that fail close the others, and their errors are raised; Ctrl-C does, too, without waiting for them.
    """
    configs = [one.source for one in config.sources]
    found: dict[int, Source | BaseException] = {}
    given_up = threading.Event()

    def work(place: int) -> None:
        try:
            source = configs[place].open()
        except BaseException as error:  # not swallowed: raised below
            found[place] = error
            return
        found[place] = source
        if given_up.is_set():
            source.close()

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(len(configs))]
    whole = False
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(POLL_S)  # a signal is answered in between
        for one in found.values():
            if isinstance(one, BaseException) and not isinstance(one, BciError):
                raise one
        wrong = {
            config.names[place]: one for place, one in sorted(found.items()) if isinstance(one, BciError)
        }
        refuse(wrong)
        whole = True
    finally:
        if not whole:
            given_up.set()
            for one in list(found.values()):
                if not isinstance(one, BaseException):
                    one.close()
    return [one for _, one in sorted(found.items()) if not isinstance(one, BaseException)]


def _drive(
    many: Many,
    streams: list[_Stream],
    arrived: threading.Event,
    stop: threading.Event,
    clock: Callable[[], float],
) -> None:
    """Read what has come, step what is due, send it on; sleep until there is more."""
    for stream in streams:
        stream.begin(clock())
    while not stop.is_set() and not all(stream.ended for stream in streams):
        arrived.wait(min(POLL_S, many.due_in(clock())))
        arrived.clear()
        for number, stream in enumerate(streams):
            while not stream.ended and not many.waits(number):
                chunk = stream.read(clock())
                if chunk is None:
                    break
                started = time.perf_counter()
                many.push(number, chunk, clock())
                stream.busy_s += time.perf_counter() - started
            if stream.ended and not stream.told:
                stream.told = True
                many.end(number)
        started = time.perf_counter()
        for number, decision in many.step(clock()):
            streams[number].emit(decision, time.perf_counter() - started, clock())
            arrived.set()  # a stream that was stepped may have more to read
    for stream in streams:
        stream.ended = stream.ended or STOPPED


def _greet(streams: list[_Stream], say: Say) -> None:
    """Say of each stream what it is and how it is adapted, and once what they have in common."""
    for stream in streams:
        first, _bundle, *adapted, _backend, _delay = greeting(stream.session, "")
        for line in (first, *adapted):
            say(f"{stream.name}: {line}")
    pipeline = streams[0].session.pipeline
    say(f"bundle   {pipeline.bundle.label}, {len(streams)} streams at once")
    say(f"backend  {streams[0].session.backend}")


def _report(many: Many, streams: list[_Stream]) -> dict[str, Any]:
    for stream in streams:
        if stream.ended in (END, TIME):
            stream.reason = undecided(stream.session, stream.source)
    worst = min(streams, key=lambda stream: (LOST, CHANGED, STOPPED, TIME, END).index(stream.ended))
    return {
        "ended": worst.ended,
        "reason": worst.reason,
        "steps": many.steps,
        "streams": {
            stream.name: report(stream.session, (stream.ended, stream.reason), counts(stream.telemetry))
            for stream in streams
        },
    }


class _Stream:
    """One stream of the run: how it goes, and how it ended."""

    def __init__(
        self,
        name: str,
        source: SourceConfig,
        session: Session[Decision],
        telemetry: Telemetry,
        config: ManyConfig,
        seconds: float | None,
        say: Say,
    ) -> None:
        self.name, self.source = name, source
        self.session, self.telemetry = session, telemetry
        self.ended, self.reason, self.told = "", "", False
        self.last = self.busy_s = 0.0
        self._seconds, self._end = seconds, math.inf
        self._say: Say = lambda line: say(f"{name}: {line}")
        self._watch = Watch(session.feed, session.pipeline, self._say, live=session.live)
        self._stalled, self._rows = False, 0
        self._most = math.inf if seconds is None else round(seconds * session.feed.info.sfreq)
        self._stall_s, self._give_up_s = (
            (config.stall_s, config.give_up_s) if session.live else (math.inf, math.inf)
        )

    def begin(self, now: float) -> None:
        """Start to count: silence, and of a live stream the time that it may take."""
        self.last = now
        if self.session.live and self._seconds is not None:
            self._end = now + self._seconds

    def read(self, now: float) -> Chunk | None:
        """Return what has come, if anything has; else see whether the stream has ended."""
        if self._rows >= self._most or now >= self._end:
            self.ended = TIME
            return None
        try:
            chunk = self.session.feed.read(0.0)
            if chunk is None:
                self._wait(now)
                return None
        except EndOfStream:
            self.ended = END
            return None
        except (StreamLost, StreamMismatch) as error:
            self._say(str(error))
            self.ended, self.reason = LOST if isinstance(error, StreamLost) else CHANGED, str(error)
            return None
        self.last, self._stalled = now, False
        self._watch.look(now, len(chunk))
        chunk = self._within(chunk)
        self._rows += len(chunk)
        return chunk

    def _within(self, chunk: Chunk) -> Chunk:
        """Return what of it lies within the seconds asked for: a file's reader is ahead by the whole ring."""
        if self._rows + len(chunk) <= self._most:
            return chunk
        rows = slice(0, int(self._most - self._rows))
        return replace(chunk, data=chunk.data[rows], times=chunk.times[rows], valid=chunk.valid[rows])

    def _wait(self, now: float) -> None:
        """Say that nothing comes; `StreamLost` when that has been so for too long."""
        silent = now - self.last
        if silent > self._give_up_s:
            raise StreamLost(
                f"No sample from {self.session.feed.info.name!r} for {silent:.0f} s: it is given up."
            )
        if not self._stalled and silent > self._stall_s:
            self._stalled = True
            self.telemetry.stalls += 1
            self._watch.stalled(silent)

    def emit(self, decision: Decision, took_s: float, now: float) -> None:
        """Send on a decision that came so long after its batched step began; its own DSP is added."""
        self.telemetry.computed(self.busy_s + took_s)
        self.busy_s = 0.0
        for receiver in self.session.receivers:
            receiver.write(decision)
        self.telemetry.emitted(decision, now)
