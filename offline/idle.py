"""How a decoder does when nobody asks: idle time, false activations, time to decide ("pseudo-online")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bundle import Readout
from engine.decision import Decider
from engine.framer import Frame
from streamer.types import Decision, Marker

SETTLE_S = 0.5  # after each marker nobody has begun, or stopped, yet
THRESHOLDS = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
Session = tuple[Sequence[Decision], Sequence[Marker]]
Labels = list[str | None]


def idle_figures(sessions: Sequence[Session], readout: Readout, hop_s: float) -> dict[str, Any]:
    """Return the figures of live use over continuous recordings.

    ``hop_balanced_accuracy``: every valid decision against what was asked for at that moment, classes
    weighted alike, the first 0.5 s after each marker left out.  ``hits``, ``wrong_side``,
    ``false_activations_per_min`` and ``median_time_to_decision_s`` come from the labels as put out, and
    ``curve`` repeats them with other thresholds of the decision stage.
    """
    published = [[d.label for d in decisions] for decisions, _ in sessions]
    curve = [
        {
            "threshold": threshold,
            **_activations(sessions, _decided(sessions, readout, threshold, hop_s), readout),
        }
        for threshold in THRESHOLDS
    ]
    return {
        "hop_balanced_accuracy": _hop_balanced(sessions, readout.classes),
        **_activations(sessions, published, readout),
        "curve": curve,
    }


def _hop_balanced(sessions: Sequence[Session], classes: Sequence[str]) -> float | None:
    every = [decision for decisions, _ in sessions for decision in decisions]
    found = np.array([int(np.argmax(d.probabilities)) for d in every])
    truth = np.concatenate([_truth(decisions, markers, classes) for decisions, markers in sessions])
    shares = [float(np.mean(found[truth == k] == k)) for k in range(len(classes)) if (truth == k).any()]
    return round(float(np.mean(shares)), 4) if shares else None


def _truth(
    decisions: Sequence[Decision], markers: Sequence[Marker], classes: Sequence[str]
) -> NDArray[np.int64]:
    """Return the class asked for at each decision; -1 where none is, it has just changed, or not valid."""
    truth = np.full(len(decisions), -1)
    stamps = np.array([d.time for d in decisions])
    valid = np.array([d.valid for d in decisions], dtype=bool)
    for marker in markers:
        if marker.label in classes:
            inside = (stamps > marker.time + SETTLE_S) & (stamps <= marker.time + marker.duration)
            truth[inside & valid] = list(classes).index(marker.label)
    return truth


def _decided(sessions: Sequence[Session], readout: Readout, threshold: float, hop_s: float) -> list[Labels]:
    """Return the labels that the decision stage gives to the published probabilities at this threshold."""
    release = min(readout.decision.release, threshold)
    settings = {"smoothing_s": 0.0, "threshold": threshold, "release": release}  # already smoothed
    config = readout.decision.model_copy(update=settings)
    labels = []
    for decisions, _ in sessions:
        decider = Decider(config, readout.classes, readout.idle, 1.0, hop_s)
        logits = np.log(np.maximum([d.probabilities for d in decisions], 1e-9)).astype(np.float32)
        frames = [Frame(d.index, d.time, 0.0, warm=d.valid) for d in decisions]
        labels.append([decider.step(*pair).label for pair in zip(logits, frames, strict=True)])
    return labels


def _activations(
    sessions: Sequence[Session], labels: Sequence[Labels], readout: Readout
) -> dict[str, float | None]:
    """Count each beginning of a label: a hit, the wrong side, or false while idle was asked for."""
    hits = wrong = cues = false = 0
    idle_s, delays = 0.0, []
    for (decisions, markers), said in zip(sessions, labels, strict=True):
        begun = _beginnings(decisions, said)
        for marker in markers:
            inside = [(t, name) for t, name in begun if marker.time < t <= marker.time + marker.duration]
            if marker.label == readout.idle:
                false += len(inside)
                idle_s += marker.duration
            elif marker.label in readout.classes:
                cues += 1
                if inside:
                    hits += inside[0][1] == marker.label
                    wrong += inside[0][1] != marker.label
                    delays.append(inside[0][0] - marker.time)
    return {
        "hits": round(hits / cues, 4) if cues else None,
        "wrong_side": round(wrong / cues, 4) if cues else None,
        "false_activations_per_min": round(60 * false / idle_s, 3) if idle_s else None,
        "median_time_to_decision_s": round(float(np.median(delays)), 3) if delays else None,
    }


def _beginnings(decisions: Sequence[Decision], said: Labels) -> list[tuple[float, str]]:
    """Return when each label began, and which."""
    before = [None, *said[:-1]]
    return [
        (decision.time, now)
        for decision, now, last in zip(decisions, said, before, strict=True)
        if now is not None and now != last
    ]
