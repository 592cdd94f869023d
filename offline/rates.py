"""What counts of some people say about the rate of people in general: `upper_limit`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

Floats = NDArray[np.float64]
DIFFERING = (
    1.0  # shape of the gamma distribution of people's rates where few people cannot tell a smaller one
)


def upper_limit(counts: Floats, minutes: Floats, confidence: float) -> Floats:
    """Return an upper limit (one-sided) of the mean rate over people, per minute; shape (...).

    People's rates are taken as gamma-distributed, so that counts are negative binomial (M. Greenwood and
    G. U. Yule, "An inquiry into the nature of frequency distributions", J. R. Stat. Soc. 83, 1920), and the
    limit is that mean under which so small a sum of counts has the probability that is left.  Where people
    do not differ it is Garwood's limit of a Poisson count; it does not fall to the mean with time, only with
    people.

    Parameters
    ----------
    counts : ndarray, shape (n_people, ...), float64
    minutes : ndarray, shape (n_people,), float64
        That each was counted for; above 0.
    confidence : float
        In (0, 1).
    """
    if not len(minutes):
        return np.full(counts.shape[1:], np.inf)
    rates = counts / minutes.reshape(-1, *(1,) * (counts.ndim - 1))
    shape = len(minutes) * np.minimum(gamma_shape(rates, minutes), DIFFERING)
    total = rates.mean(axis=0) * minutes.sum()  # each person counts alike
    chance = betaincinv(shape, total + 1, 1 - confidence)  # P(sum <= total) = I_chance(shape, total + 1)
    return np.asarray(shape * (1 - chance) / chance / minutes.sum())


def gamma_shape(rates: Floats, minutes: Floats) -> Floats:
    """Return the shape of the gamma distribution of people's rates by moments; shape (...).

    It is the squared mean over the variance that counting alone does not give; infinite where that explains
    all of it, or nothing was counted.
    """
    if len(rates) < 2:
        return np.full(rates.shape[1:], np.inf)
    mean = rates.mean(axis=0)
    counting = (rates / minutes.reshape(-1, *(1,) * (rates.ndim - 1))).mean(axis=0)
    excess = rates.var(axis=0, ddof=1) - counting
    known = (excess > 0) & (mean > 0)
    return np.where(known, mean**2 / np.where(known, excess, 1.0), np.inf)
