"""From turns to figures: values first, then percentiles over all turns, then ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import BackendConfig
from engine.bench.consumers import FLOOR, MNE_LSL, OURS
from engine.bench.job import CHUNK
from engine.bench.turns import Turn
from engine.precision import BARS

PERCENTILES = (50.0, 95.0, 99.0, 99.9)
RATIOS = ("p50", "p99")
TOLERANCE = 1e-4  # of the reference's standard deviation; float32 gives 1e-6, another filter 1e-1
Reference = Callable[[Sequence[int]], Sequence[NDArray[Any]]]


def bar(backend: BackendConfig) -> float:
    """Return how far this backend's answers may be off: what its plan had to reach, or `TOLERANCE`."""
    precision = getattr(backend, "precision", None)
    return TOLERANCE if precision is None else BARS[precision].values


def difference(turn: Turn, reference: Reference) -> float:
    """Return how far the kept answers are from what they should be.

    Parameters
    ----------
    reference : callable
        Given ends, the right answers.

    Returns
    -------
    float
        Largest distance, in standard deviations of the right answer; infinite where nothing was kept or a
        shape is another one.
    """
    kept = turn.told.kept
    if not kept:
        return float(np.inf)
    wanted = reference([end for end, _ in kept])
    apart = [_apart(value, right) for (_, value), right in zip(kept, wanted, strict=True)]
    return max(apart)


def _apart(value: NDArray[Any], right: NDArray[Any]) -> float:
    if value.shape != right.shape:
        return float(np.inf)
    scale = float(right.std()) or 1.0
    return float(np.abs(value.astype(np.float64) - right).max()) / scale


def figures(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return a system's figures over its turns.

    Returns
    -------
    dict
        ``latency_ms``, ``p50_rounds`` (least and largest of the turns), ``n``, ``missed`` (answers later than
        a hop), ``lost`` (samples), ``cpu_percent``, ``rss_mb``, ``growth_mb`` (most over a turn),
        ``startup_s`` (process start to subscribed, and to the first answer, which waits for a window of
        signal), ``outlet_late_ms`` (the bench's own fault: its latest push), and what the consumer adds.
    """
    latencies = [turn.latency_ms for turn in turns]
    all_ms = np.concatenate(latencies)
    told = [turn.told for turn in turns]
    hop_ms = 1e3 * turns[0].job.hop_s
    memory = [one.rss_mb for one in told if one.rss_mb is not None]
    wall = sum(one.wall_s for one in told)
    return {
        "latency_ms": summary(all_ms),
        "p50_rounds": _range([float(np.median(ms)) for ms in latencies if ms.size]),
        "n": int(all_ms.size),
        "missed": int((all_ms > hop_ms).sum()),
        "lost": sum(one.lost for one in told),
        "cpu_percent": round(100 * sum(one.cpu_s for one in told) / wall, 2) if wall else None,
        "rss_mb": round(max(end for _, end in memory), 1) if memory else None,
        "growth_mb": round(max(end - start for start, end in memory), 2) if memory else None,
        "startup_s": {
            "ready": round(float(np.median([one.ready_s for one in told])), 2),
            "first": round(float(np.median([one.first_s for one in told])), 2),
        },
        "outlet_late_ms": round(max(_late_ms(turn) for turn in turns), 2),
        **told[-1].extra,
    }


def summary(ms: NDArray[np.float64]) -> dict[str, float | None]:
    """Return percentiles and the largest of durations in ms; None where there are none."""
    names = [f"p{q:g}" for q in PERCENTILES]
    if not ms.size:
        return dict.fromkeys((*names, "max"))
    found = np.percentile(ms, PERCENTILES, method="higher")
    return {
        **{name: round(float(value), 3) for name, value in zip(names, found, strict=True)},
        "max": round(float(ms.max()), 3),
    }


def _range(values: Sequence[float]) -> list[float] | None:
    return [round(min(values), 3), round(max(values), 3)] if values else None


def _late_ms(turn: Turn) -> float:
    due = turn.pushes[0] + np.arange(len(turn.pushes)) * CHUNK / turn.job.stream.sfreq
    return float(1e3 * (turn.pushes - due).max())


def ratios(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return p50, p99 and CPU of every system against the floor's, and against mne-lsl's where it ran."""
    return {
        base: {
            name: _ratio(one, found[base]) for name, one in found.items() if name != base and name != FLOOR
        }
        for base in (FLOOR, MNE_LSL)
        if base in found
    }


def _ratio(one: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, float]:
    pairs = {name: (one["latency_ms"][name], base["latency_ms"][name]) for name in RATIOS}
    pairs["cpu"] = (one["cpu_percent"], base["cpu_percent"])
    return {name: round(a / b, 2) for name, (a, b) in pairs.items() if a is not None and b}


def beyond(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return what the engine adds to the floor and the model's step, p50, ms, for each of its backends."""
    floor = found.get(FLOOR, {}).get("latency_ms", {}).get("p50")
    if floor is None:
        return {}
    return {
        name: round(one["latency_ms"]["p50"] - floor - one["step_ms"]["p50"], 3)
        for name, one in found.items()
        if name.startswith(OURS)
        and one["latency_ms"]["p50"] is not None
        and one["step_ms"]["p50"] is not None
    }
