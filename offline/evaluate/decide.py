"""Decides anew what was played once: `decide`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.decision import Decider, DecisionSettings
from engine.framer import Frame
from offline.evaluate.played import Played

HOLE_HOPS = 1.5  # decisions further apart lie on either side of a hole
Labels = NDArray[np.int64]


def decide(played: Played, settings: DecisionSettings, classes: Sequence[str], idle: str | None) -> Labels:
    """Return the labels, (n,), that other settings give to the same hops; -1 for none."""
    decider = Decider(settings, tuple(classes), idle, 1.0, played.hop_s)
    places: dict[str | None, int] = {None: -1} | {name: place for place, name in enumerate(classes)}
    holes = set((np.flatnonzero(np.diff(played.times) > HOLE_HOPS * played.hop_s) + 1).tolist())
    labels = np.empty(len(played), dtype=np.int64)
    for i, (time, valid) in enumerate(zip(played.times.tolist(), played.valid.tolist(), strict=True)):
        if i in holes:
            decider.reset()  # as the pipeline does
        labels[i] = places[decider.step(played.log_probs[i], Frame(i, time, 0.0, warm=valid)).label]
    return labels
