"""People as training reads them: batches of the rows of subject tables, a pure function of seed and step.

A batch is a number of *people*.  All that the tables hold of somebody comes in the same batch, so that the
EEG and the fMRI of those who have both meet there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from offline.data.tables import Person, Table, read_table
from offline.systems import Group, Segments
from streamer.errors import ConfigError

_ORDER, _PAIRS, _CROP = 0x7AB1E, 0x5A1F, 1  # streams of the seeds
_NUMBER_BITS = 63  # non-negative as an int64


class _Row(NamedTuple):
    person: Person
    number: int  # whose the row is said to be
    key: int


def number(text: str) -> int:
    """Return the number of a subject, the same wherever its name is: 63 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - _NUMBER_BITS)


def read_tables(tables: Sequence[Table]) -> list[Person]:
    """Return everybody in several tables.

    Raises
    ------
    ConfigError
        A subject has the same modality on the same nodes in two tables.
    RecordingError
        As `offline.data.tables.read_table`.
    """
    people: dict[tuple[str, str, str], Person] = {}
    for table in tables:
        for person in read_table(table):
            name = (person.subject, person.modality, person.nodes)
            if name in people:
                raise ConfigError(
                    f"The {person.modality} of {person.subject} on {person.nodes} is in two of data.tables: "
                    "give one of them a `prefix`, if these are two people, or leave one out."
                )
            people[name] = person
    return list(people.values())


class SubjectSet:
    """People, drawn in passes: each pass is a permutation of all of them.

    Parameters
    ----------
    people : sequence of Person
        From `read_tables`; the same subject in two modalities is one person.
    batch_size : int
        People of a batch, over all processes.
    subjects : sequence of str, optional
        Names to take; all by default.
    exclude : sequence of str
        Names to leave out.
    seed : int
        Of the order, the crops and the keys.
    shuffle_pairs : bool
        Give every paired person the fMRI of another one: the control, in which pairs say nothing.
    crop : int, optional
        Volumes of a signal; as many as the shortest has by default.
    heard : sequence of str
        Subjects of whom there is EEG elsewhere, in shards: paired, where the tables hold their fMRI.

    Attributes
    ----------
    subjects : tuple of str
        Sorted.
    paired : tuple of str
        Those with EEG and fMRI, sorted.
    fingerprints : tuple of str
        Sorted.
    tr_s : float or None
        Seconds between the volumes of the signals, where there are any.
    atlases : tuple of (modality, nodes, number of regions)
        Sorted.

    Raises
    ------
    ConfigError
        Nobody is left, signals come at several rates, the crop is longer than a signal, or there is one pair
        only to shuffle.
    """

    def __init__(
        self,
        people: Sequence[Person],
        *,
        batch_size: int,
        subjects: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        seed: int = 0,
        shuffle_pairs: bool = False,
        crop: int | None = None,
        heard: Sequence[str] = (),
    ) -> None:
        chosen = {one.subject for one in people} if subjects is None else set(subjects)
        kept = [one for one in people if one.subject in chosen - set(exclude)]
        if not kept:
            raise ConfigError("Nobody is left of data.tables: all are held out or excluded.")
        self.subjects = tuple(sorted({one.subject for one in kept}))
        self.fingerprints = tuple(sorted({one.fingerprint for one in kept}))
        self.paired = _paired(kept, heard)
        self.tr_s = _interval(kept)
        self.atlases = tuple(sorted({(one.modality, one.nodes, one.n_nodes) for one in kept}))
        self._crop = _length(kept, crop)
        self._batch_size, self._seed = batch_size, seed
        holder = _deranged(self.paired, seed) if shuffle_pairs else {}
        self._rows: dict[str, list[Person]] = {name: [] for name in self.subjects}
        for one in kept:
            moved = one.modality == "fmri" and one.subject in holder
            self._rows[holder[one.subject] if moved else one.subject].append(one)
        self._heard = {number(name): name for name in set(heard) & set(self.paired)}

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.subjects)

    def batch(
        self, step: int, rank: int = 0, world: int = 1, beside: Segments | None = None
    ) -> tuple[Group, ...]:
        """Return people ``rank * B / world`` to ``(rank + 1) * B / world`` of a step's batch.

        Parameters
        ----------
        beside : Segments, optional
            The same process' segments of the step.  Where tables hold the fMRI of a segment's subject, it
            comes as well: a row for each segment, so that it does not matter how many processes there are.

        Returns
        -------
        tuple of Group
            One per modality, set of nodes, and whether there are signals or edges; sorted.

        Raises
        ------
        ConfigError
            The batch cannot be shared evenly.
        """
        size, rest = divmod(self._batch_size, world)
        if rest:
            raise ConfigError(
                f"A batch of {self._batch_size} people cannot be shared by {world} processes: make "
                f"data.table_batch a multiple of {world}."
            )
        first = step * self._batch_size + rank * size
        rows = [row for at in range(first, first + size) for row in self._drawn(at)]
        return self._grouped([*rows, *self._companions(beside)])

    def validation_batches(self) -> Iterator[tuple[Group, ...]]:
        """Yield everybody once, sorted by name, with keys and crops that are the same every time."""
        for first in range(0, len(self), self._batch_size):
            names = self.subjects[first : first + self._batch_size]
            yield self._grouped([row for name in names for row in self._rows_of(name, f"held out {name}")])

    def companions(self, beside: Segments) -> tuple[Group, ...]:
        """Return the fMRI of the people of some segments, a row for each segment."""
        return self._grouped(self._companions(beside))

    def _drawn(self, at: int) -> list[_Row]:
        """Return the rows of the person at a place of the endless sequence of passes."""
        turn, place = divmod(at, len(self))
        order = np.random.default_rng((self._seed, _ORDER, turn)).permutation(len(self))
        return self._rows_of(self.subjects[order[place]], f"{self._seed} {at}")

    def _companions(self, beside: Segments | None) -> list[_Row]:
        if beside is None or beside.subjects is None or not self._heard:
            return []
        return [
            row
            for who, key in zip(beside.subjects.tolist(), beside.keys.tolist(), strict=True)
            if who in self._heard
            for row in self._rows_of(self._heard[who], f"beside {key}")
            if row.person.modality == "fmri"
        ]

    def _rows_of(self, name: str, seed: str) -> list[_Row]:
        who = number(name)
        return [_Row(one, who, number(f"{seed} {one.modality} {one.nodes}")) for one in self._rows[name]]

    def _grouped(self, rows: Sequence[_Row]) -> tuple[Group, ...]:
        slots: dict[tuple[Any, ...], list[_Row]] = {}
        for row in rows:
            one = row.person
            bands = 0 if one.edges is None else len(one.edges)
            slots.setdefault((one.modality, one.nodes, bands, one.signal is None), []).append(row)
        return tuple(self._group(slots[slot]) for slot in sorted(slots))

    def _group(self, rows: Sequence[_Row]) -> Group:
        one = rows[0].person
        signals = [self._cropped(row) for row in rows if row.person.signal is not None]
        edges = [row.person.edges for row in rows if row.person.edges is not None]
        return Group(
            one.modality,
            one.nodes,
            torch.from_numpy(np.stack(signals)) if signals else None,
            torch.from_numpy(np.stack(edges)) if edges else None,
            torch.tensor([row.number for row in rows], dtype=torch.int64),
            torch.tensor([row.key for row in rows], dtype=torch.int64),
        )

    def _cropped(self, row: _Row) -> NDArray[np.float32]:
        """Return the volumes that the row's key chooses, (N, crop)."""
        signal = row.person.signal
        assert signal is not None
        last = signal.shape[1] - self._crop
        start = int(np.random.default_rng((row.key, _CROP)).integers(last + 1))
        return signal[:, start : start + self._crop]


def _paired(people: Sequence[Person], heard: Sequence[str]) -> tuple[str, ...]:
    eeg = {one.subject for one in people if one.modality == "eeg"} | set(heard)
    return tuple(sorted(eeg & {one.subject for one in people if one.modality == "fmri"}))


def _deranged(names: Sequence[str], seed: int) -> Mapping[str, str]:
    """Return for each name another one, each once: a cycle through all of them in random order."""
    if len(names) < 2:
        raise ConfigError(f"data.shuffle_pairs needs at least 2 people with EEG and fMRI, not {len(names)}.")
    order = [names[i] for i in np.random.default_rng((seed, _PAIRS)).permutation(len(names))]
    return dict(zip(order, [*order[1:], order[0]], strict=True))


def _interval(people: Sequence[Person]) -> float | None:
    found = sorted({1 / one.sfreq for one in people if one.signal is not None})
    if len(found) > 1:
        words = " and ".join(f"{tr_s:g}" for tr_s in found)
        raise ConfigError(f"The signals of data.tables have {words} s per volume: give all one `tr_s`.")
    return found[0] if found else None


def _length(people: Sequence[Person], crop: int | None) -> int:
    lengths = [(one.signal.shape[1], one.subject) for one in people if one.signal is not None]
    shortest, who = min(lengths, default=(0, ""))
    if crop is None or not lengths:
        return shortest
    if crop > shortest:
        raise ConfigError(
            f"data.table_crop {crop} does not fit in the {shortest} volumes of {who}: make it shorter, or "
            "exclude who has too few."
        )
    return crop
