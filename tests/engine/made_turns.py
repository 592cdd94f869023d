"""Turns of the bench that nobody took: made up from a latency."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from engine.bench.job import CHUNK, STREAMS, Job, expected
from engine.bench.meter import Told
from engine.bench.turns import Turn

JOB = Job(STREAMS["eeg-8"], seconds=2.0, settle_s=4.0)


def made(
    latency_ms: Any = 1.0, *, job: Job = JOB, lost: int = 0, cpu: float = 0.02, shift: int = 0, **extra: Any
) -> Turn:
    """Return a turn whose every window came ``latency_ms`` after its push; ``shift`` spoils the values."""
    stream = job.stream
    pushes = 100.0 + np.arange(job.pushes) * CHUNK / stream.sfreq
    ends = np.arange(job.settled + stream.hop, job.samples + 1, stream.hop)
    late = np.broadcast_to(np.asarray(latency_ms, dtype=float), ends.shape) / 1e3
    last = int(ends[-1])
    told = Told(
        ends=ends,
        times=pushes[(ends - 1) // CHUNK] + late,
        kept=((last, expected(stream, [last - shift])[0]),),
        lost=lost,
        ready_s=1.5,
        first_s=3.5,
        cpu_s=cpu * job.seconds,
        wall_s=job.seconds,
        rss_mb=(100.0, 101.5),
        extra=extra,
    )
    return Turn(job, told, pushes)


def without_kept(turn: Turn) -> Turn:
    """Return the turn of a consumer that kept no answer."""
    return replace(turn, told=replace(turn.told, kept=()))
