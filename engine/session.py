"""What every live session does: drive a feed into its receivers, be stopped in order, and report.

A session is a run of decisions (`engine.live`), of codes (`engine.tokens`) or of a waveform decoded from
them (`engine.listen`).
"""

from __future__ import annotations

import gc
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Generic, Self, TypeVar

from engine.config import SessionConfig
from engine.pipeline import Receiver, run
from engine.priority import prioritised
from engine.stepping import Stepping
from engine.telemetry import Timing
from engine.watch import Watch
from streamer.acquire import Feed
from streamer.errors import StreamLost, StreamMismatch
from streamer.sources import SourceConfig
from streamer.sources.recording import Config as Recording

SWITCH_INTERVAL_S = (
    5e-4  # one busy Python thread takes p50 from 0.5 to 5-21 ms at the default 5 ms, to 1 ms here
)
LOST, CHANGED = "stream lost", "stream changed"
T = TypeVar("T")
Say = Callable[[str], None]


class Observer(Generic[T]):
    """A receiver that hands everything to a function; the demo's scoring and the tests listen through it."""

    lost = 0

    def __init__(self, heard: Callable[[T], None]) -> None:
        self._heard = heard

    def write(self, item: T) -> None:
        """Hand it over."""
        self._heard(item)

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Session(Generic[T]):
    """Everything that a session has open."""

    pipeline: Stepping[T]
    feed: Feed
    receivers: Sequence[Receiver[T]]
    telemetry: Timing[T]
    live: bool
    backend: str


def greeting(session: Session[T], last: str) -> list[str]:
    """Return what the person at the screen is told first; ``last`` ends the line about delays."""
    pipeline, info, delays = session.pipeline, session.pipeline.info, session.pipeline.delays()
    return [
        f"stream   {info.name}: {info.n_chans} {info.stype} channels, {info.sfreq:g} Hz, {info.unit}",
        f"bundle   {pipeline.bundle.label}: {pipeline.bundle.manifest.title}",
        *[f"adapted  {note}" for note in pipeline.notes],
        f"backend  {session.backend}",
        f"delay    filters {delays['filters_ms']:g} ms + hop {delays['hop_ms']:g} ms; {last}",
    ]


def drive(
    session: Session[T],
    config: SessionConfig,
    *,
    stop: threading.Event,
    seconds: float | None,
    say: Say,
    clock: Callable[[], float] | None = None,
    results: str = "decisions",
) -> tuple[str, str]:
    """Run until the stream ends, ``seconds`` of signal have passed or ``stop`` is set.

    Parameters
    ----------
    clock : callable, optional
        Seconds; the local LSL clock by default.
    results : str
        What comes out, for people.

    Returns
    -------
    str, str
        How it ended, and why if that was not as it should be.
    """
    done = _Deadline(stop, seconds, session)
    watch = Watch(session.feed, session.pipeline, say, results, live=session.live)
    patient = not session.live  # a pause in a file is no stall
    with low_latency(), prioritised(config.realtime, config.cores, say):
        try:
            run(
                session.feed,
                session.pipeline,
                session.receivers,
                session.telemetry,
                clock=clock or lsl_clock(),
                stop=done,
                stall_s=math.inf if patient else config.stall_s,
                give_up_s=math.inf if patient else config.give_up_s,
                on_stall=watch.stalled,
                on_chunk=watch.look,
            )
        except (StreamLost, StreamMismatch) as error:  # what came out so far still gets its report
            say(str(error))
            return LOST if isinstance(error, StreamLost) else CHANGED, str(error)
    if stop.is_set():
        return "stopped", ""
    return ("time is up" if done.over else "end of stream"), undecided(
        session, getattr(config, "source", None), results
    )


def undecided(session: Session[T], source: SourceConfig | None, results: str = "decisions") -> str:
    """Say why a session gave no result at all; nothing where it gave one."""
    if session.telemetry.latency.n:
        return ""
    info, holes = session.feed.info, session.pipeline.resets
    said, needed = f"{info.name!r} gave no {results}", f"{session.pipeline.hop_s:.3g} s"
    if not holes:
        came = session.feed.counters.samples_in / info.sfreq
        return f"{said}: {came:.3g} s of signal came, and the first takes {needed}."
    advice = ""
    if isinstance(source, Recording) and source.holes == "split":
        advice = (
            " Where it keeps the beginning of every epoch only, `--holes repeat` (`holes: repeat` in the "
            "source block) fills each hole by repeating what comes before it."
        )
    return (
        f"{said}: it has {holes} holes, behind each of which the model starts afresh, and nothing between "
        f"them lasts the {needed} that the first takes.{advice}"
    )


def report(session: Session[T], ended: tuple[str, str], counts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what there is to say at the end; ``counts`` are those of the session's own kind."""
    pipeline, telemetry, live = session.pipeline, session.telemetry, session.live
    return {
        "ended": ended[0],
        "reason": ended[1],
        "stream": session.feed.info.name,
        "backend": session.backend,
        **pipeline.describe(),
        **counts,
        "resets": pipeline.resets,
        "late": telemetry.late if live else 0,
        "early": telemetry.early if live else 0,
        "unsent": sum(receiver.lost for receiver in session.receivers),
        "stalls": telemetry.stalls,
        "bad_channels": pipeline.bad_channels,
        "bad_channels_s": pipeline.bad_s,
        **asdict(session.feed.counters),
        # A file's stamps are its own time axis: there is nothing to be late against.
        "latency_ms": telemetry.latency.summary() if live else None,
        "compute_ms": telemetry.compute.summary(),
    }


@contextmanager
def interruptible(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the session in order, with its report; only the main thread can ask that."""
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


class _Deadline:
    """When a session is to stop: somebody says so, or so many seconds of signal have passed."""

    def __init__(self, stop: threading.Event, seconds: float | None, session: Session[T]) -> None:
        self._stop = stop
        self._live, self._feed = session.live, session.feed
        self._end = time.monotonic() + seconds if seconds else None
        self._rows = seconds * session.feed.info.sfreq if seconds else None

    @property
    def over(self) -> bool:
        """Whether time is up; a file's time is its own."""
        if self._end is None or self._rows is None:
            return False
        if self._live:
            return time.monotonic() >= self._end
        return self._feed.counters.samples_in >= self._rows

    def __call__(self) -> bool:
        return self._stop.is_set() or self.over


def lsl_clock() -> Callable[[], float]:
    """Return the local LSL clock, s."""
    from pylsl import local_clock

    clock: Callable[[], float] = local_clock
    return clock


@contextmanager
def low_latency() -> Iterator[None]:
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
