"""`bcistream bench`: how long from push to decision on this machine, beside the least any program could take.

Three processes: an outlet that pushes chunks of noise and stamps them with the time of the push; a
hand-written pylsl loop (band-pass, notch, a 2-s window every 100 ms, nothing else), the *floor*; and the
engine with a bundle.  Both listen to the same outlet at the same time, so both meet the same machine.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bundle import load
from engine.config import parse
from engine.demo import private_lsl
from engine.live import Observer, run_config
from engine.telemetry import Histogram
from streamer.errors import BciError, StreamLost
from streamer.sources import Source, SourceConfig
from streamer.types import Chunk, Decision

CHUNK = 10  # samples a push, as BENCHMARKS §1 has it
SETTLE_S = 5.0  # not counted: discovery, first decisions, caches
CONNECT_S = 2.0
REFUSED = "refused"


def bench(seconds: float, sfreq: float, bundle: str, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure the engine and the floor for ``seconds`` on one stream with the bundle's own channels.

    Returns
    -------
    dict
        ``bcistream`` and ``floor``: latency from push to decision (or window) in ms, CPU in percent of one
        core, decisions; ``ratio`` of the two; the algorithmic delay, which comes on top; the machine.
    """
    loaded = load(bundle)
    _ = loaded.readout  # refuses a bundle for another command before anything is started
    names = loaded.manifest.input.ch_names
    say(f"{seconds:g} s of {len(names)} channels at {sfreq:g} Hz, in pushes of {CHUNK} samples")
    source_id = f"bench-{uuid.uuid4().hex[:8]}"
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with private_lsl():
        jobs = [
            context.Process(target=push, args=(source_id, names, sfreq, seconds), daemon=True),
            context.Process(target=floor, args=(source_id, seconds, answers), daemon=True),
            context.Process(target=engine, args=(source_id, bundle, sfreq, seconds, answers), daemon=True),
        ]
        for job in jobs:
            job.start()
        try:
            found = dict(_answer(answers, jobs, seconds) for _ in range(2))
        finally:
            for job in jobs:
                job.terminate()
                job.join()
    return _compared(found) | {
        "machine": machine(),
        "seconds": seconds,
        "sfreq": sfreq,
        "n_chans": len(names),
    }


def machine() -> dict[str, Any]:
    """Return what a figure measured here depends on."""
    from importlib.metadata import version

    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "pylsl", "onnxruntime")},
    }


def push(source_id: str, names: tuple[str, ...], sfreq: float, seconds: float) -> None:
    """Push noise on a fixed schedule, each chunk stamped with the moment of its push."""
    import pylsl

    info = pylsl.StreamInfo("bench", "EEG", len(names), sfreq, "float32", source_id)
    channels = info.desc().append_child("channels")
    for name in names:
        channel = channels.append_child("channel")
        channel.append_child_value("label", name)
        channel.append_child_value("unit", "microvolts")
        channel.append_child_value("type", "EEG")
    outlet = pylsl.StreamOutlet(info, chunk_size=CHUNK)
    outlet.wait_for_consumers(30.0)
    time.sleep(CONNECT_S)  # both listeners have found the stream by now
    noise = np.random.default_rng(0).normal(scale=10.0, size=(64, CHUNK, len(names))).astype(np.float32)
    start = time.perf_counter()
    for i in range(math.ceil((seconds + SETTLE_S) * sfreq / CHUNK)):
        time.sleep(max(0.0, start + (i + 1) * CHUNK / sfreq - time.perf_counter()))
        outlet.push_chunk(noise[i % len(noise)], pylsl.local_clock())
    time.sleep(CONNECT_S)


def floor(source_id: str, seconds: float, answers: Any) -> None:
    """Run the least that hands on a filtered window: what everything else is compared with."""
    import pylsl
    from scipy import signal

    (found,) = pylsl.resolve_byprop("source_id", source_id, timeout=30.0)
    inlet = pylsl.StreamInlet(found, max_buflen=4, recover=False)
    inlet.open_stream(timeout=10.0)
    sfreq, n_chans = found.nominal_srate(), found.channel_count()
    notch = signal.tf2sos(*signal.iirnotch(50, 30, sfreq))
    sos = np.concatenate([signal.butter(4, [4, 38], "bandpass", fs=sfreq, output="sos"), notch])
    state = np.zeros((len(sos), 2, n_chans))
    ring = np.zeros((2, round(2 * sfreq), n_chans))  # mirrored: any window is one slice
    size, hop = ring.shape[1], round(0.1 * sfreq)
    flat = ring.reshape(2 * size, n_chans)
    latency, n, due = Histogram(), 0, hop
    cpu = None
    while n < (seconds + SETTLE_S) * sfreq - CHUNK:
        data, stamps = inlet.pull_chunk(timeout=1.0, max_samples=64, min_samples=1, as_numpy=True)
        if not len(stamps):
            continue
        rows, state = signal.sosfilt(sos, data, axis=0, zi=state)
        for row in rows:
            flat[n % size] = flat[n % size + size] = row
            n += 1
        if n >= due:
            due += hop
            window = flat[n % size : n % size + size]
            if n > SETTLE_S * sfreq and len(window):
                cpu = time.process_time() if cpu is None else cpu
                latency.add(1e3 * (pylsl.local_clock() - stamps[-1]))
    answers.put(("floor", _figures(latency, time.process_time() - (cpu or 0.0), seconds)))


class Tap:
    """Opens a source and keeps what its chunks are stamped with, before the clock smooths it."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self.stamps: list[NDArray[np.float64]] = []

    def open(self) -> Source:
        """Return the source, tapped."""
        opened = self._config.open()
        read = opened.read

        def tapped(timeout_s: float) -> Chunk | None:
            chunk = read(timeout_s)
            if chunk is not None and len(chunk):
                self.stamps.append(chunk.times.copy())
            return chunk

        opened.read = tapped  # type: ignore[method-assign]
        return opened


def engine(source_id: str, bundle: str, sfreq: float, seconds: float, answers: Any) -> None:
    """Answer with the engine's figures, or with why there are none."""
    try:
        answers.put(("bcistream", _decode(source_id, bundle, sfreq, seconds)))
    except BciError as error:
        answers.put((REFUSED, {"message": str(error)}))


def _decode(source_id: str, bundle: str, sfreq: float, seconds: float) -> dict[str, Any]:
    """Run the engine as a live session would; the time of a decision is when a sink has it."""
    from pylsl import local_clock

    raw = {"source": {"kind": "lsl", "source_id": source_id, "timeout_s": 30.0}, "bundle": bundle}
    config = parse(raw, "bench")
    tap = Tap(config.source)
    config = config.model_copy(update={"source": tap})
    heard: list[tuple[int, float]] = []
    started = [0.0, 0.0]

    def hear(decision: Decision) -> None:
        now = local_clock()
        heard.append((decision.index, now))
        if len(heard) == 1:
            started[:] = [now, time.process_time()]

    report = run_config(config, seconds=seconds + SETTLE_S + 3 * CONNECT_S, extra=Observer(hear))
    cpu, wall = time.process_time() - started[1], heard[-1][1] - started[0]
    pushed = np.concatenate(tap.stamps)
    latency = Histogram()
    rate = load(bundle).manifest.input.sfreq
    for index, now in heard:
        newest = math.floor(index * sfreq / rate)
        last = newest - newest % CHUNK + CHUNK - 1  # the push that brought it
        if newest > SETTLE_S * sfreq and last < len(pushed):
            latency.add(1e3 * (now - pushed[last]))
    figures = _figures(latency, cpu, wall)
    spoilt = {key: report[key] for key in ("samples_lost", "repaired", "dropped", "resets") if report[key]}
    if spoilt:
        raise StreamLost(f"The stream had holes ({spoilt}): these latencies would be wrong. Run it again.")
    figures["samples_lost"] = report["samples_lost"]
    figures["compute_ms"] = report["compute_ms"]
    figures["algorithmic_delay"] = report["algorithmic_delay"]
    figures["decisions_per_s"] = report["decisions_per_s"]
    return figures


def _figures(latency: Histogram, cpu_s: float, wall_s: float) -> dict[str, Any]:
    return {
        "latency_ms": latency.summary(),
        "n": latency.n,
        "cpu_percent": round(100 * cpu_s / wall_s, 2),
        "rss_mb": _rss_mb(),
    }


def _rss_mb() -> float | None:
    """Return the most memory this process held; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _answer(answers: Any, jobs: Sequence[Any], seconds: float) -> tuple[str, dict[str, Any]]:
    """Wait for a process's figures; `StreamLost` when one of them died or time is long up."""
    end = time.monotonic() + seconds + SETTLE_S + 60.0
    while time.monotonic() < end:
        with suppress(Empty):
            answer: tuple[str, dict[str, Any]] = answers.get(timeout=0.5)
            if answer[0] == REFUSED:
                raise StreamLost(answer[1]["message"])
            return answer
        if any(job.exitcode not in (0, None) for job in jobs):
            break
    raise StreamLost("A bench process gave no answer: see its error above, or run `bcistream doctor`.")


def _compared(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    ours, least = found["bcistream"], found["floor"]
    ratio = {
        name: round(ours["latency_ms"][name] / least["latency_ms"][name], 2) for name in ("p50", "p95", "p99")
    }
    return {**found, "ratio": {**ratio, "cpu": round(ours["cpu_percent"] / least["cpu_percent"], 2)}}
