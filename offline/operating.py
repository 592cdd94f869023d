"""Fits the decision stage, and measures what it does at which bound, on people that the model never met.

What is searched: the sequential test's leak, idle prior and margin, over every bound at once.  Its correction
for overlapping windows is not searched but measured, as the autocorrelation time of the log-odds.

What an operating point promises is the mean over people, each counting alike: its rate is an upper limit of
that, with a confidence of 80 %, that knows that people differ (`offline.rates`).  Few people, or few minutes
of idle signal, cannot promise a low rate, and say so by themselves.  How many of the people measured had no
more than the promised rate is told beside it: a mean is no promise to each of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.decision import DecisionConfig, DecisionSettings, EvidenceConfig
from engine.operating import OperatingPoint, bound_for
from offline.activations import LIVE, Tally, tally
from offline.evaluate.played import Played
from offline.evaluate.protocol import Live
from offline.redecide import Stack, grown, redecide, stack, sweep

CONFIDENCE = 0.8
RATES = (0.5, 1.0, 2.0, 4.0)  # false activations per minute that the settings are chosen for
DEFAULT_RATE = 1.0
LEAKS_S = (0.25, 1.0, 2.0)
PRIOR_LOG_ODDS = (0.0, -0.25, -0.5)  # more choices than these only fit the few people
MARGINS = (0.0, 0.2)
EXCEEDED = tuple(np.geomspace(0.6, 1e-3, 26).tolist())  # bounds: how often the evidence is to be above them
RELEASE_EXCEEDED = 0.5
SELDOM = 0.99
THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
NEARLY = 0.01  # settings within this of the best are as good: the quickest of them is taken
AT_ONCE = 8  # settings; more only take memory


def fit(
    played: Sequence[Played],
    classes: Sequence[str],
    idle: str | None,
    base: DecisionSettings,
    live: Live = LIVE,
) -> tuple[DecisionSettings, tuple[OperatingPoint, ...]]:
    """Return the settings that do best at the wanted rates, and their operating points.

    Parameters
    ----------
    played : sequence of Played
        Of people that had no part in the weights; their log-probabilities are decided anew.
    base : DecisionSettings
        Kept as it is where the sequential test is no better; else its refractory period, smoothing and
        rejection are taken over.
    live : Live
        What counts as false, and as an answer.

    Returns
    -------
    DecisionSettings
        At the bound for one false activation per minute, or the lowest rate that could be measured.
    tuple of OperatingPoint
        From few false activations to many.  Empty, and the settings ``base``, where there is no idle class,
        no command or no good signal without one: nothing is false, or nothing is right, there.
    """
    whole = [one for one in played if one.valid.any()]
    if idle is None or not whole:
        return base, ()
    material = _Material(whole, stack(whole, classes, idle), tuple(classes), idle, live)
    if not material.told():
        return base, ()
    kept = _search(material, base)
    if isinstance(base, DecisionConfig):
        plain = material.measured(base, np.array(THRESHOLDS))
        kept = plain if merit(plain.tally) >= merit(kept.tally) - NEARLY else kept
    points = operating_points(kept.tally, kept.bounds)
    rate = max(DEFAULT_RATE, points[0].false_per_min)
    return kept.settings.at(round(bound_for(points, rate, "being fitted"), 4)), points


def operating_points(counted: Tally, bounds: NDArray[np.float64]) -> tuple[OperatingPoint, ...]:
    """Return what was counted at these bounds, rates made to fall where the bound rises.

    Parameters
    ----------
    counted : Tally
        Over bounds.
    bounds : ndarray, shape (n_bounds,)
        Rising.
    """
    rates = falling(counted.limit(CONFIDENCE))
    least = _least(rates)
    hits, wrong, median_s = counted.hits, counted.wrong, counted.median_s
    within, on = (counted.rates <= rates).mean(axis=0), counted.on
    return tuple(
        OperatingPoint(
            false_per_min=round(float(rates[i]), 4),
            bound=round(float(bounds[i]), 4),
            hits=round(float(hits[i]), 4),
            wrong=round(float(wrong[i]), 4),
            median_s=None if math.isnan(median_s[i]) else round(float(median_s[i]), 3),
            people=len(counted.rates),
            within=round(float(within[i]), 4),
            on=round(float(on[i]), 4),
        )
        for i in reversed(least)
    )


def independent_time(played: Sequence[Played], stacked: Stack) -> float:
    """Return after how long the log-odds are new, s: their integrated autocorrelation time.

    What is asked for moves the log-odds, too, so their mean under each marker's label is taken away first;
    the autocorrelation is summed to where it first falls to zero (A. D. Sokal, "Monte Carlo methods in
    statistical mechanics", 1997, section 3, with the sum's end chosen by sign).
    """
    total, ratios = np.zeros(len(stacked.valid)), stacked.ratios
    for column, one in enumerate(played):
        rest = ratios[: len(one), column].copy()  # (n, n_active)
        asked = _asked(one)
        for label in np.unique(asked):
            rows = (asked == label) & one.valid
            rest[rows] -= rest[rows].mean(axis=0) if rows.any() else 0.0
        rest[~one.valid] = 0.0
        spectrum = np.abs(np.fft.rfft(rest, 2 * len(total), axis=0)) ** 2
        total += np.fft.irfft(spectrum, axis=0)[: len(total)].sum(axis=1)
    if total[0] <= 0:
        return stacked.hop_s
    correlation = total / total[0]
    end = int(np.argmax(correlation <= 0)) or len(correlation)
    return float(round(stacked.hop_s * (1 + 2 * correlation[1:end].sum()), 3))


def usual_most(stacked: Stack) -> float:
    """Return what the log-odds of good hops seldom pass, nats, and no less than the default clip.

    A net that is surer than the clip would have all its evidence end at the same height, and no bound could
    tell much of it from little.
    """
    seldom = float(np.quantile(np.abs(stacked.ratios[stacked.valid]), SELDOM))
    return min(max(EvidenceConfig().clip, round(seldom, 1)), 100.0)


def merit(counted: Tally) -> NDArray[np.float64]:
    """Return hits less wrong labels, averaged over the wanted rates; bounds are the last axis.

    At each rate the least bound counts that keeps to it; nothing is hit where none does.
    """
    rates = falling(counted.limit(CONFIDENCE))
    gain = counted.hits - counted.wrong
    return np.asarray(np.mean([_at(gain, rates, rate, 0.0) for rate in RATES], axis=0))


def falling(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rates that do not rise with the bound, which is the last axis: each at least the next one."""
    return np.maximum.accumulate(rates[..., ::-1], axis=-1)[..., ::-1]


def _least(rates: NDArray[np.float64]) -> list[int]:
    """Return the places of the least bound of each rate."""
    return [place for place in range(len(rates)) if place == 0 or rates[place] < rates[place - 1]]


@dataclass(frozen=True, slots=True)
class _Measured:
    """Settings, and what they did at each bound."""

    settings: DecisionSettings
    bounds: NDArray[np.float64]
    tally: Tally


@dataclass(frozen=True, slots=True)
class _Material:
    """What is measured on, and how it is counted."""

    played: Sequence[Played]
    stacked: Stack
    classes: tuple[str, ...]
    idle: str
    live: Live

    def counted(self, labels: Sequence[NDArray[np.integer]]) -> Tally:
        """Count what each recording's labels did."""
        pairs = zip(self.played, labels, strict=True)
        return Tally.joined([tally(one, some, self.classes, self.idle, self.live) for one, some in pairs])

    def measured(self, settings: DecisionSettings, bounds: NDArray[np.float64]) -> _Measured:
        """Decide everything anew at each bound."""
        labels = redecide(self.played, settings, bounds.tolist(), self.classes, self.idle)
        return _Measured(settings, bounds, self.counted(labels))

    def told(self) -> bool:
        """Say whether there were commands, and time without any."""
        nothing = self.counted([np.full(len(one), -1) for one in self.played])
        return bool(nothing.minutes.sum() > 0) and len(nothing.right) > 0


def _search(material: _Material, base: DecisionSettings) -> _Measured:
    """Return the best settings of the sequential test; of those as good as the best, the quickest."""
    stacked = material.stacked
    candidates = _candidates(base, independent_time(material.played, stacked), stacked)
    found: list[_Measured] = []
    for start in range(0, len(candidates), AT_ONCE):
        found += _swept(material, candidates[start : start + AT_ONCE])
    merits = np.array([float(merit(one.tally)) for one in found])
    delays = np.array([_delay(one.tally) for one in found])
    best = found[int(np.argmin(np.where(merits >= merits.max() - NEARLY, delays, np.inf)))]
    rates = falling(best.tally.limit(CONFIDENCE))
    return material.measured(best.settings, best.bounds[_least(rates)])


def _candidates(base: DecisionSettings, independent_s: float, stacked: Stack) -> list[EvidenceConfig]:
    shared = {key: getattr(base, key) for key in ("smoothing_s", "refractory_s", "max_invalid")}
    n_active, clip = len(stacked.places), usual_most(stacked)
    return [
        EvidenceConfig(
            **shared,
            independent_s=independent_s,
            leak_s=leak_s,
            idle_prior=round(1 / (1 + n_active * math.exp(log_odds)), 4),
            margin=margin,
            clip=clip,
            ceiling=2 * clip,
        )
        for leak_s, log_odds, margin in itertools.product(LEAKS_S, PRIOR_LOG_ODDS, MARGINS)
    ]


def _swept(material: _Material, settings: Sequence[EvidenceConfig]) -> list[_Measured]:
    """Return what some settings do at bounds that their evidence passes often, seldom and hardly ever."""
    stacked = material.stacked
    evidence = grown(stacked, settings)  # (n_hops, n_settings, n_recordings, n_active)
    most = evidence.max(axis=-1).transpose(1, 0, 2)[:, stacked.valid]  # (n_settings, n_valid)
    levels = np.quantile(most, 1 - np.array([RELEASE_EXCEEDED, *EXCEEDED]), axis=1).T.round(4)
    released = [
        one.model_copy(update={"release": float(levels[place, 0])}) for place, one in enumerate(settings)
    ]
    labels = sweep(stacked, released, levels[:, 1:], evidence)
    both = material.counted([labels[: len(one), ..., i] for i, one in enumerate(material.played)])
    return [_Measured(one, levels[i, 1:], both[i]) for i, one in enumerate(released)]


def _delay(counted: Tally) -> float:
    """Return the median delay, averaged over the wanted rates that anything is hit at; s."""
    rates = falling(counted.limit(CONFIDENCE))
    found = np.array([_at(counted.median_s, rates, rate, np.nan) for rate in RATES])
    return float(np.nanmean(found)) if np.isfinite(found).any() else math.inf


def _at(
    values: NDArray[np.float64], rates: NDArray[np.float64], rate: float, none: float
) -> NDArray[np.float64]:
    """Return the values at the least bound, last axis, whose rate is not above this one."""
    within = rates <= rate
    place = within.argmax(axis=-1)[..., None]
    found = np.take_along_axis(values, place, axis=-1)[..., 0]
    return np.where(within.any(axis=-1), found, none)


def _asked(played: Played) -> NDArray[np.str_]:
    """Return the label of the marker that each hop lies under; empty where there is none."""
    asked = np.full(len(played), "", dtype=object)
    for marker in played.markers:
        asked[(played.times > marker.time) & (played.times <= marker.time + marker.duration)] = marker.label
    return asked.astype(str)
