"""Counters and latency histograms of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from streamer.types import Decision

FLOOR_MS = 1e-3
PER_DECADE = 100  # bins 2.3 % wide: finer than the run-to-run spread of any latency seen
EARLY_S = 0.01  # a resampled grid may stamp up to one sample of the device ahead
DECADES = 8  # 1 µs to 100 s


class Histogram:
    """Durations in logarithmic bins: constant memory however long the run, no allocation per entry."""

    def __init__(self) -> None:
        self._bins = np.zeros(PER_DECADE * DECADES + 1, dtype=np.int64)
        self.n = 0
        self.max_ms = 0.0

    def add(self, ms: float) -> None:
        """Count one duration in milliseconds; below 1 µs counts as 1 µs."""
        position = PER_DECADE * math.log10(max(ms, FLOOR_MS) / FLOOR_MS)
        self._bins[min(int(position), len(self._bins) - 1)] += 1
        self.n += 1
        self.max_ms = max(self.max_ms, ms)

    def percentile(self, q: float) -> float:
        """Return the upper edge of the bin that holds percentile ``q`` (0 to 100), ms; NaN when empty."""
        if not self.n:
            return math.nan
        rank = max(1, math.ceil(self.n * q / 100))
        position = int(np.searchsorted(np.cumsum(self._bins), rank))
        return float(min(FLOOR_MS * 10 ** ((position + 1) / PER_DECADE), self.max_ms))

    def summary(self) -> dict[str, float | None]:
        """Return p50, p95, p99, p99.9 and max in ms; None where nothing was counted."""
        if not self.n:
            return dict.fromkeys(("p50", "p95", "p99", "p99.9", "max"))
        quantiles = {f"p{q:g}": round(self.percentile(q), 4) for q in (50, 95, 99, 99.9)}
        return {**quantiles, "max": round(self.max_ms, 4)}


@dataclass(slots=True)
class Telemetry:
    """What a run counts.

    Attributes
    ----------
    latency : Histogram
        Stamp of the newest sample used to the moment after every sink had the decision.
    compute : Histogram
        Time in DSP, model and decision, per chunk that gave a decision.
    decisions, labelled, invalid : int
        All decisions; those with a label; those rejected (warm-up or bad signal).
    stalls : int
        How often nothing came for the stall limit.
    late : int
        Decisions that left more than a hop after their newest sample: missed deadlines.
    early : int
        Decisions stamped more than `EARLY_S` later than they left: stamps run ahead of the clock.
    hop_s : float
        Seconds between decisions.
    """

    hop_s: float

    latency: Histogram = field(default_factory=Histogram)
    compute: Histogram = field(default_factory=Histogram)
    decisions: int = 0
    labelled: int = 0
    invalid: int = 0
    stalls: int = 0
    late: int = 0
    early: int = 0

    def emitted(self, decision: Decision, now: float) -> None:
        """Count a decision that left at ``now``, s on the LSL clock."""
        self.decisions += 1
        self.labelled += decision.label is not None
        self.invalid += not decision.valid
        latency = now - decision.time
        self.late += latency > self.hop_s
        self.early += latency < -EARLY_S
        self.latency.add(latency * 1e3)

    def computed(self, seconds: float) -> None:
        """Count the time that one chunk with a decision took."""
        self.compute.add(seconds * 1e3)
