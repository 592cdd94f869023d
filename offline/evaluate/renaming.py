"""What a user says of channels, markers and counts, held against what the recordings have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from offline.data.sources import Subject
from offline.evaluate.recordings import Options, Task
from streamer.errors import ConfigError, RecordingError

LISTED = 20  # names in the message
Names = dict[str, set[str]]


def refuse_unused(task: Task, people: Sequence[Subject], options: Options | None) -> None:
    """Refuse a new name for what no recording has, a slip of the pen, and a unit that all tell themselves.

    Recordings are read until all of it was met, so mostly one; where none can be read nothing is said.

    Raises
    ------
    ConfigError
        No recording of these people has such a channel or marker, or lacks a unit; lists what there is.
    """
    said = {} if options is None else options.folder
    asked = {what: dict(said.get(what) or {}) for what in ("channels", "labels")}
    asked["unit"] = {"unknown": said["uv_per_count"]} if said.get("uv_per_count") else {}
    there: Names = {what: set() for what in asked}
    if not any(asked.values()):
        return
    for found in _found(task, people):
        there = {what: there[what] | found[what] for what in asked}
        if all(asked[what].keys() <= there[what] for what in asked):
            return
    if not there["channels"]:
        return
    what, old = next((what, old) for what in asked for old in asked[what] if old not in there[what])
    names = sorted(there[what])
    if what == "unit":
        raise ConfigError(
            f"--uv-per-count {asked[what][old]:g} changes nothing: the recordings in {task.folder.path} tell "
            f"their unit, {' or '.join(names)}. Leave it out."
        )
    listed = ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
    raise ConfigError(
        f"--{what} {old}={asked[what][old]} renames nothing: no recording in {task.folder.path} has {old}; "
        f"there are {listed or 'none'}."
    )


def _found(task: Task, people: Sequence[Subject]) -> Iterator[Names]:
    """Yield the names in each recording that can be read, as they are in the file."""
    plain = task.folder.model_copy(update={"channels": {}, "labels": {}, "uv_per_count": None})
    for person in people:
        for _, read in replace(person, origin=plain).openers():
            try:
                recording, _ = read()
            except RecordingError:
                continue  # whoever plays it says what is wrong
            yield {
                "channels": set(recording.info.ch_names),
                "labels": {marker.label for marker in recording.markers},
                "unit": {recording.info.unit},
            }
