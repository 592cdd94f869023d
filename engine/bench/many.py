"""How many streams one core carries: `engine.many` over synthetic signal, as fast as it can.

What is measured is everything from a chunk to a decision: quality checks, unit, montage, rate, the bundle's
DSP list, framing, the batched step and the decision stage.  Acquisition is not in it: a reader of a stream
costs what its transport does.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import BackendConfig
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bench.figures import bar
from engine.bundle import Bundle
from engine.many import Many
from engine.pipeline import Pipeline
from streamer.dsp.quality import Config as Quality
from streamer.errors import BundleError
from streamer.types import Chunk, Decision, StreamInfo, make_chunk

COUNTS = (1, 10, 50, 100, 200)
N_CHANS, SFREQ = 8, 250.0  # channels: or as many as the bundle asks for, if those are more
SIGNALS = 16  # different ones; streams share them, so that memory is not what is measured
NOISE_UV = 20.0


def streams_per_core(
    bundle: Bundle,
    counts: Sequence[int] = COUNTS,
    *,
    seconds: float = 10.0,
    settle_s: float = 5.0,
    backend: BackendConfig | None = None,
) -> list[dict[str, Any]]:
    """Measure what streams as `fed` tells of them cost, so many at a time, in chunks of a hop.

    Before it is timed each stream's decisions are compared with those of a pipeline of its own: one row and
    many multiply in another order.

    Parameters
    ----------
    seconds : float
        Of signal, timed.
    settle_s : float
        Of signal before that, compared.
    backend : BackendConfig, optional
        ONNX Runtime by default.

    Returns
    -------
    list of dict
        For each count: ``streams``; ``cpu_s_per_s_of_signal``, of all of them together; ``step_ms``, of one
        batched step; ``per_stream_us``, of one stream and decision; ``per_core``, how many such streams
        would take all of a core; ``worst_difference`` of a probability from the single pipeline's.

    Raises
    ------
    BundleError
        The bundle takes one stream at a time, or its decisions differ by more than the backend's `bar`.
    """
    config = backend or OnnxRuntime()
    info, hop_s = _info(bundle), bundle.manifest.graph.hop / bundle.manifest.input.sfreq
    rows = max(1, round(hop_s * SFREQ))  # of a chunk
    n_settle, n_timed = (round(span * SFREQ / rows) for span in (settle_s, seconds))
    signals = [_chunks(seed, info.n_chans, rows, n_settle + n_timed) for seed in range(SIGNALS)]
    with config.open(bundle.batched(1)) as one:
        wanted = [_alone(Pipeline(bundle, one, info, quality=Quality()), s[:n_settle]) for s in signals]
    found = []
    for n in counts:
        with config.open(bundle.batched(n)) as many:
            streams = Many(bundle, many, [info] * n, quality=Quality())
            worst = _compared(streams, [signal[:n_settle] for signal in signals], wanted, bar(config))
            figures = _timed(streams, [signal[n_settle:] for signal in signals])
        found.append({"streams": n, **figures, "worst_difference": worst})
    return found


def fed(bundle: Bundle) -> dict[str, Any]:
    """Return how many channels each stream has, how many the bundle adds to them, and both in words."""
    n, wanted = _info(bundle).n_chans, len(bundle.manifest.input.ch_names)
    rest = f"; {wanted - n} more of the bundle's interpolated" if wanted > n else ""
    words = f"{n} channels at {SFREQ:g} Hz a stream{rest}; acquisition not included"
    return {"stream": words, "channels": n, "interpolated": wanted - n}


def _timed(many: Many, signals: Sequence[Sequence[Chunk]]) -> dict[str, float]:
    """Return what one pass over the signals costs in processor time."""
    n, signal_s = len(many.pipelines), sum(map(len, signals[0])) / SFREQ
    gc.collect()
    gc.freeze()
    started = time.process_time()
    n_decisions = sum(1 for _ in _fed(many, signals))
    cpu_s = time.process_time() - started
    gc.unfreeze()
    return {
        "cpu_s_per_s_of_signal": round(cpu_s / signal_s, 4),
        "step_ms": round(_step_ms(many), 3),
        "per_stream_us": round(1e6 * cpu_s / n_decisions, 1),
        "per_core": round(n * signal_s / cpu_s, 1),
    }


def _step_ms(many: Many, times: int = 20) -> float:
    """Return the processor time of one batched step, ms; moves the state of every stream."""
    started = time.process_time()
    for _ in range(times):
        many.runner.step()
    return 1e3 * (time.process_time() - started) / times


def _compared(
    many: Many,
    signals: Sequence[Sequence[Chunk]],
    wanted: Sequence[Sequence[Decision]],
    tolerance: float,
) -> float:
    """Return by how much a probability differs from the single pipeline's at most."""
    heard: list[list[Decision]] = [[] for _ in many.pipelines]
    for stream, decision in _fed(many, signals):
        heard[stream].append(decision)
    worst = 0.0
    for stream, decisions in enumerate(heard):
        alone = wanted[stream % SIGNALS]
        difference = np.abs(_probabilities(decisions) - _probabilities(alone)).max(initial=0.0)
        if [d.index for d in decisions] != [d.index for d in alone] or not difference <= tolerance:
            raise BundleError(
                f"Stream {stream} of {len(heard)} decides otherwise than alone (by {difference:.1e}): not "
                "timed."
            )
        worst = max(worst, float(difference))
    return worst


def _probabilities(decisions: Sequence[Decision]) -> NDArray[np.float64]:
    return np.array([decision.probabilities for decision in decisions])


def _alone(pipeline: Pipeline, signal: Sequence[Chunk]) -> list[Decision]:
    return [decision for chunk in signal for decision in pipeline.process(chunk)]


def _fed(many: Many, signals: Sequence[Sequence[Chunk]]) -> Iterator[tuple[int, Decision]]:
    """Feed every stream its chunks tick by tick; yield the decisions."""
    for tick in range(len(signals[0])):
        for stream in range(len(many.pipelines)):
            many.push(stream, signals[stream % SIGNALS][tick], 0.0)
        yield from many.step(0.0)


def _info(bundle: Bundle) -> StreamInfo:
    """Return a headset of 8 channels, or of as many as the bundle can do with."""
    contract = bundle.manifest.input
    names = contract.ch_names[: max(N_CHANS, contract.min_present)]
    types = (contract.stype.lower(),) * len(names)
    return StreamInfo("headset", "", contract.stype, SFREQ, names, types, contract.unit)


def _chunks(seed: int, n_chans: int, rows: int, n: int) -> list[Chunk]:
    """Return noise in ``n`` chunks of so many rows."""
    rng = np.random.default_rng(seed)
    return [
        make_chunk(
            rng.normal(0, NOISE_UV, (rows, n_chans)).astype(np.float32),
            k * rows,
            np.arange(k * rows, (k + 1) * rows) / SFREQ,
        )
        for k in range(n)
    ]
