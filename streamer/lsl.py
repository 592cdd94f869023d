"""What LSL sources, sinks and the player share: finding streams, their clocks, their markers."""

from __future__ import annotations

import math
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

from streamer.errors import MissingDependency, StreamMismatch, StreamNotFound
from streamer.types import Marker

# A sender on this machine reads the same clock, and measuring says so to within 0.2 ms; a larger
# difference means another machine of the same name.
SAME_CLOCK_S = 1e-3
# liblsl asks by multicast first and every port by itself 0.5 s later. Of several outlets on one machine only
# one hears the multicast, so a look shorter than this never finds the others.
LOOK_S = 0.6
SLICE_S = 0.05  # between two looks at what was found; Ctrl-C is answered between them
ATTACH_S = 5.0  # how long a stream that was found may take to answer


def load() -> Any:
    """Return the pylsl module.

    Raises
    ------
    MissingDependency
        It is not installed, or comes without a liblsl that loads here.
    """
    try:
        import pylsl
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingDependency(
            f"LSL needs pylsl >= 1.18.5, which did not load here ({str(error).splitlines()[0]}). "
            "Install it: pip install 'pylsl>=1.18.5'"
        ) from error
    return pylsl


def predicate(name: str | None = None, stype: str | None = None, source_id: str | None = None) -> str:
    """Return the XPath condition for these properties; without any, for every stream with a rate."""
    wanted = {"name": name, "type": stype, "source_id": source_id}
    terms = [f"{key}={_quoted(value)}" for key, value in wanted.items() if value is not None]
    return " and ".join(terms) or "nominal_srate>0 and channel_format!='string'"


def find(condition: str, timeout_s: float) -> Any:
    """Return the one stream for which the condition holds.

    Parameters
    ----------
    condition : str
        As from `predicate`.
    timeout_s : float
        How long to wait for it to appear.

    Raises
    ------
    StreamNotFound
        None appeared, or several match; the message lists what is there.
    """
    found = resolve(condition, 1, timeout_s)
    if not found:
        raise StreamNotFound(
            f"No LSL stream with {condition} within {timeout_s:g} s. {_listed(resolve(None, None, 1.0))} "
            "Is the device's LSL output switched on, in the same network and session (lsl_api.cfg)?"
        )
    if "source_id=" not in condition:  # names and types may be shared
        found = resolve(condition, 2, LOOK_S) or found
    if len(found) > 1:
        raise StreamNotFound(
            f"{len(found)} LSL streams with {condition}. {_listed(found)} "
            "Choose one by its source_id, or by name and type."
        )
    return found[0]


def resolve(condition: str | None, enough: int | None, timeout_s: float) -> list[Any]:
    """Return the streams for which the condition holds (None: all) as soon as there are ``enough``.

    The wait is Python's: in liblsl's own, Ctrl-C is answered only when its time is over.
    """
    pylsl = load()
    resolver = pylsl.ContinuousResolver(pred=condition)
    end = pylsl.local_clock() + timeout_s
    while True:
        found: list[Any] = resolver.results()
        left = end - pylsl.local_clock()
        if (enough is not None and len(found) >= enough) or left <= 0:
            return found
        time.sleep(min(SLICE_S, left))


@contextmanager
def answering(found: Any) -> Iterator[None]:
    """Say that a stream which was found does not answer; `StreamNotFound`."""
    errors = load().util
    try:
        yield
    except (errors.LostError, errors.TimeoutError) as error:
        raise StreamNotFound(
            f"An LSL stream was found ({describe(found)}), but it does not answer: is TCP 16572-16604 open "
            "in the firewall, is the sender frozen?"
        ) from error


def describe(info: Any) -> str:
    """Return one line about a pylsl StreamInfo."""
    rate = f"{info.nominal_srate():g} Hz" if info.nominal_srate() else "irregular rate"
    return (
        f"name {info.name()!r}, type {info.type()!r}, source_id {info.source_id()!r}, "
        f"{info.channel_count()} channels, {rate}, on {info.hostname() or 'this machine'}"
    )


class ClockOffset:
    """What to add to a sender's stamps to have them on our clock; measured in the background.

    The first measurement takes 0.6 s, so it never happens where samples are read.  From this machine the
    offset is 0 from the start; from another one the constructor waits for the first measurement.

    Parameters
    ----------
    inlet : pylsl.StreamInlet
        Open.
    hostname : str
        The sender's.
    """

    def __init__(self, inlet: Any, hostname: str) -> None:
        self.value = 0.0
        self._inlet = inlet
        self._here = hostname == socket.gethostname()
        self._known = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lsl-clock", daemon=True)
        self._thread.start()
        if not self._here:
            self._known.wait(timeout=5.0)

    def close(self) -> None:
        """Stop measuring; may be called twice."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pylsl = load()
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                offset = self._inlet.time_correction(0.1)
            except pylsl.util.TimeoutError:
                continue
            except pylsl.util.LostError:
                return
            if not self._here or abs(offset) > SAME_CLOCK_S:
                self.value = offset
            self._known.set()
            pause = 5.0  # liblsl takes a new measurement that often


class Search:
    """Looks for a stream in the background, as a look takes longer than a reader may be kept.

    Parameters
    ----------
    condition : str
        As from `predicate`.
    choose : callable
        Given the streams found, at least one, returns the right one or None to go on.
    """

    def __init__(self, condition: str, choose: Callable[[Sequence[Any]], Any]) -> None:
        self._condition = condition
        self._choose = choose
        self._found: Any = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lsl-search", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> Any:
        """Return the stream as soon as it is found, None after ``timeout_s``."""
        self._over.wait(timeout_s)
        return self._found

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        pylsl = load()
        while not self._over.is_set():
            found = pylsl.resolve_bypred(self._condition, 1, LOOK_S)
            chosen = self._choose(found) if found else None
            if chosen is not None:
                self._found = chosen
                self._over.set()


class Drain:
    """Fetches all of a stream in the background, as it comes.

    An inlet whose outlet is gone gives nothing any more, not even what it had received, and with liblsl's own
    recovery on it never returns.  So what must not be lost may not wait in an inlet.

    Parameters
    ----------
    pull : callable
        Given a timeout, s, returns rows and their stamps, as ``pull_chunk`` does.
    """

    def __init__(self, pull: Callable[[float], tuple[Any, Any]]) -> None:
        self._pull = pull
        self._fetched: queue.SimpleQueue[tuple[Any, Any] | Exception] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lsl-drain", daemon=True)
        self._thread.start()

    def get(self, timeout_s: float) -> tuple[Any, Any] | None:
        """Return the next rows and stamps, None after ``timeout_s``; raises what ended the stream, again."""
        try:
            fetched = self._fetched.get(timeout=timeout_s) if timeout_s > 0 else self._fetched.get_nowait()
        except queue.Empty:
            return None
        if isinstance(fetched, Exception):
            self._fetched.put(fetched)
            raise fetched
        return fetched

    def close(self) -> None:
        """Stop fetching; may be called twice."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        lost = load().util.LostError
        try:
            while not self._stop.is_set():
                rows, stamps = self._pull(0.1)
                if len(stamps):
                    self._fetched.put((rows, stamps))
        except lost as error:
            self._fetched.put(error)


class LslMarkers:
    """Events from a string marker stream; a context manager.

    When the stream is gone, what had arrived stays and nothing is added.

    Parameters
    ----------
    name : str
        Of the stream.
    timeout_s : float
        How long to wait for it to appear.

    Raises
    ------
    StreamNotFound
        It did not appear, there are several, or it does not answer.
    StreamMismatch
        It carries no strings.
    """

    def __init__(self, name: str, timeout_s: float = 30.0) -> None:
        pylsl = load()
        info = find(predicate(name=name), timeout_s)
        if info.channel_format() != pylsl.cf_string:
            raise StreamMismatch(f"Marker stream {name!r} carries no strings ({describe(info)}).")
        inlet = pylsl.StreamInlet(info, recover=False)
        with answering(info):
            inlet.open_stream(timeout=ATTACH_S)
        self._offset = ClockOffset(inlet, info.hostname())
        self._drain = Drain(lambda timeout: inlet.pull_chunk(timeout, min_samples=1))
        self._markers: list[Marker] = []

    def read(self) -> list[Marker]:
        """Return all events that have arrived so far, in time order; does not wait."""
        with suppress(load().util.LostError):
            while (fetched := self._drain.get(0.0)) is not None:
                self._markers += [
                    Marker(stamp + self._offset.value, label[0])
                    for label, stamp in zip(*fetched, strict=True)
                    if math.isfinite(stamp)
                ]
        return sorted(self._markers, key=lambda marker: marker.time)

    def close(self) -> None:
        """Stop listening; what was read stays; may be called twice."""
        self._drain.close()
        self._offset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _quoted(value: str) -> str:
    """Return an XPath string; XPath knows no escapes, so one with apostrophes has to be put together."""
    if "'" not in value:
        return f"'{value}'"
    return "concat(" + ', "\'", '.join(f"'{part}'" for part in value.split("'")) + ")"


def _listed(found: Sequence[Any]) -> str:
    if not found:
        return "There is no LSL stream at all."
    return "There are: " + "; ".join(sorted(describe(info) for info in found)) + "."
