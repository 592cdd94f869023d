"""Labelled windows of recordings, who is tested on them, and which labels are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.data.fingerprint import asked_of, refuse_copies
from offline.data.segments import chosen
from offline.data.sources import Folder, Subject, find, select
from offline.probe.recipe import Task, digest
from streamer.errors import ConfigError, RecordingError
from streamer.sources.recording import Recording

Index = NDArray[np.int64]
Span = tuple[float, float, int]


@dataclass(frozen=True, slots=True)
class Session:
    """A recording, whose it is, and the fingerprint that tells whether a net has seen it."""

    subject: str
    name: str
    recording: Recording
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows in the order of their recordings; all arrays have one entry per window.

    Attributes
    ----------
    sessions : tuple of Session
    session : ndarray of int
        Place in ``sessions``.
    start_s, stop_s : ndarray of float
        On the recording's own clock: the samples with start < time <= stop.
    labels : ndarray of int
        Place in the task's ``classes``.
    subjects : ndarray of str
    """

    sessions: tuple[Session, ...]
    session: Index
    start_s: NDArray[np.float64]
    stop_s: NDArray[np.float64]
    labels: Index
    subjects: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Return 16 hex digits that identify the recordings as they were read, and their markers."""
        return digest(" ".join(asked_of(one.recording) for one in self.sessions))


@dataclass(frozen=True, slots=True)
class Split:
    """Windows that may be learned from and windows that are tested; no subject is in both."""

    train: Index
    test: Index


def find_windows(task: Task) -> Windows:
    """Read the task's recordings and return every window of the subjects it names.

    Raises
    ------
    RecordingError
        No such folder or subject, a subject without a window of any class, or a class without a window.
    ConfigError
        Two people have the same samples.
    """
    sessions: list[Session] = []
    rows: list[tuple[int, float, float, int, str]] = []
    for one in read_sessions(task.folder, (*task.train, *task.test), task.stype, holes=True):
        spans = spans_of(one.recording, task.classes, task.from_s, task.window_s)
        rows += [(len(sessions), *span, one.subject) for span in spans]
        sessions += [one] if spans else []
    refuse_copies((one.fingerprint, one.subject, one.name) for one in sessions)
    without = sorted(set(_names(task, [*task.train, *task.test])) - {row[-1] for row in rows})
    if without:
        raise RecordingError(
            f"{task.folder.path}: no window of {task.window_s:g} s from {task.from_s:g} s after a marker "
            f"{' or '.join(task.classes)} in the recordings of {', '.join(without)}. Leave them out, or "
            "shorten the window."
        )
    session, start, stop, labels, subjects = (np.array(column) for column in zip(*rows, strict=True))
    absent = [name for label, name in enumerate(task.classes) if label not in labels]
    if absent:
        there = sorted({marker.label for one in sessions for marker in one.recording.markers})
        raise RecordingError(
            f"{task.folder.path} has no window of {', '.join(absent)}; its markers are {', '.join(there)}."
        )
    return Windows(tuple(sessions), session, start, stop, labels, subjects)


def read_sessions(
    folder: Folder, subjects: Sequence[str], stype: str, *, holes: bool = False
) -> list[Session]:
    """Read the recordings of these subjects (names, or ranges of them), channels of one type only.

    Raises
    ------
    RecordingError
        No such folder or subject, or as `sessions_of`.
    """
    people = find([folder.model_copy(update={"include": tuple(subjects)})], [])
    return sessions_of(people, stype, holes=holes)


def sessions_of(people: Sequence[Subject], stype: str, *, holes: bool = False) -> list[Session]:
    """Read everybody's recordings, channels of one type only.

    Raises
    ------
    RecordingError
        A recording that is damaged, has no such channel, or has holes where those are not let in.
    """
    found = []
    for subject in people:
        for name, read in subject.openers():
            recording, fingerprint = read()
            if recording.breaks and not holes:
                raise RecordingError(
                    f"{subject.name}, {name} has {len(recording.breaks)} holes; it needs none."
                )
            found.append(Session(subject.name, name, chosen(recording, stype), fingerprint))
    return found


def splits(task: Task, windows: Windows) -> list[Split]:
    """Return who is trained and tested on: one split, or one per fold of the training subjects.

    Raises
    ------
    ConfigError
        A subject is named for both, or there are fewer subjects than folds.
    """
    train = _names(task, task.train)
    if task.folds is None:
        test = _names(task, task.test)
        shared = set(train) & set(test)
        if shared:
            raise ConfigError(f"Subjects {', '.join(sorted(shared))} both train and test: separate them.")
        return [_split(windows, train, test)]
    if len(train) < task.folds:
        raise ConfigError(f"{len(train)} subjects do not make {task.folds} folds: lower folds.")
    groups = [train[i :: task.folds] for i in range(task.folds)]
    return [_split(windows, [s for s in train if s not in group], group) for group in groups]


def draw_labels(labels: Index, fraction: float, seed: int) -> Index:
    """Return the places, ascending, of the windows whose labels are given.

    Of each class the same share, at least one; smaller draws of a seed are contained in larger ones.
    """
    drawn = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        order = np.random.default_rng((seed, int(label))).permutation(len(places))
        drawn.append(places[order[: max(1, round(fraction * len(places)))]])
    return np.sort(np.concatenate(drawn))


def _names(task: Task, wanted: Sequence[str]) -> list[str]:
    """Return the subjects that names and ranges of names stand for."""
    return select([subject.name for subject in find([task.folder], [])], wanted, str(task.folder.path))


def spans_of(recording: Recording, classes: Sequence[str], from_s: float, window_s: float) -> list[Span]:
    """Return start, stop and class of every window, in time order; none lies across a hole or in one."""
    end_s = float(recording.times[-1]) + 1 / recording.info.sfreq
    spans = []
    for marker in recording.markers:
        if marker.label in classes:
            n = int((min(marker.duration, end_s - marker.time) - from_s) / window_s + 1e-6)
            starts = [marker.time + from_s + i * window_s for i in range(n)]
            spans += [(start, start + window_s, classes.index(marker.label)) for start in starts]
    return [span for span in spans if _recorded(recording, *span[:2])] if recording.breaks else spans


def _recorded(recording: Recording, start_s: float, stop_s: float) -> bool:
    """Say whether every sample between these times is there."""
    half = 0.5 / recording.info.sfreq
    first, stop = np.searchsorted(recording.times, (start_s - half, stop_s - half))
    return bool(stop - first == round((stop_s - start_s) * recording.info.sfreq))


def _split(windows: Windows, train: Sequence[str], test: Sequence[str]) -> Split:
    return Split(
        np.flatnonzero(np.isin(windows.subjects, train)), np.flatnonzero(np.isin(windows.subjects, test))
    )
