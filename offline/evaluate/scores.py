"""Every figure of what was played: `score`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.answers import ATOM_S
from engine.decision import DecisionConfig, DecisionSettings
from offline.evaluate.answers import (
    Answers,
    answer_at,
    answers,
    cues,
    lasts,
    truth_of_hops,
)
from offline.evaluate.figures import (
    Bools,
    Floats,
    Index,
    agreement,
    areas,
    bits_per_minute,
    calibration_error,
    coverage_risk,
    reliability,
    rounded,
    spread,
)
from offline.evaluate.idle import each_of, idle_figures
from offline.evaluate.played import Played
from offline.evaluate.protocol import Trials, Windows
from streamer.types import Marker

Table = dict[str, Any]
SECONDS = tuple(0.5 + 0.25 * i for i in range(15))  # after the cue: 0.5 to 4 s


@dataclass(frozen=True, slots=True)
class Scores:
    """JSON-able figures; shares are 0..1, and None is what cannot be said of these recordings.

    Attributes
    ----------
    n, n_cut, n_unanswered : int
        Answers asked for; trials that a recording ends before the end of; asked for without a valid decision.
    accuracy, balanced_accuracy, kappa, macro_f1 : float
        Of all answers together; one that is missing is wrong.
    auroc, auc_pr : float or None
        Areas under both curves of the second class, where two may be answered; a missing answer is ranked as
        a wrong one that nothing is surer than.
    per_subject : dict
        By name: ``accuracy``, ``balanced_accuracy``, ``n``.
    subjects : dict
        ``n``, and over subjects the ``mean``, ``sd`` and ``worst`` of the accuracy; ``balanced_accuracy``
        holds the same of that.
    ece : dict
        Expected calibration error of ``hops`` and of ``answers``.
    reliability : dict
        Of either, a row per bin: ``confidence``, ``accuracy``, ``n``.
    coverage_risk : dict
        ``curve`` of coverage and accuracy, and ``area`` under the accuracy.
    over_time : dict or None
        Accuracy by time after the cue, together and per subject; None where there are no trials.
    idle : dict or None
        Figures of live use; None where there is no idle class.
    protocol : str
        In words.
    """

    n: int
    n_cut: int
    n_unanswered: int
    accuracy: float | None
    balanced_accuracy: float | None
    kappa: float | None
    macro_f1: float | None
    auroc: float | None
    auc_pr: float | None
    per_subject: dict[str, Table]
    subjects: Table
    ece: Table
    reliability: Table
    coverage_risk: Table
    over_time: Table | None
    idle: Table | None
    protocol: str

    def document(self) -> Table:
        """Return all of it as a mapping."""
        return asdict(self)


def score(
    played: Sequence[Played],
    classes: Sequence[str],
    idle: str | None,
    protocol: Trials | Windows,
    *,
    decision: DecisionSettings | Sequence[DecisionSettings] | None = None,
    bounds: Sequence[float] = (),
) -> Scores:
    """Score recordings of any number of subjects.

    Parameters
    ----------
    decision : DecisionSettings or sequence of them, optional
        What the labels were decided by, all or each recording: the curve of hits against false activations
        varies its bound.
    bounds : sequence of float
        Of that curve; by the kind of decision where empty.
    """
    said = answers(played, classes, idle, protocol)
    found = agreement(said.truth, said.said)
    hops = _hops(played, classes, protocol.from_s)
    tables = {
        "hops": reliability(*hops),
        "answers": reliability(said.confidence[said.answered], said.right[said.answered]),
    }
    people = {name: _person(said, rows, protocol) for name, rows in said.by_subject().items()}
    return Scores(
        n=len(said),
        n_cut=said.n_cut,
        n_unanswered=int((~said.answered).sum()),
        accuracy=found["accuracy"],
        balanced_accuracy=found["balanced_accuracy"],
        kappa=found["kappa"],
        macro_f1=found["macro_f1"],
        **areas(said.truth, said.probabilities),
        per_subject=people,
        subjects=_over_subjects(people),
        ece={name: calibration_error(rows) for name, rows in tables.items()},
        reliability={name: _shown(rows) for name, rows in tables.items()},
        coverage_risk=coverage_risk(said.confidence, said.right),
        over_time=over_time(played, classes, idle, protocol) if isinstance(protocol, Trials) else None,
        idle=_live(played, classes, idle, protocol, decision or DecisionConfig(), bounds),
        protocol=protocol.told(),
    )


def over_time(
    played: Sequence[Played], classes: Sequence[str], idle: str | None, protocol: Trials
) -> Table | None:
    """Return the accuracy of answers given at other times after the cue, with nothing else changed.

    Returns
    -------
    dict or None
        ``seconds``, and for each of them ``accuracy`` and ``n`` of all trials and, by subject, the accuracy
        (``per_subject``); trials shorter than that are left out.  None where nothing was asked for.
    """
    asked = protocol.asked(classes, idle)
    rows = [
        (one.subject, [_right_at(one, cue, classes, asked, protocol, at_s) for at_s in SECONDS])
        for one in played
        for cue in cues(one, classes, asked)
        if lasts(one, cue, protocol.at_s)
    ]
    if not rows:
        return None
    right = np.array([row for _, row in rows])  # (trials, seconds), NaN where too short
    known = ~np.isnan(right)
    shown = known.any(axis=0)
    subjects = np.array([subject for subject, _ in rows])
    return {
        "seconds": [at_s for at_s, there in zip(SECONDS, shown, strict=True) if there],
        "accuracy": _means(right[:, shown]),
        "n": known.sum(axis=0)[shown].tolist(),
        "per_subject": {str(name): _means(right[subjects == name][:, shown]) for name in np.unique(subjects)},
    }


def _right_at(
    played: Played,
    cue: Marker,
    classes: Sequence[str],
    asked: Sequence[int],
    protocol: Trials,
    at_s: float,
) -> float:
    """Return whether the answer at this time is right, 0 or 1; NaN where the trial is over by then."""
    over = 0 < cue.duration < at_s - ATOM_S or not lasts(played, cue, at_s)
    if over:
        return float("nan")
    probabilities = answer_at(played, cue, asked, protocol, at_s)
    return float(probabilities.any() and classes[asked[int(probabilities.argmax())]] == cue.label)


def _means(right: Floats) -> list[float | None]:
    """Return the mean of each column over what is known."""
    known = (~np.isnan(right)).sum(axis=0)
    return [
        rounded(total / n) if n else None
        for total, n in zip(np.nansum(right, axis=0).tolist(), known.tolist(), strict=True)
    ]


def _hops(played: Sequence[Played], classes: Sequence[str], settle_s: float) -> tuple[Floats, Bools]:
    """Return confidence of every hop that something was asked for at, and whether it is right."""
    truth = np.concatenate([truth_of_hops(one, classes, settle_s) for one in played] or [np.zeros(0, int)])
    empty = np.zeros((0, len(classes)), dtype=np.float32)
    logs = np.concatenate([one.log_probs for one in played] or [empty])
    rows = truth >= 0
    return np.exp(logs[rows].max(axis=1).astype(np.float64)), logs[rows].argmax(axis=1) == truth[rows]


def _person(said: Answers, rows: Index, protocol: Trials | Windows) -> Table:
    """Return a subject's figures; only cued trials are choices that carry bits."""
    found = agreement(said.truth[rows], said.said[rows])
    bits = None
    if isinstance(protocol, Trials) and found["accuracy"] is not None:
        bits = bits_per_minute(found["accuracy"], len(said.asked), protocol.at_s)
    return {
        "accuracy": found["accuracy"],
        "balanced_accuracy": found["balanced_accuracy"],
        "kappa": found["kappa"],
        "itr_bits_per_min": bits,
        "n": len(rows),
    }


def _over_subjects(people: dict[str, Table]) -> Table:
    """Return mean, SD and worst of the accuracy, and below their names those of the other figures."""
    return {
        **_spread(people, "accuracy"),
        **{name: _spread(people, name) for name in ("balanced_accuracy", "itr_bits_per_min")},
    }


def _spread(people: dict[str, Table], name: str) -> Table:
    return spread([one[name] for one in people.values() if one[name] is not None])


def _live(
    played: Sequence[Played],
    classes: Sequence[str],
    idle: str | None,
    protocol: Trials | Windows,
    decision: DecisionSettings | Sequence[DecisionSettings],
    bounds: Sequence[float],
) -> Table | None:
    pairs = zip(played, each_of(decision, len(played)), strict=True)
    there = [(one, own) for one, own in pairs if len(one)]
    if idle is None or not there:
        return None
    some, decisions = zip(*there, strict=True)
    return idle_figures(
        some, classes, idle, decisions, settle_s=protocol.from_s, bounds=bounds, live=protocol.live
    )


def _shown(rows: list[Table]) -> list[Table]:
    return [{name: round(value, 4) for name, value in row.items()} for row in rows]
