"""How a decoder does when nobody asks: idle time, false activations, time to decide ("pseudo-online")."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.decision import DecisionSettings
from offline.evaluate.answers import truth_of_hops
from offline.evaluate.decide import HOLE_HOPS, decide
from offline.evaluate.figures import agreement, normalised_mcc
from offline.evaluate.played import Played
from offline.evaluate.protocol import Live

if TYPE_CHECKING:
    from offline.activations import Tally

__all__ = ["BOUNDS", "HOLE_HOPS", "decide", "idle_figures", "live_row"]

# Where the curve is drawn at, by what the decision stage calls its bound.
BOUNDS = {
    "threshold": (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9),  # probability
    "bound": (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0),  # nats
}
MOST_BOUNDS = 10
_OF_HALF = {
    "hits": "hits",
    "false": "false_activations_per_min",
    "median_s": "median_time_to_decision_s",
}


def idle_figures(
    played: Sequence[Played],
    classes: Sequence[str],
    idle: str,
    decision: DecisionSettings | Sequence[DecisionSettings],
    *,
    settle_s: float = 0.5,
    bounds: Sequence[float] = (),
    live: Live | None = None,
) -> dict[str, Any]:
    """Return the figures of live use over continuous recordings.

    Parameters
    ----------
    decision : DecisionSettings or sequence of them
        What the labels were decided by, all or each recording: the curve varies its bound.
    settle_s : float
        Hops are scored from so long after each marker on.
    bounds : sequence of float
        Of the curve; `BOUNDS` where empty.
    live : Live, optional
        What counts as false, and as an answer.

    Returns
    -------
    dict
        ``hop_balanced_accuracy``: every valid hop's likeliest class against what was asked for at that
        moment, classes weighted alike.  ``nmcc``: over the same hops, of the labels as put out, none being
        idle.  ``hits``, ``wrong_side``, ``false_activations_per_min`` (beginnings, averaged over people),
        ``falsely_on`` (the share of idle time for which a label was on, however long ago it began),
        ``median_time_to_decision_s`` and ``idle_minutes`` as `offline.activations` counts them; ``curve``
        repeats them with other bounds of the decision stage (it is empty where recordings were decided by
        different kinds, whose bounds do not compare), ``per_subject`` subject by subject.
        ``hits_better_half``, ``false_better_half`` and ``median_s_better_half`` (also in the curve) are of
        the half of the people, rounded up, whose commands are hit most often, as counted here: who they will
        be is not known beforehand.
    """
    from offline.activations import Tally, tally  # it builds on this package

    live = live or Live()
    tallies = [tally(one, one.labels, classes, idle, live) for one in played]
    people = sorted({one.subject for one in played})
    return {
        **_hop_figures(played, classes, idle, settle_s),
        **live_row(Tally.joined(tallies)),
        **_better_half(tallies),
        "curve": _curve(played, classes, idle, each_of(decision, len(played)), bounds, live),
        "per_subject": {
            name: live_row(Tally.joined([one for one in tallies if one.subjects == (name,)]))
            for name in people
        },
    }


def _hop_figures(
    played: Sequence[Played], classes: Sequence[str], idle: str, settle_s: float
) -> dict[str, float | None]:
    truth = np.concatenate([truth_of_hops(one, classes, settle_s) for one in played])
    likeliest = np.concatenate([one.log_probs.argmax(axis=1) for one in played])
    put_out = np.concatenate([one.labels for one in played])
    put_out = np.where(put_out < 0, list(classes).index(idle), put_out)
    asked = truth >= 0
    return {
        "hop_balanced_accuracy": agreement(truth[asked], likeliest[asked])["balanced_accuracy"],
        "nmcc": normalised_mcc(truth[asked], put_out[asked]),
    }


def each_of(
    decision: DecisionSettings | Sequence[DecisionSettings], n_recordings: int
) -> list[DecisionSettings]:
    """Return what each recording was decided by."""
    return [decision] * n_recordings if isinstance(decision, DecisionSettings) else list(decision)


def _curve(
    played: Sequence[Played],
    classes: Sequence[str],
    idle: str,
    decisions: Sequence[DecisionSettings],
    bounds: Sequence[float],
    live: Live,
) -> list[dict[str, float | None]]:
    from offline.activations import Tally, tally
    from offline.redecide import redecide

    kinds = {one.bound_key for one in decisions}
    if len(kinds) != 1:
        return []
    (key,) = kinds
    bounds = _thinned(bounds) or BOUNDS[key]
    each: list[Tally] = []
    for own, some in groupby(zip(decisions, played, strict=True), key=lambda pair: pair[0]):
        alike = [one for _, one in some]
        labels = redecide(alike, own, bounds, classes, idle)
        each += [tally(one, made, classes, idle, live) for one, made in zip(alike, labels, strict=True)]
    rows = []
    for i, bound in enumerate(bounds):
        then = [one[i] for one in each]
        rows.append({key: bound, **live_row(Tally.joined(then)), **_better_half(then)})
    return rows


def _better_half(tallies: Sequence[Tally]) -> dict[str, float | None]:
    """Return the figures of the half with more hits, chosen by these same recordings, at this very bound."""
    from offline.activations import Tally

    people = sorted({name for one in tallies for name in one.subjects})
    each = [Tally.joined([one for one in tallies if one.subjects == (name,)]) for name in people]
    commanding = sorted(
        (one for one in each if len(one.right)), key=lambda one: (-float(one.hits), float(one.rate))
    )
    half = commanding[: -(-len(commanding) // 2)]
    row = live_row(Tally.joined(half)) if half else {}
    return {f"{short}_better_half": row.get(key) for short, key in _OF_HALF.items()}


def live_row(counted: Tally) -> dict[str, float | None]:
    """Return the figures of what was counted; None is what cannot be said."""
    commands, minutes = len(counted.right), float(counted.minutes.sum())
    return {
        "hits": _known(counted.hits) if commands else None,
        "wrong_side": _known(counted.wrong) if commands else None,
        "false_activations_per_min": _known(counted.rate) if minutes else None,
        "falsely_on": _known(counted.on) if minutes else None,
        "median_time_to_decision_s": _known(counted.median_s) if commands else None,
        "idle_minutes": round(minutes, 2),
    }


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _thinned(bounds: Sequence[float]) -> list[float]:
    """Return at most `MOST_BOUNDS` of them, rising, both ends among them."""
    rising = sorted(set(bounds))
    places = np.unique(np.linspace(0, len(rising) - 1, MOST_BOUNDS).round().astype(int))
    return [rising[place] for place in places] if rising else []
