"""The engine with a bundle: from push to the decision in a sink, as `bcistream run` drives it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.backends import Arrays, Backend, BackendConfig, Running
from engine.bench.meter import Meter, Told
from engine.bundle import Bundle, load
from engine.config import parse
from engine.live import Observer, run_config
from engine.telemetry import Histogram
from streamer.types import Decision

GRACE_S = 10.0  # beyond the job's own length, before a run that hears too little is ended


class Timed:
    """Opens a backend and times its steps."""

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self.steps = Histogram()

    def open(self, bundle: Bundle) -> Backend:
        """Return the backend, its steps timed."""
        opened = self._config.open(bundle)
        runner = opened.runner
        opened.runner = lambda: TimedRunner(runner(), self.steps)  # type: ignore[method-assign]
        return opened


class TimedRunner:
    """A runner whose steps are timed, wherever its state lies; those of its warm-up are not."""

    def __init__(self, runner: Running, steps: Histogram) -> None:
        self.input = runner.input
        self.warm_up, self.reset = runner.warm_up, runner.reset
        self.snapshot, self.restore = runner.snapshot, runner.restore
        self._step, self._steps = runner.step, steps

    def step(self, hold: Sequence[int] = ()) -> Arrays:
        """Run one hop over `input`, as the runner does."""
        start = time.perf_counter()
        outputs = self._step(hold)
        self._steps.add(1e3 * (time.perf_counter() - start))
        return outputs


def consume(meter: Meter, bundle: str, backend: Mapping[str, Any]) -> Told:
    """Run until the decision on the last sample is there."""
    job = meter.job
    source = {"kind": "lsl", "source_id": job.source_id, "timeout_s": 30.0}
    config = parse({"source": source, "bundle": bundle, "backend": dict(backend)}, "bench")
    timed = Timed(config.backend)
    config = config.model_copy(update={"backend": timed})
    manifest = load(bundle).manifest
    ratio = job.stream.sfreq / manifest.input.sfreq
    last = job.samples - math.ceil(manifest.graph.hop * ratio)
    stop, subscribed = threading.Event(), threading.Event()

    def hear(decision: Decision) -> None:
        end = math.floor(decision.index * ratio) + 1  # its newest sample, on the outlet's own grid
        if decision.valid:
            meter.answer(end, np.array(decision.probabilities))
        if end > last:
            stop.set()

    def say(line: str) -> None:
        if not subscribed.is_set():  # the first line comes when the feed runs
            subscribed.set()
            meter.ready()

    seconds = job.settle_s + job.seconds + GRACE_S
    report = run_config(config, seconds=seconds, say=say, extra=Observer(hear), stop=stop)
    lost = report["samples_lost"] + report["repaired"] + report["dropped"]
    delays = report["algorithmic_delay"]
    return meter.told(
        lost if stop.is_set() else max(lost, 1),
        algorithmic_delay_ms={key.removesuffix("_ms"): value for key, value in delays.items()},
        step_ms=timed.steps.summary(),
        compute_ms=report["compute_ms"],
        backend=report["backend"],
    )
