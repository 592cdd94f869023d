"""Who is tested when, and everybody's recordings: `folds_of`, `Recordings`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.benchmark.recipe import Recipe
from offline.crossval.folds import deal
from offline.data.fingerprint import asked_of
from offline.data.sources import Folder, Moabb, find, select
from offline.probe.tasks import Session, sessions_of
from streamer.errors import ConfigError

DEALT = 0  # how people fall into folds is part of a task, like its classes: it hangs on no seed of a model


@dataclass(frozen=True, slots=True)
class Fold:
    """A division of the people: who is learned from, who chooses and calibrates, and who is tested."""

    number: int
    train: tuple[str, ...]
    validate: tuple[str, ...]
    test: tuple[str, ...]


KEPT_BYTES = 3_000_000_000  # of recordings in memory; what comes after is read again when it is needed


class Recordings:
    """The recordings of a folder, or of a data set of MOABB, by person, read when they are asked for.

    Attributes
    ----------
    names : tuple of str
        Everybody there, sorted.
    where : str
        The folder's path or the data set's name.
    """

    def __init__(self, origin: Folder | Moabb, stype: str) -> None:
        people = find([origin], []) if isinstance(origin, Folder) else find([], [origin])
        self._people = {one.name: one for one in people}
        self.names = tuple(self._people)
        self.where = origin.where
        self._stype = stype
        self._kept: dict[str, list[Session]] = {}
        self._bytes = 0
        self._fingerprints: dict[str, tuple[str, ...]] = {}
        self._named: dict[str, dict[str, str]] = {}
        self._contents: dict[str, tuple[str, ...]] = {}

    def sessions(self, name: str) -> list[Session]:
        """Read a person's recordings, channels of the task's type only."""
        if name in self._kept:
            return self._kept[name]
        sessions = sessions_of([self._people[name]], self._stype, holes=True)
        self._fingerprints[name] = tuple(one.fingerprint for one in sessions)
        self._named[name] = {one.fingerprint: one.name for one in sessions}
        self._contents[name] = tuple(asked_of(one.recording) for one in sessions)
        size = sum(one.recording.data.nbytes for one in sessions)
        if self._bytes + size <= KEPT_BYTES:
            self._kept[name] = sessions
            self._bytes += size
        return sessions

    def fingerprints(self, name: str) -> tuple[str, ...]:
        """Return what identifies each of a person's recordings."""
        if name not in self._fingerprints:
            self.sessions(name)
        return self._fingerprints[name]

    def named(self, name: str) -> dict[str, str]:
        """Return what each of a person's recordings is called, by what identifies it."""
        self.fingerprints(name)
        return self._named[name]

    def contents(self, name: str) -> tuple[str, ...]:
        """Return what identifies each of a person's recordings as it was read, and what is asked in it."""
        self.fingerprints(name)
        return self._contents[name]


def folds_of(recipe: Recipe, names: tuple[str, ...], where: str) -> list[Fold]:
    """Return every division that the recipe asks for; each person is tested once at most.

    Parameters
    ----------
    names : tuple of str
        Everybody in the folder.
    where : str
        Which folder, for messages.

    Raises
    ------
    RecordingError
        Somebody who is not there.
    ConfigError
        Somebody on two sides, or too few people.
    """
    if recipe.split is not None:
        wanted = (recipe.split.train, recipe.split.validate_, recipe.split.test)
        return [_apart(Fold(0, *(tuple(select(names, some, where)) for some in wanted)))]
    assert recipe.folds is not None, "the recipe has folds or a split"
    people = names if recipe.people is None else tuple(sorted(select(names, recipe.people, where)))
    least = max(recipe.folds, 3)
    if len(people) < least:
        raise ConfigError(f"{len(people)} people do not make {recipe.folds} folds of which two learn.")
    fold_of = deal([""] * len(people), recipe.folds, np.random.default_rng(DEALT))
    return [_fold(people, fold_of == number, number, recipe.validate_) for number in range(recipe.folds)]


def _fold(people: tuple[str, ...], tested: NDArray[np.bool_], number: int, share: float) -> Fold:
    """Return a fold; who validates is drawn from those who are not tested."""
    others = [name for name, test in zip(people, tested, strict=True) if not test]
    n = min(max(1, round(share * len(others))), len(others) - 1)
    drawn = np.random.default_rng((DEALT, number)).permutation(len(others))[:n].tolist()
    return Fold(
        number,
        train=tuple(name for i, name in enumerate(others) if i not in drawn),
        validate=tuple(others[i] for i in sorted(drawn)),
        test=tuple(name for name, test in zip(people, tested, strict=True) if test),
    )


def _apart(fold: Fold) -> Fold:
    """Return the fold, nobody being on two of its sides."""
    every = [*fold.train, *fold.validate, *fold.test]
    if twice := sorted({name for name in every if every.count(name) > 1}):
        raise ConfigError(f"split has {', '.join(twice)} on two sides: separate them.")
    return fold
