"""Subjects spread over processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from offline.data import shard_writer
from offline.data.shard_index import Sidecar
from offline.data.shard_writer import Job
from streamer.errors import RecordingError


def run_all(jobs: Sequence[Job], workers: int) -> Iterator[Sidecar]:
    """Yield what became of each subject, in the order in which they are ready.

    Raises
    ------
    RecordingError
        A worker was killed.
    """
    if workers == 1 or len(jobs) < 2:
        yield from map(shard_writer.run, jobs)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), _context(), initializer=_begin_worker)
    try:
        waiting: list[Future[Sidecar]] = [pool.submit(shard_writer.run, job) for job in jobs]
        for future in as_completed(waiting):
            yield future.result()
    except BrokenProcessPool as error:
        raise RecordingError(
            "A worker process was killed, most likely for want of memory: the same command with fewer "
            "--workers goes on from there."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """Return how workers start: not as a fork of this process, which would copy its threads' locks."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["offline.data.shard_writer", "webdataset.writer"])  # seconds, once
    return context


def _begin_worker() -> None:
    """Die at once at Ctrl-C, as the shell's default is: whatever is half done is done again."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
