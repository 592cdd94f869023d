"""What a refitted head may be expected to gain: what it gained others, and the user's own trials.

At export people whom the model has not learnt from are calibrated as a user would be, with 1, 2, 4, ...
trials of each class, and scored on the rest of their recordings (`offline.head_gains`).  A bundle carries
what each gained.  One more person is taken to be like one of them, or like none: the predictive distribution
of a Dirichlet process of concentration 1 whose base is the normal around their mean (Blackwell & MacQueen,
Ann. Stat. 1, 1973).  A normal alone takes somebody who gained much for a reason to fear a loss: of gestures
it kept every head where three people had gained .8, 4.9 and 14.7 points.

The user's own trials, each left out in turn, tell of the same gain with an error of their own, which weighs
and moves each part (Gelman et al., *Bayesian Data Analysis*, 3rd ed., 2.5 and 22): few trials say little
against many people, and many trials much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SPREAD = 1.0  # points; nobody is so like another that they may not differ by it
LOSS = 1.0  # points that nobody would miss, nor notice if they were gained
RISK = 0.125  # highest probability of losing more than `LOSS` at which a head is still taken


@dataclass(frozen=True, slots=True)
class Gain:
    """What people gained by a refit with so many trials of each class.

    Attributes
    ----------
    trials : int
        Of each class.
    points : tuple of float
        Of accuracy on the rest of the recordings, of each of at least two people.
    """

    trials: int
    points: tuple[float, ...]

    @property
    def n(self) -> int:
        """People."""
        return len(self.points)

    @property
    def mean(self) -> float:
        """Over people, points."""
        return statistics.fmean(self.points)

    @property
    def spread(self) -> float:
        """How uncertain the gain of somebody else is, points; so is the mean of a few."""
        return max(statistics.stdev(self.points) * math.sqrt(1 + 1 / self.n), SPREAD)


@dataclass(frozen=True, slots=True)
class Told:
    """What somebody's own trials say of the gain, points."""

    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class Expected:
    """The gain that is to be expected of one person's refit: a mixture of normals.

    Attributes
    ----------
    weights : tuple of float
        Of the parts; they add up to 1.
    means, sds : tuple of float
        Points.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Points."""
        return self._averaged(self.means)

    @property
    def loses(self) -> float:
        """Return the probability of losing more than `LOSS` points."""
        return self._averaged(
            [_normal_below(-LOSS, mean, sd) for mean, sd in zip(self.means, self.sds, strict=True)]
        )

    @property
    def worth(self) -> bool:
        """Whether the refitted head is to be taken: it should gain noticeably, and it will hardly lose."""
        return self.mean > LOSS and self.loses <= RISK

    def _averaged(self, values: Sequence[float]) -> float:
        return math.fsum(weight * value for weight, value in zip(self.weights, values, strict=True))


def row_for(table: Sequence[Gain], trials: int) -> Gain | None:
    """Return what is known of so many trials of each class, or of fewer; None where nothing is."""
    known = [row for row in table if row.trials <= trials]
    return max(known, key=lambda row: row.trials) if known else None


def expected(others: Gain, own: Told | None) -> Expected:
    """Put together what others gained and what one's own trials say; None: they say nothing."""
    parts = [*((points, SPREAD) for points in others.points), (others.mean, others.spread)]
    likely = [1.0 if own is None else _normal(own.mean, mean, math.hypot(sd, own.sd)) for mean, sd in parts]
    total = math.fsum(likely)
    if not total:  # own trials are out of everybody's reach: the part that is like nobody remains
        likely, total = [*[0.0] * others.n, 1.0], 1.0
    moved = parts if own is None else [_together(mean, sd, own) for mean, sd in parts]
    return Expected(
        tuple(one / total for one in likely),
        tuple(mean for mean, _ in moved),
        tuple(sd for _, sd in moved),
    )


def _together(mean: float, sd: float, own: Told) -> tuple[float, float]:
    """Return mean and SD of two normals' posterior, weighed by their precisions."""
    known, said = sd**-2, own.sd**-2
    return (mean * known + own.mean * said) / (known + said), (known + said) ** -0.5


def _normal(at: float, mean: float, sd: float) -> float:
    return math.exp(-0.5 * ((at - mean) / sd) ** 2) / sd


def _normal_below(at: float, mean: float, sd: float) -> float:
    return 0.5 * math.erfc((mean - at) / sd / math.sqrt(2))
