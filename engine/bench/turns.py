"""One system at a time: a fresh outlet, a fresh consumer, some seconds."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.bench.consumers import REFUSED, TOLD, System, run
from engine.bench.job import CHUNK, Job
from engine.bench.meter import Told
from engine.bench.outlet import push
from streamer.errors import StreamLost

UP_S, SLACK_S = 60.0, 90.0  # for the outlet to stand; beyond the job's length, for start-up
Order = TypeVar("Order")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn gave.

    Attributes
    ----------
    job : Job
    told : Told
    pushes : ndarray, shape (n_pushes,), float64
        When the outlet pushed, s on the LSL clock.
    """

    job: Job
    told: Told
    pushes: NDArray[np.float64]

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """From the push of the newest sample to the answer; none where samples were lost.

        Numbers of samples are the consumer's count, which says nothing once one is missing.
        """
        if self.told.lost:
            return np.zeros(0)
        found: NDArray[np.float64] = 1e3 * (self.told.times - self.pushes[(self.told.ends - 1) // CHUNK])
        return found


def rounds(systems: Sequence[Order], n: int) -> Iterator[Sequence[Order]]:
    """Yield the order of each round; over as many rounds as systems, each is once at each place."""
    for i in range(n if systems else 0):
        start = i % len(systems)
        yield [*systems[start:], *systems[:start]]


def take(system: System, job: Job) -> Turn:
    """Let one system do the job; `StreamLost` when it gives no answer.

    Must run within `engine.demo.private_lsl`.
    """
    job = job.over(f"bench-{uuid.uuid4().hex[:8]}")
    context = multiprocessing.get_context("spawn")
    answers, ready, over = context.Queue(), context.Event(), context.Event()
    outlet = context.Process(target=push, args=(job, ready, over, answers), daemon=True)
    jobs = [outlet]
    outlet.start()
    try:
        _wait(answers, jobs, ("up",), UP_S, system.name)
        started = time.monotonic()
        consumer = context.Process(target=run, args=(system, job, started, ready, answers), daemon=True)
        jobs.append(consumer)
        consumer.start()
        limit = job.settle_s + job.seconds + SLACK_S
        heard = _wait(answers, jobs, ("pushed", TOLD), limit, system.name)
    finally:
        over.set()
        for process in jobs:
            process.terminate()
            process.join()
    return Turn(job, heard[TOLD], heard["pushed"])


def _wait(
    answers: Any,
    jobs: Sequence[Any],
    wanted: Sequence[str],
    limit_s: float,
    name: str,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Return one answer of each kind; `StreamLost` on a refusal, a dead process, or when time is up."""
    found: dict[str, Any] = {}
    end = now() + limit_s
    while now() < end:
        with suppress(Empty):
            kind, content = answers.get(timeout=0.2)
            if kind == REFUSED:
                raise StreamLost(f"{name}: {content}")
            found[kind] = content
            if all(kind in found for kind in wanted):
                return found
            continue
        if any(job.exitcode not in (0, None) for job in jobs):
            raise StreamLost(f"{name}: its process died; see its error above, or run `bcistream doctor`.")
    raise StreamLost(f"{name}: no answer within {limit_s:.0f} s; run `bcistream doctor`.")
