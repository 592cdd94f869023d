"""Who else may have the processor while a session runs: real-time priority, and cores of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

TASKS = Path("/proc/self/task")  # Linux alone lists its threads, and lets them be told one by one
PRIORITY = 10  # of 1 to 99: above everything ordinary, below the kernel's own interrupt threads at 50
Say = Callable[[str], None]


@contextmanager
def prioritised(realtime: bool, cores: Sequence[int] | None, say: Say) -> Iterator[None]:
    """Give every thread of this process that is there now a better place, and take it back at the end.

    That includes liblsl's own threads: a sample waits for all that hand it on.  What the system refuses is
    said, with what would help, and the session goes on without.

    Parameters
    ----------
    realtime : bool
        Run before every ordinary process (round robin), as soon as there is something to do.
    cores : sequence of int, optional
        Run on these alone.
    say : callable
        Told what was refused.
    """
    if not (realtime or cores):
        yield
        return
    if not TASKS.is_dir():
        say("realtime and cores are for Linux; the session runs at ordinary priority")
        yield
        return
    before = _now(_threads())
    if cores:
        _place(cores, say)
    if realtime:
        _raise(say)
    try:
        yield
    finally:
        for thread, (allowed, policy, level) in before.items():
            with suppress(OSError):  # a thread that has ended meanwhile
                os.sched_setaffinity(thread, allowed)
            with suppress(OSError):
                os.sched_setscheduler(thread, policy, os.sched_param(level))


def _threads() -> list[int]:
    return [int(path.name) for path in TASKS.iterdir()]


def _now(threads: Sequence[int]) -> dict[int, tuple[set[int], int, int]]:
    """Return cores, policy and priority of each thread."""
    found = {}
    for thread in threads:
        with suppress(OSError):
            policy, level = os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority
            found[thread] = (os.sched_getaffinity(thread), policy, level)
    return found


def _place(cores: Sequence[int], say: Say) -> None:
    try:
        _each(lambda thread: os.sched_setaffinity(thread, cores))
    except (OSError, OverflowError) as error:
        there = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        reason = error.strerror if isinstance(error, OSError) else error
        say(f"cores {', '.join(map(str, cores))} were refused ({reason}); there are {there}")


def _each(change: Callable[[int], None]) -> None:
    for thread in _threads():
        with suppress(ProcessLookupError):  # it has ended since it was listed
            change(thread)


def _raise(say: Say) -> None:
    try:
        _each(lambda thread: os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(PRIORITY)))
    except OSError as error:
        say(
            f"realtime was refused ({error.strerror}): the session runs at ordinary priority. Allow it with "
            f"`ulimit -r {PRIORITY}` (limits.conf: rtprio), or run as root."
        )
