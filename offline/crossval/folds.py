"""Who is told from whom, and who is tested when: `read_people`, `folds_of`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.crossval.recipe import Modality, Recipe
from offline.data.tables import Person, read_table
from streamer.errors import ConfigError

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Those who take part, sorted by name.

    Attributes
    ----------
    names : tuple of str
    labels : ndarray, shape (n,), int64
        0 negative, 1 positive.
    strata : tuple of str
        Class, label and site.
    sites : tuple of str
    nodes : dict of str to str
        Atlas, by modality.
    edges : dict of str to ndarray, shape (n, E, N, N), float32
        By modality; of those that everybody has.
    fingerprints : tuple of tuple of str
        Of each person, all modalities.
    """

    names: tuple[str, ...]
    labels: Index
    strata: tuple[str, ...]
    sites: tuple[str, ...]
    nodes: dict[Modality, str]
    edges: dict[Modality, NDArray[np.float32]]
    fingerprints: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One division of the people: ``train`` and ``test`` are places in `People`."""

    repeat: int
    number: int
    train: Index
    test: Index


def read_people(recipe: Recipe) -> People:
    """Return who has a label of the recipe and connectomes of EEG.

    Raises
    ------
    RecordingError
        The table cannot be read.
    ConfigError
        Nobody, or too few of a class, or the same numbers under two names.
    """
    wanted = {**dict.fromkeys(recipe.negative, 0), **dict.fromkeys(recipe.positive, 1)}
    everybody = [person for person in read_table(recipe.people) if person.label in wanted]
    measured: dict[str, dict[Modality, Person]] = {}
    for person in everybody:
        measured.setdefault(person.subject, {})[person.modality] = person
    names = tuple(
        sorted(name for name, of in measured.items() if "eeg" in of and of["eeg"].edges is not None)
    )
    labels = np.array([wanted[measured[name]["eeg"].label] for name in names], dtype=np.int64)
    counts = np.bincount(labels, minlength=2)
    if counts.min() < (recipe.folds if recipe.split == "people" else 1):
        raise ConfigError(
            f"{recipe.people.path} has connectomes of EEG of {counts[0]} people labelled "
            f"{' / '.join(recipe.negative)} and {counts[1]} labelled {' / '.join(recipe.positive)}; "
            f"{recipe.folds} folds need as many of either."
        )
    fingerprints = tuple(tuple(one.fingerprint for one in measured[name].values()) for name in names)
    _refuse_doubles(names, fingerprints)
    return People(
        names,
        labels,
        tuple(_stratum(measured[name]["eeg"], wanted) for name in names),
        tuple(measured[name]["eeg"].site for name in names),
        {modality: person.nodes for name in names for modality, person in measured[name].items()},
        _edges([measured[name] for name in names]),
        fingerprints,
    )


def _refuse_doubles(names: Sequence[str], fingerprints: Sequence[tuple[str, ...]]) -> None:
    """Raise `ConfigError` where two people are one: tested on what was learned."""
    owner: dict[str, str] = {}
    for name, prints in zip(names, fingerprints, strict=True):
        for one in prints:
            if (other := owner.setdefault(one, name)) != name:
                raise ConfigError(
                    f"{other} and {name} hold the very same numbers: leave one of them out of the table."
                )


def _stratum(person: Person, wanted: dict[str, int]) -> str:
    """Return what is dealt out evenly; its class comes first, so that classes are dealt one after another."""
    return f"{wanted[person.label]} {person.label} {person.site}"


def _edges(measured: Sequence[dict[Modality, Person]]) -> dict[Modality, NDArray[np.float32]]:
    found: dict[Modality, NDArray[np.float32]] = {}
    modalities: tuple[Modality, ...] = ("eeg", "fmri")
    for modality in modalities:
        edges = [of[modality].edges if modality in of else None for of in measured]
        there = [one for one in edges if one is not None]
        if len(there) == len(edges):
            found[modality] = np.stack(there)
    return found


def folds_of(people: People, recipe: Recipe) -> list[Fold]:
    """Return every division that the recipe asks for, repeat by repeat; each person is tested once in each.

    Raises
    ------
    ConfigError
        Sites are to be left out, and there are not two, or one has no person of some class.
    """
    if recipe.split == "people":
        return deal_folds(people, recipe.folds, recipe.repeats)
    sites, site_of = np.unique(people.sites, return_inverse=True)
    for number, site in enumerate(sites):
        if len(sites) < 2 or len(np.unique(people.labels[site_of == number])) < 2:
            raise ConfigError(
                "split: sites needs two sites or more with people of both classes; the table has "
                f"{', '.join(sites)}, and {site or 'one without a name'} is not enough: use split: people."
            )
    return [fold for repeat in range(recipe.repeats) for fold in _divisions(site_of, repeat)]


def deal_folds(people: People, n_folds: int, repeats: int) -> list[Fold]:
    """Return every division into folds that are alike, repeat by repeat."""
    dealt = [deal(people.strata, n_folds, np.random.default_rng(repeat)) for repeat in range(repeats)]
    return [fold for repeat, fold_of in enumerate(dealt) for fold in _divisions(fold_of, repeat)]


def _divisions(fold_of: Index, repeat: int) -> list[Fold]:
    return [
        Fold(repeat, number, np.flatnonzero(fold_of != number), np.flatnonzero(fold_of == number))
        for number in range(int(fold_of.max()) + 1)
    ]


def deal(strata: Sequence[str], n_folds: int, rng: np.random.Generator) -> Index:
    """Return a fold for each row, such that folds differ by one at most in size, and in each stratum.

    Rows are shuffled within their stratum and dealt like cards, each stratum from where the last one ended.

    Parameters
    ----------
    strata : sequence of str, length n

    Returns
    -------
    ndarray, shape (n,), int64
    """
    names = np.array(strata)
    order = np.concatenate([rng.permutation(np.flatnonzero(names == name)) for name in np.unique(names)])
    fold_of = np.empty(len(names), dtype=np.int64)
    fold_of[order] = np.arange(len(order)) % n_folds
    return fold_of
