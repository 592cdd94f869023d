"""Counters and latency histograms of a run."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from streamer.types import Decision

FLOOR_MS = 1e-3
PER_DECADE = 100  # bins 2.3 % wide: finer than the run-to-run spread of any latency seen
EARLY_S = 0.01  # a resampled grid may stamp up to one sample of the device ahead
DECADES = 8  # 1 µs to 100 s
In = TypeVar("In", contravariant=True)


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
class Timing(ABC, Generic[In]):
    """How long results took, whatever they are.

    Attributes
    ----------
    latency : Histogram
        Stamp of the newest sample used to the moment after every sink had the result.
    compute : Histogram
        Time in DSP, model and what follows it, per chunk that gave a result.
    stalls : int
        How often nothing came for the stall limit.
    late : int
        Results that left more than a hop after their newest sample: missed deadlines.
    early : int
        Results stamped more than `EARLY_S` later than they left: stamps run ahead of the clock.
    hop_s : float
        Seconds between results.
    """

    hop_s: float

    latency: Histogram = field(default_factory=Histogram)
    compute: Histogram = field(default_factory=Histogram)
    stalls: int = 0
    late: int = 0
    early: int = 0

    @abstractmethod
    def emitted(self, item: In, now: float) -> None:
        """Count a result that left at ``now``, s on the LSL clock."""

    def left(self, stamp: float, now: float) -> None:
        """Count a result with this stamp that left at ``now``, both s on the LSL clock."""
        latency = now - stamp
        self.late += latency > self.hop_s
        self.early += latency < -EARLY_S
        self.latency.add(latency * 1e3)

    def computed(self, seconds: float) -> None:
        """Count the time that one result took."""
        self.compute.add(seconds * 1e3)


@dataclass(slots=True)
class Telemetry(Timing[Decision]):
    """What a run of decisions counts.

    Attributes
    ----------
    decisions, labelled, invalid : int
        All decisions; those with a label; those rejected (warm-up or bad signal).
    """

    decisions: int = 0
    labelled: int = 0
    invalid: int = 0

    def emitted(self, item: Decision, now: float) -> None:
        """Count a decision that left at ``now``, s on the LSL clock."""
        self.decisions += 1
        self.labelled += item.label is not None
        self.invalid += not item.valid
        self.left(item.time, now)


class Stamped(Protocol):
    """A result with the stamp of its newest sample."""

    @property
    def time(self) -> float:
        """Seconds on the local LSL clock."""

    @property
    def valid(self) -> bool:
        """Whether the signal under it is sound."""


@dataclass(slots=True)
class FrameCounts(Timing[Stamped]):
    """What a session of codes or of decoded signal counts.

    Attributes
    ----------
    frames, invalid : int
        All frames; those that rest on repaired or bad signal.
    """

    frames: int = 0
    invalid: int = 0

    def emitted(self, item: Stamped, now: float) -> None:
        """Count a frame that left at ``now``, s on the LSL clock."""
        self.frames += 1
        self.invalid += not item.valid
        self.left(item.time, now)
