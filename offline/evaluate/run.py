"""Plays every recording of a folder through every bundle: `evaluate_all`, and one bundle's `evaluate`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.backends import Backend
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, digest
from offline.data.fingerprint import content_of
from offline.data.sources import Subject
from offline.evaluate.namesakes import namesakes, told, told_met
from offline.evaluate.played import Played, play, undecided
from offline.evaluate.recordings import Looked, Options, Task, find_people, look, task_of, trained_on
from offline.evaluate.renaming import refuse_unused
from offline.evaluate.scores import Scores, score
from offline.probe.tasks import Session
from offline.provenance import versions
from streamer.errors import RecordingError, StreamMismatch

PLAYED = "played"  # sub-folder of an evaluation's folder
FORMAT = 5  # of what is kept: another one is played again
Progress = Callable[[str, int, int], None]
Playing = Callable[[Bundle, Backend, Session], Played]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a bundle said about a folder.

    Attributes
    ----------
    name : str
        Of the bundle, and different from every other one's in the run.
    bundle : Bundle
    task : Task
    played : list of Played
    excluded : list of str
        Recordings left out because they, or others of the same person, had a part in the bundle's weights.
    skipped : dict
        Recordings that could not be scored, and why.
    known : set of str
        People of whom a recording had a part in the bundle's weights itself.
    met : set of str
        People of whom recordings were left out because of others.
    assumed : set of str
        What was taken for granted of the recordings.
    seconds : float
        What it took.
    """

    name: str
    bundle: Bundle
    task: Task
    played: list[Played] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)
    assumed: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def scores(self) -> Scores:
        """Score it, by the bundle's own decision settings."""
        readout = self.bundle.readout
        return score(
            self.played,
            readout.classes,
            readout.idle,
            self.task.protocol,
            decision=readout.decision,
            bounds=[point.bound for point in readout.operating],
        )

    def notes(self) -> list[str]:
        """Return who is left out as known, who may be known in another form, and what was assumed."""
        # Whose recordings were known are there as they were learned from, not in another form.
        doubted = namesakes(self.bundle, {one.subject for one in self.played} - self.known)
        return [*told_met(self.met), *told(doubted), *sorted(self.assumed)]


def evaluate_all(
    bundles: Sequence[Bundle],
    path: str | Path,
    subjects: Sequence[str] | None = None,
    *,
    options: Options | None = None,
    keep: Path | None = None,
    playing: Playing = play,
    progress: Progress = lambda what, done, total: None,
) -> list[Evaluation]:
    """Play every recording of these subjects that can be scored; what was played before is read.

    Parameters
    ----------
    path : str or Path
        Folder of recordings.
    keep : Path, optional
        Where what is played is kept, so that a run goes on where it stopped.
    playing : callable, optional
        Instead of `play`; what it makes is not that of `play`, so do not give them the same ``keep``.

    Raises
    ------
    RecordingError
        No such folder or subject, or nothing that can be scored.
    BundleError
        A bundle that decides nothing.
    ConfigError
        A new name for what no recording has.
    """
    tasks = [task_of(bundle, path, options) for bundle in bundles]
    people = [find_people(task, subjects) for task in tasks]
    refuse_unused(tasks[0], people[0], options)
    total, done = sum(len(some) for some in people), 0
    made = []
    for name, bundle, task, some in zip(names_of(bundles), bundles, tasks, people, strict=True):
        started, one, held = time.monotonic(), Evaluation(name, bundle, task), dict[str, str]()
        with OnnxRuntime().open(bundle) as backend:
            for subject in some:
                progress(f"{name}: {subject.name}", done, total)
                for looked in look(bundle, task, subject, trained_on(bundle), held):
                    one.known.update([subject.name] if looked.known else [])
                    one.met.update([subject.name] if looked.met else [])
                    _add(one, looked, backend, keep, playing)
                done += 1
        made.append(replace(one, seconds=round(time.monotonic() - started, 1)))
    progress("", total, total)
    empty = [one for one in made if not one.played]
    if empty:
        raise RecordingError(_nothing(empty[0]))
    return made


def evaluate(
    bundle: Bundle,
    path: str | Path,
    subjects: Sequence[str] | None = None,
    *,
    options: Options | None = None,
    keep: Path | None = None,
) -> Evaluation:
    """Play one bundle; as `evaluate_all`."""
    return evaluate_all([bundle], path, subjects, options=options, keep=keep)[0]


def scorable(
    bundle: Bundle, task: Task, person: Subject, held: dict[str, str] | None = None
) -> list[Session]:
    """Read the recordings of a person that an evaluation scores, in its order; ``held`` as for `look`."""
    looked = look(bundle, task, person, trained_on(bundle), held)
    return [each.session for each in looked if each.session is not None]


def kept_as(keep: Path, bundle: Bundle, task: Task, content: str) -> Path:
    """Return where what this bundle says of this recording is kept.

    The name holds all that it depends on: the bundle, the recording as it was read (its `content_of`), what
    is looked at, and the version of the engine.
    """
    settings = {**task.settings(), "versions": versions("onnxruntime"), "format": FORMAT}
    how = digest(json.dumps(settings, sort_keys=True).encode())[:8]
    return keep / PLAYED / identity_of(bundle) / f"{content}-{how}.npz"


def identity_of(bundle: Bundle) -> str:
    """Return what tells a bundle from every other one, of its name too: of its manifest, hashes included."""
    return digest(bundle.manifest.model_dump_json(exclude_defaults=True).encode())[:16]


def _add(one: Evaluation, looked: Looked, backend: Backend, keep: Path | None, playing: Playing) -> None:
    """Play a recording, or say why not."""
    if looked.known or looked.met:
        one.excluded.append(looked.where)
    elif looked.session is None:
        one.skipped[looked.where] = looked.why
    else:
        try:
            played = _played(one, looked.session, backend, keep, playing)
            if why := undecided(played):
                one.skipped[looked.where] = why
                return
            one.played.append(played)
            one.assumed.update(looked.notes)
        except (RecordingError, StreamMismatch) as error:
            one.skipped[looked.where] = str(error)


def _played(
    one: Evaluation, session: Session, backend: Backend, keep: Path | None, playing: Playing
) -> Played:
    if keep is None:
        return playing(one.bundle, backend, session)
    path = kept_as(keep, one.bundle, one.task, content_of(session.recording))
    if path.is_file():
        with suppress(RecordingError):  # what is damaged is played again
            markers = tuple(session.recording.markers)  # may be others, although the samples are the same
            return replace(Played.load(path), subject=session.subject, name=session.name, markers=markers)
    played = playing(one.bundle, backend, session)
    path.parent.mkdir(parents=True, exist_ok=True)
    played.save(path)
    return played


def data_of(folder: Path) -> str:
    """Return what a report calls this folder."""
    return str(folder.resolve())


def names_of(bundles: Sequence[Bundle]) -> list[str]:
    """Return a name for each: its label, with its folder where two share that, with a number else."""
    labels = [bundle.label for bundle in bundles]
    names: list[str] = []
    for bundle, label in zip(bundles, labels, strict=True):
        name = label if labels.count(label) == 1 else f"{label} ({bundle.folder.name})"
        names.append(name if name not in names else f"{name} #{len(names) + 1}")
    return names


def _nothing(one: Evaluation) -> str:
    lines = [
        f"Nothing to score in {one.task.folder.path} with {one.name}: {len(one.excluded)} recordings had a "
        "part in training, or are of people of whom others had"
    ]
    lines += [f"{where}: {reason}" for where, reason in list(one.skipped.items())[:3]]
    return (
        "; ".join(lines)
        + ". Give recordings of subjects held out of training, with markers of the bundle's classes."
    )


def document_of(one: Evaluation, scores: Scores) -> dict[str, Any]:
    """Return every figure of an evaluation, and where it comes from, as one JSON-able mapping."""
    from offline.provenance import machine

    readout = one.bundle.readout
    return {
        "bundle": one.name,
        "identity": identity_of(one.bundle),
        "data": data_of(one.task.folder.path),
        **scores.document(),
        "n_trials": scores.n,
        "n_trials_cut": scores.n_cut,
        "n_recordings": len(one.played),
        "classes": list(readout.classes),
        "idle_class": readout.idle,
        "temperature": readout.temperature,
        "decision": readout.decision.model_dump(mode="json"),
        "excluded": one.excluded,
        "skipped": one.skipped,
        "notes": one.notes(),
        "adapted": sorted({note for played in one.played for note in played.notes}),
        "protocol_settings": one.task.protocol.model_dump(mode="json"),
        "from": "each recording from a fresh start; people trained on left out",
        "seconds": one.seconds,
        "machine": machine(),
        "versions": versions("numpy", "scipy", "onnxruntime"),
    }
