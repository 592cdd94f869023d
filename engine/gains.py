"""What a refitted head may be expected to gain: what it gained others, and the user's own trials.

At export people whom the model has not learnt from are calibrated as a user would be, with 1, 2, 4, ...
trials of each class, and scored on the rest of their recordings (`offline.head_gains`).  A bundle carries
that table; the gain of one more person is taken to be normal, around their mean with their spread.  The
user's own trials, each left out in turn, tell of the same gain with an error of their own.  The two are put
together by their precisions (normal-normal shrinkage; Gelman et al., *Bayesian Data Analysis*, 3rd ed., 2.5
and 5.4), so that few trials say little against many people, and many trials much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SPREAD = 1.0  # points; no handful of people is so alike that another one may not differ by it
LOSS = 1.0  # points that nobody would miss
# Highest probability of losing more than `LOSS` at which a head is still taken.  Of validation people, each
# judged by the others' table, all who gained surely (gestures, 8 cases) were below 0.12, and the only loser
# who would have been taken (imagery, 16 cases) at 0.14.
RISK = 0.125


@dataclass(frozen=True, slots=True)
class Gain:
    """What people gained by a refit with so many trials of each class.

    Attributes
    ----------
    trials : int
        Of each class.
    mean, sd, worst : float
        Points of accuracy on the rest of their recordings, over people.
    n : int
        People; at least two.
    """

    trials: int
    mean: float
    sd: float
    worst: float
    n: int

    @property
    def spread(self) -> float:
        """Return how uncertain the gain of one more person is, points; so is the mean of a few."""
        return max(self.sd * math.sqrt(1 + 1 / self.n), SPREAD)


@dataclass(frozen=True, slots=True)
class Expected:
    """The gain that is to be expected of one person's refit.

    Attributes
    ----------
    mean, sd : float
        Points.
    """

    mean: float
    sd: float

    @property
    def loses(self) -> float:
        """Return the probability of losing more than `LOSS` points."""
        return 0.5 * math.erfc((self.mean + LOSS) / self.sd / math.sqrt(2))

    @property
    def worth(self) -> bool:
        """Whether the refitted head is to be taken: it should gain, and it will hardly lose."""
        return self.mean > 0 and self.loses <= RISK


def row_for(table: Sequence[Gain], trials: int) -> Gain | None:
    """Return what is known of so many trials of each class, or of fewer; None where nothing is."""
    known = [row for row in table if row.trials <= trials]
    return max(known, key=lambda row: row.trials) if known else None


def expected(others: Gain, own: Expected | None) -> Expected:
    """Put together what others gained and what one's own trials say; None: they say nothing."""
    if own is None:
        return Expected(others.mean, others.spread)
    known, said = others.spread**-2, own.sd**-2
    return Expected((others.mean * known + own.mean * said) / (known + said), (known + said) ** -0.5)
