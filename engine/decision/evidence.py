"""Evidence accumulated over hops by a sequential test: a leaky, clipped CUSUM per class.

For each class that may become the label, the log-likelihood ratio against idle (log-odds of the calibrated
probabilities, minus the log-odds that they have when the signal says nothing) is summed from zero upwards, as
in Page's test for a change (E. S. Page, "Continuous inspection schemes", Biometrika 41, 1954, section 2).  A
label begins where the sum of its class passes ``bound`` and leads the next class by ``margin``.

Consecutive hops look at nearly the same signal, so their ratios are no independent witnesses: a hop adds its
ratio times the time that it brings over the time after which the log-odds are new, ``independent_s``.  So the
sum does not depend on how many hops there are in a second, either.

A bundle without an idle class has its ratios taken against the next most probable class: what accumulates is
then the evidence that a class is the right one, not that there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from engine.decision._rule import DecisionSettings, Rule, Seconds

Nats = Annotated[float, Field(ge=0, le=1000)]


class Config(DecisionSettings):
    """Settings of the sequential test, beside those that all kinds share.

    Attributes
    ----------
    bound, release : float
        A label starts when the evidence for it passes the first and ends below the second, or below the first
        where that is less; nats.
    margin : float
        By how much the evidence for a class must lead that for any other one, nats.
    independent_s : float
        After how long the model's log-odds are new, s: their integrated autocorrelation time.
    leak_s : float
        Time constant with which evidence fades, s; 0: it does not.
    idle_prior : float or None
        Probability that the model gives to idle when the signal says nothing; None: all classes alike.
        Smaller asks for more before evidence grows.
    clip : float
        One hop's log-likelihood ratio counts as no more than this, either way; nats.
    ceiling : float
        Evidence does not grow beyond it, so that a label ends soon after its cause; nats.
    """

    bound_key: ClassVar[str] = "bound"
    labels_ignore: ClassVar[tuple[str, ...]] = ("smoothing_s",)  # it smooths what is shown: evidence is sums

    kind: Literal["evidence"] = "evidence"
    dwell_s: Seconds = 0.0
    bound: Nats = 2.0
    release: Nats = 0.5
    margin: Nats = 0.5
    independent_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    leak_s: Seconds = 2.0
    idle_prior: Annotated[float, Field(gt=0, lt=1)] | None = None
    clip: Annotated[float, Field(gt=0, le=100)] = 4.0
    ceiling: Nats = 8.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.bound > self.ceiling:
            raise ValueError(f"bound {self.bound:g} must not exceed the ceiling {self.ceiling:g}")
        return self

    def rule(self, active: NDArray[np.bool_], idle: int | None, hop_s: float) -> Evidence:
        """Return a fresh rule; as `DecisionSettings.rule`."""
        return Evidence(self, active, idle, hop_s)

    def at(self, bound: float) -> Self:
        """Return the same settings with another bound."""
        return self.model_copy(update={"bound": bound})

    @property
    def ends_below(self) -> float:
        """The release, or the bound where that is less."""
        return min(self.release, self.bound)

    def weights(self, hop_s: float) -> tuple[float, float]:
        """Return what one hop keeps of the evidence, and the weight of its log-likelihood ratio.

        The weight is that of a ratio that stays the same from hop to hop and fades as it adds up, so the
        sum after a second is the same whatever the hop.
        """
        rate = 1 / max(self.independent_s, hop_s)  # one hop brings one new ratio at most
        if self.leak_s == 0:
            return 1.0, hop_s * rate
        keep = math.exp(-hop_s / self.leak_s)
        return keep, self.leak_s * (1 - keep) * rate

    def prior_log_odds(self, n_active: int) -> float:
        """Return the log-odds of any class against idle when the signal says nothing."""
        if self.idle_prior is None:
            return 0.0
        return math.log((1 - self.idle_prior) / n_active / self.idle_prior)


class Evidence(Rule):
    """Enough speaks for the class with the most evidence when that passes the bound and leads.

    Attributes
    ----------
    evidence : list of float, nats
        One per class that may become the label.
    """

    def __init__(self, config: Config, active: NDArray[np.bool_], idle: int | None, hop_s: float) -> None:
        self._config, self._idle = config, idle
        self._places: list[int] = np.flatnonzero(active).tolist()
        self._keep, self._weight = config.weights(hop_s)
        self._ends_below = config.ends_below
        self._prior = config.prior_log_odds(len(self._places)) if idle is not None else 0.0
        self.reset()

    def see(self, logits: Sequence[float], _smooth: Sequence[float]) -> None:
        """Take in one good hop."""
        clip, ceiling = self._config.clip, self._config.ceiling
        for i, place in enumerate(self._places):
            ratio = logits[place] - self._rival(logits, place)
            clipped = min(max(ratio - self._prior, -clip), clip)
            grown = self._keep * self.evidence[i] + self._weight * clipped
            self.evidence[i] = min(max(grown, 0.0), ceiling)

    def _rival(self, logits: Sequence[float], place: int) -> float:
        """Return what speaks against a class: idle or, without one, its best rival; as `log_odds`."""
        if self._idle is not None:
            return logits[self._idle]
        return max(logit for other, logit in enumerate(logits) if other != place)

    def ready(self) -> int | None:
        """Return the class whose evidence passes the bound and leads by the margin."""
        most = max(self.evidence)
        if most < self._config.bound or most <= 0:
            return None
        best = self.evidence.index(most)
        others = self.evidence[:best] + self.evidence[best + 1 :]
        leads = not others or most - max(others) >= self._config.margin
        return self._places[best] if leads else None

    def holds(self, label: int) -> bool:
        """Say whether there is evidence for the label still, and enough for it to go on."""
        found = self.evidence[self._places.index(label)]
        return found > 0 and found >= self._ends_below

    @property
    def confidence(self) -> float:
        """Evidence of the leading class as a share of the bound; 1 where it suffices."""
        most = max(self.evidence)
        return min(1.0, most / self._config.bound) if self._config.bound > 0 else float(most > 0)

    def reset(self) -> None:
        """Forget all evidence."""
        self.evidence = [0.0] * len(self._places)


def log_odds(logits: NDArray[np.float64], places: NDArray[np.intp], idle: int | None) -> NDArray[np.float64]:
    """Return the log-odds of each class in ``places`` against idle, or against its best rival.

    Parameters
    ----------
    logits : ndarray, shape (..., n_classes), float64
        Over the temperature, or log-probabilities: the same.

    Returns
    -------
    ndarray, shape (..., len(places)), float64
    """
    if idle is not None:
        result: NDArray[np.float64] = logits[..., places] - logits[..., [idle]]
        return result
    rivals = [np.delete(logits, place, axis=-1).max(axis=-1) for place in places]
    return np.asarray(logits[..., places] - np.stack(rivals, axis=-1))
