"""What a consumer measures of itself while it works."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bench.job import HOP_S, Job

SPARE = 16  # answers beyond what the job's length gives: framings differ by one or two
STATM = Path("/proc/self/statm")
Answer = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What a consumer tells of its turn.

    Attributes
    ----------
    ends : ndarray, int64
        For each answer after settling: how many samples of the stream had gone in when it came out.
    times : ndarray, float64
        When it came out, s on the LSL clock.
    kept : tuple
        Some answers with their ``end``, to be compared with what they should be.
    lost : int
        Samples of the stream that did not come out.
    ready_s, first_s : float
        From the start of the process: subscribed; first answer.
    cpu_s, wall_s : float
        Between the first and the last answer counted.
    rss_mb : tuple of float or None
        Memory at the first answer counted and before the last ones; None where the system does not tell.
    extra : mapping
        What only this consumer has to tell.
    """

    ends: NDArray[np.int64]
    times: NDArray[np.float64]
    kept: tuple[tuple[int, Answer], ...]
    lost: int
    ready_s: float
    first_s: float
    cpu_s: float
    wall_s: float
    rss_mb: tuple[float, float] | None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Meter:
    """Counts a consumer's answers; allocates nothing while it runs.

    Parameters
    ----------
    job : Job
    started : float
        When the process was started, s, `time.monotonic`.
    ready : callable
        Called once the consumer hears the stream: the outlet begins then.
    clock, cpu, wall, memory : callable
        The LSL clock; CPU time and time, s; memory, MB.
    """

    def __init__(
        self,
        job: Job,
        started: float,
        ready: Callable[[], None],
        *,
        clock: Callable[[], float],
        cpu: Callable[[], float] = time.process_time,
        wall: Callable[[], float] = time.monotonic,
        memory: Callable[[], float | None] | None = None,
    ) -> None:
        self.job = job
        self._started, self._ready = started, ready
        self._clock, self._cpu, self._wall = clock, cpu, wall
        self._memory = memory or rss_mb
        room = round(job.seconds / min(job.hop_s, HOP_S)) + SPARE
        self._ends, self._times = np.zeros(room, dtype=np.int64), np.zeros(room)
        self._n = 0
        self._kept: list[tuple[int, Answer]] = []
        self._ready_s = self._first_s = np.nan
        self._begin = self._end = (0.0, 0.0)
        self._rss: float | None = None
        self._rss_end: float | None = None
        self._nearly = job.samples - 2 * round(job.hop_s * job.stream.sfreq)

    def ready(self) -> None:
        """Say that the stream is heard; pushing begins."""
        self._ready_s = self._wall() - self._started
        self._ready()

    def answer(self, end: int, value: Answer) -> None:
        """Count an answer.

        Parameters
        ----------
        end : int
            Samples of the stream up to the newest one in it.
        value : ndarray
            The window, shape (window, n_chans), or whatever the job is answered with; copied where kept.
        """
        now = self._clock()
        if np.isnan(self._first_s):
            self._first_s = self._wall() - self._started
        if end <= self.job.settled or self._n == len(self._ends):
            return
        self._ends[self._n], self._times[self._n] = end, now
        self._n += 1
        self._end = (self._cpu(), self._wall())
        nearly_over = end > self._nearly
        if nearly_over and self._rss_end is None:
            self._rss_end = self._memory()  # before what is kept is counted as growth
        if self._n == 1 or nearly_over:
            self._kept.append((end, value.copy()))
        if self._n == 1:
            self._begin, self._rss = self._end, self._memory()

    def told(self, lost: int, **extra: Any) -> Told:
        """Return what was measured; ``lost`` samples did not come out."""
        end = self._rss_end
        return Told(
            ends=self._ends[: self._n].copy(),
            times=self._times[: self._n].copy(),
            kept=tuple(self._kept),
            lost=lost,
            ready_s=self._ready_s,
            first_s=self._first_s,
            cpu_s=self._end[0] - self._begin[0],
            wall_s=self._end[1] - self._begin[1],
            rss_mb=None if end is None or self._rss is None else (self._rss, end),
            extra=extra,
        )


def rss_mb() -> float | None:
    """Return the memory that this process holds now, MB (2^20 bytes); its peak where only that is known."""
    if STATM.exists():
        import resource

        return int(STATM.read_text().split()[1]) * resource.getpagesize() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss: bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
