"""Counts what labels did: commands answered, commands taken for another, and labels nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.answers import ATOM_S
from engine.lasting import endless
from offline.evaluate.played import Played
from offline.evaluate.protocol import Live
from offline.rates import upper_limit
from streamer.types import Marker

Floats = NDArray[np.float64]
LIVE = Live()


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted, for any number of settings at once: ``...`` below.

    Attributes
    ----------
    subjects : tuple of str
        Whose each recording is.
    false : ndarray, shape (n_recordings, ...), float64
        Labels that began while none was asked for.
    held : ndarray, shape (n_recordings, ...), float64
        Minutes of that for which a label was on, whenever it began.
    minutes : ndarray, shape (n_recordings,), float64
        Of good signal while none was asked for, as `asked_for_nothing` says.
    delays : ndarray, shape (n_commands, ...), float64, s
        From each command's cue to the first label that began under it; NaN where none did.
    right : ndarray, shape (n_commands, ...), bool
        That label was the command's own.
    """

    subjects: tuple[str, ...]
    false: Floats
    held: Floats
    minutes: Floats
    delays: Floats
    right: NDArray[np.bool_]

    def __getitem__(self, place: int) -> Tally:
        """Return what one of the settings did, over the first of their axes."""
        one = (slice(None), place)
        return Tally(
            self.subjects, self.false[one], self.held[one], self.minutes, self.delays[one], self.right[one]
        )

    @classmethod
    def joined(cls, each: Sequence[Tally]) -> Tally:
        """Return what was counted over several recordings together, at least one."""
        return cls(
            tuple(name for one in each for name in one.subjects),
            np.concatenate([one.false for one in each]),
            np.concatenate([one.held for one in each]),
            np.concatenate([one.minutes for one in each]),
            np.concatenate([one.delays for one in each]),
            np.concatenate([one.right for one in each]),
        )

    @property
    def hits(self) -> Floats:
        """Share of the commands whose first label was their own; shape (...)."""
        return _mean(self.right)

    @property
    def wrong(self) -> Floats:
        """Share of the commands whose first label was another one; shape (...)."""
        return _mean(~np.isnan(self.delays) & ~self.right)

    @property
    def median_s(self) -> Floats:
        """Median delay of the commands that got a label, NaN where none did; shape (...)."""
        found = np.sort(self.delays, axis=0)  # NaN comes last
        n = (~np.isnan(found)).sum(axis=0)
        low, high = (np.maximum(middle, 0)[None] for middle in ((n - 1) // 2, n // 2))
        both = [np.take_along_axis(found, middle, axis=0)[0] for middle in (low, high)]
        return np.where(n > 0, (both[0] + both[1]) / 2, np.nan)

    @property
    def people(self) -> tuple[Floats, Floats]:
        """False labels, (n_people, ...), and minutes, (n_people,), of those who have any minutes."""
        return self._over_people(self.false)

    @property
    def rates(self) -> Floats:
        """Each person's false labels per minute; shape (n_people, ...)."""
        return _per_minute(*self.people)

    @property
    def on(self) -> Floats:
        """Share of the time without a command for which a label was on, averaged over people; (...)."""
        return _mean(_per_minute(*self._over_people(self.held)))

    @property
    def rate(self) -> Floats:
        """False labels per minute, averaged over people, each counting alike; shape (...)."""
        return _mean(self.rates)

    def limit(self, confidence: float) -> Floats:
        """Return how many per minute people in general have at most on average; shape (...).

        That is an upper limit of `offline.rates.upper_limit`: it holds how people differ.
        """
        return upper_limit(*self.people, confidence)

    def _over_people(self, each: Floats) -> tuple[Floats, Floats]:
        """Return each person's sum over recordings, and minutes, of those who have any minutes."""
        names, whose = np.unique(self.subjects, return_inverse=True)
        total, minutes = np.zeros((len(names), *each.shape[1:])), np.zeros(len(names))
        np.add.at(total, whose, each)
        np.add.at(minutes, whose, self.minutes)
        return total[minutes > 0], minutes[minutes > 0]


def _per_minute(total: Floats, minutes: Floats) -> Floats:
    return total / minutes.reshape(-1, *(1,) * (total.ndim - 1))


def _mean(each: NDArray[Any]) -> Floats:
    """Return the mean over the first axis, NaN where there is nothing along it."""
    return np.asarray(each.mean(axis=0)) if len(each) else np.full(each.shape[1:], np.nan)


def tally(
    played: Played,
    labels: NDArray[np.integer],
    classes: Sequence[str],
    idle: str | None,
    live: Live = LIVE,
) -> Tally:
    """Count what these labels of a recording did.

    Parameters
    ----------
    labels : ndarray, shape (n_hops, ...), int
        Places among ``classes``, -1 for none; as many settings as there are further axes.
    live : Live
        What counts.
    """
    begun = _beginnings(labels)
    quiet = asked_for_nothing(played, classes, idle, live)
    commands = [
        marker
        for marker in played.markers
        if marker.label in classes and marker.label != idle and marker.duration > 0
    ]
    delays, right = [], []
    for marker in commands:
        inside = _answers(played, marker, idle, live)
        delay, label = _first(begun[inside], played.times[inside] - marker.time)
        delays.append(delay)
        right.append(label == list(classes).index(marker.label))
    shape = (len(commands), *begun.shape[1:])
    return Tally(
        subjects=(played.subject,),
        false=np.asarray((begun[quiet] >= 0).sum(axis=0), dtype=np.float64)[None],
        held=np.asarray((labels[quiet] >= 0).sum(axis=0), dtype=np.float64)[None] * played.hop_s / 60,
        minutes=np.array([float(quiet.sum()) * played.hop_s / 60]),
        delays=np.array(delays, dtype=np.float64).reshape(shape),
        right=np.array(right, dtype=bool).reshape(shape),
    )


def asked_for_nothing(
    played: Played, classes: Sequence[str], idle: str | None, live: Live = LIVE
) -> NDArray[np.bool_]:
    """Return the good hops at which no command was asked for; shape (n_hops,).

    That is where a marker asks for idle, once that has been so for ``settle_s``, and where no marker asks for
    anything, ``clear_s`` and more away from each that asks for something else than idle.  A marker of
    something that the model does not know asks for something; of a command that does not say how long it
    lasts, nobody knows what is asked for until the next class is.
    """
    marked, at_rest, near, asked = (np.zeros(len(played), dtype=bool) for _ in range(4))
    for marker in endless(played.markers, classes, idle):
        until = replace(marker, duration=_next(played, classes, marker) - marker.time)
        asked |= _under(played, until, live.early_s)
    for marker in played.markers:
        marked |= _under(played, marker)
        if marker.label == idle:
            at_rest |= _under(played, marker, before_s=-live.settle_s)
        else:
            near |= _under(played, marker, live.clear_s, live.clear_s)
            asked |= _under(played, marker, live.early_s)
    return played.valid & ~asked & (at_rest | ~(marked | near))


def _next(played: Played, classes: Sequence[str], marker: Marker) -> float:
    """Return when the next class is asked for after this marker, or the recording ends, s."""
    later = (one.time for one in played.markers if one.time > marker.time and one.label in classes)
    return min(later, default=played.duration_s)


def _answers(played: Played, marker: Marker, idle: str | None, live: Live) -> NDArray[np.bool_]:
    """Return the hops at which a label answers this command: under it, or a little before and no other."""
    inside = _under(played, marker)
    early = _under(played, marker, live.early_s) & ~inside
    for other in played.markers:
        if early.any() and other.label != idle:
            early &= ~_under(played, other)
    return inside | early


def _under(played: Played, marker: Marker, before_s: float = 0.0, after_s: float = 0.0) -> NDArray[np.bool_]:
    """Return the hops that end in a marker's span, widened by so much on either side; shape (n_hops,)."""
    since = played.times - marker.time
    return (since > ATOM_S - before_s) & (since <= marker.duration + after_s + ATOM_S)


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
