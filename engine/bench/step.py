"""A step against computing its window again, with the engine alone.

A bundle holds the step graph and nothing else, so what can be run again here is that graph, hop by hop from
an empty state over the whole left context.  That is what a consumer without a carried state would have to do
with this bundle.  It is not the fair rival: a graph of the whole window at once is cheaper, and exporting it
needs torch.  `bcitrain cost RECIPE` builds it and measures that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import BackendConfig, Running
from engine.bench.figures import summary
from engine.bundle import Bundle

FAIR = "bcitrain cost RECIPE"
AGREE = 1e-4  # of the outputs' size; float32 in another order gives 1e-6


def measure(
    bundle: Bundle,
    backend: BackendConfig,
    *,
    seconds: float = 5.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time both in turn, after comparing what they put out.

    Returns
    -------
    dict
        ``step_ms`` and ``recompute_ms`` (percentiles), ``hops`` that the window holds, ``x`` (ratio of the
        means: what else runs here delays both in proportion), ``difference`` of their outputs relative to
        their size, ``same`` (whether that is nothing: a model that remembers for ever differs), and where to
        get the fair figure.
    """
    graph = bundle.manifest.graph
    hops = 1 + math.ceil(graph.left_context / graph.hop)
    with backend.open(bundle) as opened:
        runner = opened.runner()
        noise = _noise(runner, 2 * hops)
        apart = difference(runner, noise, hops)
        step_ms, again_ms = _clock(runner, noise, hops, seconds, clock)
        name = opened.name
    again, step = summary(np.array(again_ms)), summary(np.array(step_ms))
    return {
        "backend": name,
        "hops": hops,
        "difference": float(f"{apart:.1e}"),
        "same": apart <= AGREE,
        "step_ms": step,
        "recompute_ms": again,
        "x": round(float(np.mean(again_ms) / np.mean(step_ms)), 1),
        "fair": FAIR,
    }


def _noise(runner: Running, n: int) -> NDArray[np.float32]:
    shape = (n, *runner.input.shape)
    drawn: NDArray[np.float32] = np.random.default_rng(0).normal(scale=10.0, size=shape).astype(np.float32)
    return drawn


def difference(runner: Running, noise: NDArray[np.float32], hops: int) -> float:
    """Return how far the last outputs after ``hops`` hops from an empty state are from those after all."""
    return max(
        _apart(a, b) for a, b in zip(_outputs(runner, noise), _outputs(runner, noise[-hops:]), strict=True)
    )


def _outputs(runner: Running, noise: NDArray[np.float32]) -> list[NDArray[Any]]:
    outputs = _again(runner, noise)
    return [array.astype(np.float64) for array in outputs.values()]


def _apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.abs(a - b).max(initial=0.0)) / max(1.0, float(np.abs(b).max(initial=0.0)))


def _again(runner: Running, noise: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Run hops from an empty state; return the last outputs."""
    runner.reset()
    for hop in noise:
        runner.input[:] = hop
        outputs = runner.step()
    return outputs


def _clock(
    runner: Running, noise: NDArray[np.float32], hops: int, seconds: float, clock: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Return durations in ms: as many steps as a window holds, then that window again, until time is up."""
    step_ms: list[float] = []
    again_ms: list[float] = []
    end = clock() + seconds
    while not again_ms or clock() < end:
        for hop in noise[:hops]:
            start = clock()
            runner.input[:] = hop
            runner.step()
            step_ms.append(1e3 * (clock() - start))
        start = clock()
        _again(runner, noise[-hops:])
        again_ms.append(1e3 * (clock() - start))
    return step_ms, again_ms
