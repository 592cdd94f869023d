"""Counts what labels did: commands answered, commands taken for another, and labels nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gamma

from offline.evaluate.answers import ATOM_S
from offline.evaluate.played import Played
from streamer.types import Marker

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted, for any number of settings at once: ``...`` below.

    Attributes
    ----------
    false : ndarray, shape (...), float64
        Labels that began while none was asked for.
    minutes : float
        Of good signal while none was asked for: idle was asked for, or nothing at all.
    delays : ndarray, shape (n_commands, ...), float64, s
        From each command's cue to the first label that began under it; NaN where none did.
    right : ndarray, shape (n_commands, ...), bool
        That label was the command's own.
    """

    false: Floats
    minutes: float
    delays: Floats
    right: NDArray[np.bool_]

    def __getitem__(self, place: int) -> Tally:
        """Return what one of the settings did, over the first of their axes."""
        return Tally(self.false[place], self.minutes, self.delays[:, place], self.right[:, place])

    @classmethod
    def stacked(cls, each: Sequence[Tally]) -> Tally:
        """Return what several settings did over the same recordings, side by side along a last axis."""
        return cls(
            np.stack([one.false for one in each], axis=-1),
            each[0].minutes,
            np.stack([one.delays for one in each], axis=-1),
            np.stack([one.right for one in each], axis=-1),
        )

    def __add__(self, other: Self) -> Tally:
        return Tally(
            self.false + other.false,
            self.minutes + other.minutes,
            np.concatenate([self.delays, other.delays]),
            np.concatenate([self.right, other.right]),
        )

    @property
    def hits(self) -> Floats:
        """Share of the commands whose first label was their own; shape (...)."""
        return np.asarray(self.right.mean(axis=0))

    @property
    def wrong(self) -> Floats:
        """Share of the commands whose first label was another one; shape (...)."""
        return np.asarray((~np.isnan(self.delays) & ~self.right).mean(axis=0))

    @property
    def median_s(self) -> Floats:
        """Median delay of the commands that got a label, NaN where none did; shape (...)."""
        found = np.sort(self.delays, axis=0)  # NaN comes last
        n = (~np.isnan(found)).sum(axis=0)
        low, high = (np.maximum(middle, 0)[None] for middle in ((n - 1) // 2, n // 2))
        both = [np.take_along_axis(found, middle, axis=0)[0] for middle in (low, high)]
        return np.where(n > 0, (both[0] + both[1]) / 2, np.nan)

    def rate(self, confidence: float | None = None) -> Floats:
        """Return false labels per minute; shape (...).

        Parameters
        ----------
        confidence : float, optional
            Return the upper limit that a Poisson count has with this confidence (one-sided; F. Garwood,
            "Fiducial limits for the Poisson distribution", Biometrika 28, 1936) instead of what was counted.
        """
        if confidence is None:
            return self.false / self.minutes
        return np.asarray(gamma.ppf(confidence, self.false + 1) / self.minutes)


def tally(played: Played, labels: NDArray[np.integer], classes: Sequence[str], idle: str | None) -> Tally:
    """Count what these labels of a recording did.

    Parameters
    ----------
    labels : ndarray, shape (n_hops, ...), int
        Places among ``classes``, -1 for none; as many settings as there are further axes.
    """
    begun = _beginnings(labels)
    quiet = asked_for_nothing(played, idle)
    delays, right = [], []
    for marker in played.markers:
        if marker.label in classes and marker.label != idle and marker.duration > 0:
            inside = _under(played, marker)
            delay, label = _first(begun[inside], played.times[inside] - marker.time)
            delays.append(delay)
            right.append(label == list(classes).index(marker.label))
    shape = (len(delays), *begun.shape[1:])
    return Tally(
        false=np.asarray((begun[quiet] >= 0).sum(axis=0), dtype=np.float64),
        minutes=float(quiet.sum()) * played.hop_s / 60,
        delays=np.array(delays, dtype=np.float64).reshape(shape),
        right=np.array(right, dtype=bool).reshape(shape),
    )


def asked_for_nothing(played: Played, idle: str | None) -> NDArray[np.bool_]:
    """Return the good hops at which no command was asked for; shape (n_hops,).

    That is where a marker asks for idle, and where no marker asks for anything.  A marker of something that
    the model does not know asks for something.
    """
    asked = np.zeros(len(played), dtype=bool)
    for marker in played.markers:
        if marker.label != idle:
            asked |= _under(played, marker)
    return played.valid & ~asked


def _under(played: Played, marker: Marker) -> NDArray[np.bool_]:
    """Return the hops that end in a marker's span; shape (n_hops,)."""
    since = played.times - marker.time
    return (since > ATOM_S) & (since <= marker.duration + ATOM_S)


def _beginnings(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the label where one begins, and -1 elsewhere; shape (n_hops, ...)."""
    before = np.concatenate([np.full_like(labels[:1], -1), labels[:-1]])
    return np.where(labels != before, labels, np.full_like(labels, -1))


def _first(begun: NDArray[np.integer], since: Floats) -> tuple[Floats, NDArray[np.integer]]:
    """Return when the first label began, NaN for none, and which; over the first axis."""
    if not len(begun):
        return np.full(begun.shape[1:], np.nan), np.full(begun.shape[1:], -1)
    place = (begun >= 0).argmax(axis=0)[None]
    label = np.take_along_axis(begun, place, axis=0)[0]
    return np.where(label >= 0, since[place[0]], np.nan), label
