"""Tables of people: who was measured in which modality, as ROI time series or as connectomes.

What learns from people rather than from recordings (`offline.systems.mcsp`, `offline.crossval`) reads them
here.  The same subject in two modalities, or also among the subjects of shards, is the same person.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from offline.data import connectomes, roi
from offline.data.fingerprint import fingerprint
from offline.data.roi import RoiSettings
from offline.data.table_files import files_below, read_labels, read_rows
from streamer.components import Config
from streamer.errors import RecordingError

Modality = connectomes.Modality


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A person in one modality.

    Attributes
    ----------
    subject : str
        With the table's prefix.
    modality : str
        ``eeg`` or ``fmri``.
    nodes : str
        Name of the atlas whose regions the rows are.
    signal : ndarray, shape (N, T), float32, or None
        Mean 0 and SD 1 per region.
    sfreq : float
        Hz, of the signal; 0 without one.
    edges : ndarray, shape (E, N, N), float32, or None
        One matrix per band; symmetric, zero on the diagonal.
    label, site : str
        Empty where unknown.
    fingerprint : str
        Of the numbers, whatever the file or the subject are called.
    """

    subject: str
    modality: Modality
    nodes: str
    signal: NDArray[np.float32] | None = None
    sfreq: float = 0.0
    edges: NDArray[np.float32] | None = None
    label: str = ""
    site: str = ""
    fingerprint: str = ""

    @property
    def n_nodes(self) -> int:
        """Return the number of regions."""
        values = self.edges if self.edges is not None else self.signal
        return 0 if values is None else int(values.shape[-1 if self.edges is not None else 0])


def _pattern(subject: str | None) -> str | None:
    try:
        re.compile(subject or "")
    except re.error as error:
        raise ValueError(f"{subject!r} is no regular expression: {error}") from error
    return subject


class Connectomes(Config):
    """Connectomes: an npz of many people (`offline.data.connectomes.read_npz`), or a folder of matrices.

    Attributes
    ----------
    path : Path
        Relative to the working directory.
    nodes : str
        Name of the atlas.
    modality : str or None
        Of a folder: ``eeg`` or ``fmri``.  Of an npz: which one is read, both by default.
    subject : str or None
        Of a folder: regular expression on a file's path below it, see `offline.data.sources.Folder`.
    labels : Path or None
        Of a folder: CSV or TSV with columns subject, label and site, names without the prefix.
    prefix : str
        Put in front of every subject's name.
    """

    kind: Literal["connectomes"]
    path: Path
    nodes: str
    modality: Modality | None = None
    subject: str | None = None
    labels: Path | None = None
    prefix: str = ""

    _is_a_pattern = field_validator("subject")(_pattern)

    def people(self) -> Iterator[Person]:
        """Yield everybody in the table, sorted as the file or the folder is."""
        if self.path.suffix.lower() == ".npz":
            for one in connectomes.read_npz(self.path):
                if self.modality in (None, one.modality):
                    yield _with_edges(
                        self.prefix + one.subject, one.modality, self.nodes, one.edges, one.label, one.site
                    )
            return
        if self.modality is None and self.path.is_dir():
            raise RecordingError(f"{self.path} is a folder: say its `modality`, eeg or fmri.")
        about = read_labels(self.labels)
        for name, path in files_below(self.path, connectomes.SUFFIXES, self.subject):
            assert self.modality is not None, "it is a folder"
            label, site = about.get(name, ("", ""))
            edges = connectomes.read_matrix(path)
            yield _with_edges(self.prefix + name, self.modality, self.nodes, edges, label, site)


class Roi(RoiSettings):
    """ROI time series of fMRI: an npz of many runs, or a folder of .1D, .csv, .tsv, .npy, .npz or NIfTI.

    Attributes
    ----------
    path : Path
        Relative to the working directory.
    subject : str or None
        Of a folder: regular expression on a file's path below it, see `offline.data.sources.Folder`.
    label : str
        Of an npz of many runs: name of its array with the labels.
    labels : Path or None
        Of a folder: CSV or TSV with columns subject, label and site, names without the prefix.
    prefix : str
        Put in front of every subject's name.
    """

    kind: Literal["roi"]
    path: Path
    subject: str | None = None
    label: str = "label"
    labels: Path | None = None
    prefix: str = ""

    _is_a_pattern = field_validator("subject")(_pattern)

    def people(self) -> Iterator[Person]:
        """Yield everybody in the table, sorted as the file or the folder is."""
        about = read_labels(self.labels)
        for name, run in self._runs():
            label, site = about.get(name, (run.label or "", run.site or ""))
            if (person := _with_signal(self.prefix + name, run, self, label, site)) is not None:
                yield person

    def _runs(self) -> Iterator[tuple[str, roi.Run]]:
        if self.path.suffix.lower() == ".npz":
            for i, run in enumerate(roi.read_runs(self.path, label=self.label)):
                yield run.subject or f"{self.path.stem}_{i:03d}", run
            return
        for name, path in files_below(self.path, roi.SUFFIXES, self.subject):
            for run in roi.read_runs(path, self.atlas, self.label):
                yield run.subject or name, run


class EdgesOf(Config):
    """A modality of a table of pairs whose files are connectomes; ``nodes`` names their atlas."""

    holds: Literal["edges"]
    nodes: str


class SignalOf(RoiSettings):
    """A modality of a table of pairs whose files are ROI time series."""

    holds: Literal["signal"]


class Pairs(Config):
    """A CSV or TSV with a row per subject: subject, label, site, and the files ``eeg`` and ``fmri``.

    A cell may be empty: that subject has not been measured so, and is not paired.  EEG recordings are no
    files of this table but shards: they belong to the subject of the same name.

    Attributes
    ----------
    path : Path
        Relative to the working directory; the paths in it are relative to its folder.
    eeg : block or None
        ``holds: edges`` and the name of the atlas.
    fmri : block or None
        ``holds: edges`` likewise, or ``holds: signal`` and what `offline.data.roi.RoiSettings` asks for.
    prefix : str
        Put in front of every subject's name.
    """

    kind: Literal["pairs"]
    path: Path
    eeg: EdgesOf | None = None
    fmri: Annotated[EdgesOf | SignalOf, Field(discriminator="holds")] | None = None
    prefix: str = ""

    @model_validator(mode="after")
    def _has_a_modality(self) -> Self:
        if self.eeg is None and self.fmri is None:
            raise ValueError("say what the table's files are: give eeg, fmri or both")
        return self

    def people(self) -> Iterator[Person]:
        """Yield everybody in the table, row by row, EEG before fMRI."""
        sides = {"eeg": self.eeg, "fmri": self.fmri}
        for row in read_rows(self.path, needs=("subject", *(name for name, side in sides.items() if side))):
            for modality in connectomes.MODALITIES:
                side, cell = sides[modality], row.get(modality, "")
                if side is None or not cell:
                    continue
                person = _of_pair(self.prefix + row["subject"], modality, side, self.path.parent / cell, row)
                if person is not None:
                    yield person


Table = Annotated[Connectomes | Roi | Pairs, Field(discriminator="kind")]


def read_table(table: Connectomes | Roi | Pairs) -> list[Person]:
    """Return everybody in a table: one entry per subject and modality.

    Raises
    ------
    RecordingError
        A file is not there, damaged or nothing that can be used; a subject twice in a modality; numbers of
        regions that differ within an atlas, whatever the modality.
    MissingDependency
        NIfTI without nilearn.
    """
    people = list(table.people())
    if not people:
        raise RecordingError(f"{table.path} holds nobody that can be used.")
    first: dict[str, Person] = {}
    for person in people:
        other = first.setdefault(person.nodes, person)
        if person.n_nodes != other.n_nodes:
            raise RecordingError(
                f"{table.path}: {person.modality} of {person.subject} has {person.n_nodes} regions, "
                f"{other.modality} of {other.subject} {other.n_nodes}; all are said to be {person.nodes}. Is "
                "one transposed, or of another atlas?"
            )
    counts = Counter((person.subject, person.modality) for person in people)
    twice = sorted(name for name, n in counts.items() if n > 1)
    if twice:
        raise RecordingError(
            f"{table.path} has {twice[0][1]} of {twice[0][0]} more than once, and so of {len(twice)} in "
            "all: one run each; leave files out, or tell the subjects apart with `subject`."
        )
    return people


def _of_pair(
    subject: str, modality: Modality, side: EdgesOf | SignalOf, path: Path, row: dict[str, str]
) -> Person | None:
    label, site = row.get("label", ""), row.get("site", "")
    if isinstance(side, EdgesOf):
        return _with_edges(subject, modality, side.nodes, connectomes.read_matrix(path), label, site)
    runs = roi.read_runs(path, side.atlas)
    if len(runs) != 1:
        raise RecordingError(f"{path} holds {len(runs)} runs; expected one, of {subject}.")
    return _with_signal(subject, runs[0], side, label, site)


def _with_edges(
    subject: str, modality: Modality, nodes: str, edges: connectomes.Edges, label: str, site: str
) -> Person:
    return Person(
        subject, modality, nodes, edges=edges, label=label, site=site, fingerprint=fingerprint(edges)
    )


def _with_signal(subject: str, run: roi.Run, settings: RoiSettings, label: str, site: str) -> Person | None:
    signal = roi.to_signal(run, settings)
    if signal is None:
        return None
    of = fingerprint(np.ascontiguousarray(run.data))
    return Person(subject, "fmri", settings.nodes, signal, 1 / settings.tr_s, None, label, site, of)
