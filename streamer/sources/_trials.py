"""What the simulated subject is asked to do, and how far each hand area follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.types import Marker

Array = NDArray[np.float64]

CLASSES = ("left_fist", "right_fist")
REST = "rest"

# Seconds after the cue, and after its end: reading it takes 0.4 s, the rhythm 0.6 s to go; it is back 1.2 s
# after the hand is let go, and the beta of that side overshoots for a second (Pfurtscheller & Lopes da Silva
# 1999, doi:10.1016/S1388-2457(99)00141-8).
ONSET, OFFSET, OVERSHOOT = (0.4, 1.0), (0.2, 1.2), (0.8, 1.2, 1.6, 2.2)
IPSILATERAL = 0.1  # share of power that the other side gains meanwhile
REBOUND = 0.3  # share of power that beta gains in the overshoot


@dataclass(frozen=True)
class Trials:
    """Rest and imagery in turn, for ever; each class once in a random order, then each again.

    Parameters
    ----------
    seed : int
        Of the order and of the strength of each trial.
    rest_s, trial_s : float
        Seconds.
    erd : float
        Share of the power that the hand area opposite the imagined hand loses; a trial varies around it.
    """

    seed: int
    rest_s: float
    trial_s: float
    erd: float

    @property
    def period_s(self) -> float:
        """From cue to cue, seconds."""
        return self.rest_s + self.trial_s

    def label(self, trial: int) -> str:
        """Return the class of a trial."""
        turn, place = divmod(trial, len(CLASSES))
        order = np.random.default_rng((self.seed, 2, turn)).permutation(len(CLASSES))
        return CLASSES[order[place]]

    def strength(self, trial: int) -> float:
        """Return the share of power lost in a trial."""
        return min(0.95, self.erd * np.random.default_rng((self.seed, 3, trial)).uniform(0.75, 1.25))

    def markers(self) -> Iterator[Marker]:
        """Yield every rest and cue from the start, times from 0."""
        trial = 0
        while True:
            start = trial * self.period_s
            yield Marker(start, REST, self.rest_s)
            yield Marker(start + self.rest_s, self.label(trial), self.trial_s)
            trial += 1

    def power(self, times: Array) -> tuple[Array, Array]:
        """Return the power of the rhythms of the hand areas, relative to rest.

        Parameters
        ----------
        times : ndarray, shape (n_times,)
            Seconds from the start, increasing.

        Returns
        -------
        mu, beta : ndarray, shape (n_times, 2)
            Left hemisphere, right hemisphere.
        """
        mu, beta = np.ones((2, len(times), 2))
        first, last = (int(time // self.period_s) for time in (times[0], times[-1]))
        for trial in range(max(0, first - 1), last + 1):  # the one before may not be over
            since_cue = times - trial * self.period_s - self.rest_s
            done = since_cue - self.trial_s
            held = _ramp(since_cue, *ONSET) * (1 - _ramp(done, *OFFSET))
            loss = self.strength(trial) * held
            overshoot = _ramp(done, *OVERSHOOT[:2]) * (1 - _ramp(done, *OVERSHOOT[2:]))
            contra = 1 if self.label(trial) == "left_fist" else 0  # the left hand is the right hemisphere's
            for rhythm in (mu, beta):
                rhythm[:, contra] *= 1 - loss
                rhythm[:, 1 - contra] *= 1 + IPSILATERAL * held
            beta[:, contra] *= 1 + REBOUND * overshoot
        return mu, beta


def _ramp(x: Array, start: float, stop: float) -> Array:
    """Rise smoothly from 0 to 1."""
    share = np.clip((x - start) / (stop - start), 0, 1)
    ramp: Array = share * share * (3 - 2 * share)
    return ramp
