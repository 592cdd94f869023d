"""Scores decisions against cued trials, as the demo and a picture show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamer.types import Decision, Marker

ANSWER_FROM_S, ANSWER_AT_S = 0.5, 3.0
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Trial:
    """A cued trial and the one answer given to it.

    Attributes
    ----------
    time : float
        Of the cue, s.
    label : str
        What was asked for.
    answer : str or None
        What the decisions said by ``ANSWER_AT_S`` after the cue; None when there was no valid decision.
    margin : float
        Log-odds of the answer over the next best class.
    """

    time: float
    label: str
    answer: str | None
    margin: float


def answer_trials(
    decisions: Sequence[Decision],
    markers: Sequence[Marker],
    classes: Sequence[str],
    *,
    among: Sequence[str],
    from_s: float = ANSWER_FROM_S,
    at_s: float = ANSWER_AT_S,
    last: bool = False,
) -> list[Trial]:
    """Give every cue in ``among`` one answer, from what had been put out ``at_s`` after it.

    The answer is the class of ``among`` with the largest mean log-probability over the valid decisions
    stamped in ``(cue + from_s, cue + at_s]``, or in the last of them.  A trial that the decisions end before
    the end of is left out.

    Parameters
    ----------
    decisions : sequence of Decision
        In time order.
    markers : sequence of Marker
        On the same clock; those whose label is not in ``among`` are ignored.
    classes : sequence of str
        The classes of the decisions' probabilities.
    from_s, at_s, last
        As `engine.answers.Answer`.
    """
    if not decisions:
        return []
    times = np.array([d.time for d in decisions])
    logs = np.log(np.array([d.probabilities for d in decisions]) + EPS)  # (n, n_classes)
    valid = np.array([d.valid for d in decisions])
    columns = [list(classes).index(name) for name in among]
    trials = []
    for marker in markers:
        if marker.label not in among or times[-1] < marker.time + at_s:
            continue
        rows = valid & (times > marker.time + from_s) & (times <= marker.time + at_s)
        if not rows.any():
            trials.append(Trial(marker.time, marker.label, None, 0.0))
            continue
        mean = logs[rows][-1 if last else 0 :, columns].mean(axis=0)
        order = np.argsort(mean)
        margin = float(mean[order[-1]] - mean[order[-2]]) if len(order) > 1 else 0.0
        trials.append(Trial(marker.time, marker.label, among[int(order[-1])], margin))
    return trials


def accuracy(trials: Sequence[Trial]) -> float | None:
    """Return the share of trials answered right; a trial without an answer is wrong.  None without trials."""
    return float(np.mean([t.answer == t.label for t in trials])) if trials else None


def balanced_accuracy(trials: Sequence[Trial]) -> float | None:
    """Return the mean over the classes that occur of the share answered right; None without trials."""
    labels = sorted({t.label for t in trials})
    if not labels:
        return None
    return float(np.mean([np.mean([t.answer == t.label for t in trials if t.label == x]) for x in labels]))
