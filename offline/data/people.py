"""Whose the recordings of a folder are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from offline.data.fingerprint import DAMAGED
from offline.data.sources import Folder, Subject, find


def people_in(folder: Folder) -> list[Subject]:
    """Return who is in the folder, sorted by name.

    Subjects are told apart by the folder's pattern; without one by what the recordings' own files say
    (``subject`` in the ``meta`` of an npz), else by sub-folder or file name.

    Raises
    ------
    RecordingError
        No such folder, or no recording.
    """
    people = find([folder], [])
    return _regrouped(people, folder) if folder.subject is None else people


def _regrouped(people: Sequence[Subject], folder: Folder) -> list[Subject]:
    """Return the same files by the subject that they themselves name, where they do."""
    files: dict[str, list[Path]] = {}
    for person in people:
        for path in person.files:
            files.setdefault(_named(path) or person.name, []).append(path)
    return [Subject(name, folder, tuple(sorted(files[name]))) for name in sorted(files)]


def _named(path: Path) -> str | None:
    """Return the subject that an npz says it is of; None where it says nothing."""
    if path.suffix.lower() != ".npz":
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
        return str(meta["subject"]) if meta.get("subject") else None
    except DAMAGED:
        return None  # reading it will say what is wrong
