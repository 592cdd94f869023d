"""The process that pushes: a device that knows when each of its samples left."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from engine.bench.job import CHUNK, PERIOD, Job, noise

PATIENCE_S = 60.0


def push(job: Job, ready: Any, over: Any, answers: Any) -> None:
    """Push on a fixed schedule, each chunk stamped with the moment of its push; answer with those moments.

    Parameters
    ----------
    ready, over : multiprocessing.Event
        Set when the consumer hears the stream, and when it has told: only then may the outlet go.
    answers : multiprocessing.Queue
        Takes ``("up", None)`` once the stream can be found, and ``("pushed", times)`` at the end.
    """
    import pylsl

    stream = job.stream
    outlet = pylsl.StreamOutlet(_info(pylsl, job), chunk_size=CHUNK)
    data = noise(stream.n_chans)
    times = np.zeros(job.pushes)
    answers.put(("up", None))
    if not ready.wait(PATIENCE_S) or not outlet.wait_for_consumers(PATIENCE_S):
        return
    start = time.perf_counter()
    for i in range(job.pushes):
        time.sleep(max(0.0, start + (i + 1) * CHUNK / stream.sfreq - time.perf_counter()))
        times[i] = pylsl.local_clock()
        outlet.push_chunk(data[i % PERIOD], times[i])
    answers.put(("pushed", times))
    over.wait(PATIENCE_S)


def _info(pylsl: Any, job: Job) -> Any:
    stream = job.stream
    info = pylsl.StreamInfo("bench", stream.stype, stream.n_chans, stream.sfreq, "float32", job.source_id)
    channels = info.desc().append_child("channels")
    for name in stream.ch_names:
        channel = channels.append_child("channel")
        channel.append_child_value("label", name)
        channel.append_child_value("unit", "microvolts")
        channel.append_child_value("type", stream.stype)
    return info
