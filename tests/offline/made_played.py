"""Recordings of people that were never recorded, and what a decoder that never was said about them."""

from __future__ import annotations

from typing import Any

import numpy as np

from offline.evaluate.played import Played
from streamer.types import Marker

CLASSES = ("rest", "left_fist", "right_fist")
HOP_S = 0.1


def made(
    markers: list[Marker],
    said: dict[tuple[float, float], str] | None = None,
    *,
    duration_s: float = 20.0,
    sure: float = 0.8,
    **other: Any,
) -> Played:
    """Say the class of the span that each hop falls into, else rest, with this probability."""
    times = np.round(np.arange(1, round(duration_s / HOP_S) + 1) * HOP_S, 6)
    places = [
        CLASSES.index(next((name for (a, b), name in (said or {}).items() if a < time <= b), "rest"))
        for time in times
    ]
    probabilities = np.full((len(times), 3), (1 - sure) / 2)
    probabilities[np.arange(len(times)), places] = sure
    fields = {
        "subject": "S1",
        "name": "one",
        "times": times,
        "log_probs": np.log(probabilities).astype(np.float32),
        "valid": np.ones(len(times), dtype=bool),
        "labels": np.array([place or -1 for place in places]),
        "markers": tuple(markers),
        "duration_s": duration_s,
    }
    return Played(**{**fields, **other})
