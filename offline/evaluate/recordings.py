"""Which recordings of a folder a bundle is scored on, whose they are, and what is asked of it there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, ValidationError

from engine.adapt import fit
from engine.answers import ATOM_S, told_task
from engine.bundle import Bundle
from engine.faults import faults
from offline.data.fingerprint import fingerprint_of_file
from offline.data.segments import chosen
from offline.data.sources import Folder, Subject, find, select, subject_of
from offline.evaluate.durations import with_durations
from offline.evaluate.played import QUALITY
from offline.evaluate.protocol import Trials, Windows, parse
from offline.probe.tasks import Session
from streamer.components import Config
from streamer.errors import BundleError, ConfigError, RecordingError, StreamMismatch

FOLDER_KEYS = ("subject", "hold", "uv_per_count", "holes", "channels", "labels")


class Options(Config):
    """What a user says of a folder and of the protocol; what is not said is the bundle's own.

    Attributes
    ----------
    folder : dict
        Settings of `offline.data.sources.Folder`, without its path.
    protocol : dict
        Settings of `offline.evaluate.protocol`; with another ``kind`` than the bundle's they stand alone.
    trial_s : float, optional
        How long a marker asks for its class where it does not say it itself; None: as `engine.lasting`.
    """

    folder: dict[str, Any] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    trial_s: PositiveFloat | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What a bundle is scored on.

    Attributes
    ----------
    folder : Folder
    stype : str
        Type of the channels that are looked at.
    protocol : Trials or Windows
    trial_s : float or None
        As in `Options`.
    """

    folder: Folder
    stype: str
    protocol: Trials | Windows
    trial_s: float | None = None

    def settings(self) -> dict[str, Any]:
        """Return what a recording's decisions depend on, beside its samples and the bundle."""
        return {**self.folder.model_dump(mode="json", include=set(FOLDER_KEYS[1:])), "stype": self.stype}


def task_of(bundle: Bundle, path: str | Path, options: Options | None = None) -> Task:
    """Return what the bundle's provenance says of its task, and on top of it what the user says.

    The bundle's folder settings are those of the corpus that it was trained on; they are left aside for a
    folder in which its subject pattern fits no file.

    Raises
    ------
    BundleError
        The bundle decides nothing, or what it says of its task makes no sense.
    ConfigError
        What the user says makes no sense.
    """
    options, own = options or Options(), told_task(bundle.manifest.provenance)
    task = Task(
        _folder(Path(path), own.get("folder", {}), options.folder),
        str(own.get("stype", bundle.manifest.input.stype)).upper(),
        protocol_of(bundle, options),
        options.trial_s,
    )
    if isinstance(task.protocol, Trials) and 0 < (task.trial_s or 0) < task.protocol.at_s - ATOM_S:
        raise ConfigError(
            f"Trials are said to last {task.trial_s:g} s, and the answer to each cue is asked for "
            f"{task.protocol.at_s:g} s after it: give a longer --trial-s, or an earlier --at-s."
        )
    bundle.readout  # noqa: B018 - refuses a bundle without classes, in words
    return task


def protocol_of(bundle: Bundle, options: Options | None = None) -> Trials | Windows:
    """Return what the bundle is asked, and on top of it what the user says; raises as `task_of`."""
    own = told_task(bundle.manifest.provenance)
    return _protocol(bundle, own.get("protocol", {}), (options or Options()).protocol)


def find_people(task: Task, wanted: Sequence[str] | None = None) -> list[Subject]:
    """Return who is in the folder, or those of them that are wanted, sorted by name.

    Raises
    ------
    RecordingError
        No such folder or subject, or no recording.
    """
    people = find([task.folder], [])
    if wanted is None:
        return people
    names = select([one.name for one in people], wanted, str(task.folder.path))
    return [one for one in people if one.name in names]


def openers(task: Task, subject: Subject) -> Iterator[tuple[str, Any]]:
    """Yield each recording's name, and a function that reads it or raises `RecordingError`."""
    for name, read in subject.openers():
        yield name, partial(_open, task, subject.name, name, read)


@dataclass(frozen=True, slots=True)
class Looked:
    """A recording as a bundle sees it.

    Attributes
    ----------
    where : str
        Subject and recording.
    session : Session or None
        None where it cannot be used.
    why : str
        It cannot; empty where it can.
    known : bool
        Whether that is that it had a part in the bundle's weights.
    notes : tuple of str
        What was taken for granted of its markers.
    met : bool
        Whether that is that another recording of the same person had one.
    """

    where: str
    session: Session | None
    why: str = ""
    known: bool = False
    notes: tuple[str, ...] = ()
    met: bool = False


def look(
    bundle: Bundle, task: Task, subject: Subject, known: Set[str], held: dict[str, str] | None = None
) -> Iterator[Looked]:
    """Read one person's recordings in turn: those that the bundle can be asked about, and why others cannot.

    Of somebody of whom a recording is known none is asked about: the bundle is surer of them than of anybody.
    Markers that do not say how long they last are given what can be known of it, as `engine.lasting` says.

    Parameters
    ----------
    known : set of str
        Fingerprints of recordings that are left out, as `trained_on` gives them.
    held : dict, optional
        Recordings of people looked at before, by fingerprint: what holds the same samples counts once.  Those
        of this person are added.
    """
    readout, met, held = bundle.readout, _met(bundle, subject, known), {} if held is None else held
    for name, read in openers(task, subject):
        where = f"{subject.name}/{name}"
        try:
            session, notes = with_durations(read(), readout.classes, readout.idle, task.trial_s)
        except (RecordingError, StreamMismatch) as error:
            yield Looked(where, None, str(error))
            continue
        if session.fingerprint in known:
            yield Looked(where, None, "had a part in the bundle's training", known=True)
        elif met:
            why = "is of somebody of whom another recording had a part in the bundle's training"
            yield Looked(where, None, why, met=True)
        elif session.fingerprint in held:
            yield Looked(where, None, f"holds the same samples as {held[session.fingerprint]}")
        elif why := (
            fits_protocol(session, readout.classes, readout.idle, task)
            or _outlasted(session, readout.classes, readout.idle, task)
            or _misfit(bundle, session)
        ):
            yield Looked(where, None, why)
        else:
            held[session.fingerprint] = where
            yield Looked(where, session, notes=notes)


def _met(bundle: Bundle, subject: Subject, known: Set[str]) -> bool:
    """Say whether the bundle has learned from a person; whose own it was made, it is to be used by."""
    own = bundle.manifest.provenance.get("fingerprints", {}).get("personal", ())
    others = known - set(own)
    return bool(others) and any(_fingerprint(path) in others for path in subject.files)


def _fingerprint(path: Path) -> str | None:
    try:
        return fingerprint_of_file(path)
    except RecordingError:
        return None  # reading it will say what is wrong


def _outlasted(session: Session, classes: Sequence[str], idle: str | None, task: Task) -> str:
    """Say that every trial is over when its answer is asked for, or nothing.

    A marker may last for the cue alone, so a trial is over when the next class is asked for; only the last
    one when its marker ends.
    """
    if not isinstance(task.protocol, Trials):
        return ""
    asked = {classes[place] for place in task.protocol.asked(classes, idle)}
    told = [marker for marker in session.recording.markers if marker.label in classes]
    ordered = sorted(told, key=lambda marker: marker.time)
    lasting = [after.time - one.time for one, after in pairwise(ordered) if one.label in asked]
    if ordered[-1].label in asked:
        lasting.append(ordered[-1].duration or float("inf"))
    if (longest := max(lasting)) >= task.protocol.at_s - ATOM_S:
        return ""
    return (
        f"its trials last {longest:.3g} s at most, and their answers are asked for {task.protocol.at_s:g} s "
        "after the cue: give --at-s of at most that"
    )


def _misfit(bundle: Bundle, session: Session) -> str:
    """Say why the bundle cannot be fed a recording, or nothing: what `play` would find, in milliseconds."""
    try:
        fit(bundle, session.recording.info, QUALITY)
    except StreamMismatch as error:
        return str(error)
    return ""


def trained_on(bundle: Bundle, but: str | None = None) -> set[str]:
    """Return the fingerprints of recordings that had a part in the bundle's weights, another than ``but``."""
    listed = bundle.manifest.provenance.get("fingerprints", {})
    return {str(one) for part, group in listed.items() if part != but for one in group}


def open_file(task: Task, path: Path) -> Session:
    """Read one file as a `Session` of the subject that its folder, or its name, stands for.

    Raises
    ------
    RecordingError
        No such file, damaged, or without a channel of the task's type.
    """
    if not path.is_file():
        raise RecordingError(f"No file {path}: expected a recording.")
    person = Subject(path.parent.name, task.folder, (path,))
    _, read = next(openers(task, person))
    session: Session = read()
    return session


def _open(task: Task, subject: str, name: str, read: Any) -> Session:
    recording, fingerprint = read()
    return Session(subject, name, chosen(recording, task.stype), fingerprint)


def _folder(path: Path, own: Mapping[str, Any], said: Mapping[str, Any]) -> Folder:
    trained = {key: own[key] for key in FOLDER_KEYS if own.get(key) is not None}
    pattern = trained.get("subject")
    if pattern is not None and not _fits(path, str(pattern)):
        trained = {}
    try:
        return Folder.model_validate({**trained, **said, "path": path})
    except ValidationError as error:
        raise ConfigError(f"{path}: settings of the folder make no sense:\n{faults(error)}") from error


def _fits(path: Path, pattern: str) -> bool:
    files = (file for file in path.rglob("*") if file.is_file())
    return any(subject_of(file.relative_to(path), pattern) is not None for file in files)


def _protocol(bundle: Bundle, own: Mapping[str, Any], said: Mapping[str, Any]) -> Trials | Windows:
    kind = said.get("kind", "windows" if "window_s" in said else own.get("kind", "trials"))
    start = dict(own) if own.get("kind", "trials") == kind else {}
    live = {**own.get("live", {}), **said.get("live", {})}
    try:
        return parse({**start, **said, "kind": kind, "live": live})
    except ValidationError as error:
        if said:
            raise ConfigError(f"The protocol makes no sense:\n{faults(error)}") from error
        raise BundleError(f"Bundle {bundle.label} says of its own protocol:\n{faults(error)}") from error


def fits_protocol(session: Session, classes: Sequence[str], idle: str | None, task: Task) -> str:
    """Say why a recording cannot be scored, or nothing."""
    asked = [classes[place] for place in task.protocol.asked(classes, idle)]
    there = {marker.label for marker in session.recording.markers}
    if not there & set(asked):
        found = ""
        if there:
            names = ", ".join(sorted(there))
            found = f"; its markers are {names}, and `--labels OLD={asked[0]}` renames one"
        return f"has no marker {' or '.join(asked)}{found}"
    kind = dict(session.recording.meta.get("file", {})).get("task")
    if kind == "execution":  # such movements are marked by the same words as imagined ones
        return "is of task 'execution', not imagery"
    return _too_short(session, asked, task.protocol) if isinstance(task.protocol, Windows) else ""


def _too_short(session: Session, asked: Sequence[str], protocol: Windows) -> str:
    """Say that no marker lasts for a window, or nothing."""
    longest = max(marker.duration for marker in session.recording.markers if marker.label in asked)
    needed = protocol.from_s + protocol.window_s
    if longest >= needed - ATOM_S:
        return ""
    lasts = f"lasts longer than {longest:g} s" if longest else "says how long it lasts (see --trial-s)"
    return f"no marker of {', '.join(asked)} {lasts}, and a window needs {needed:g} s"
