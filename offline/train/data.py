"""Whose recordings a training learns from and is validated on: read, and preprocessed as live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offline.data.fingerprint import refuse_copies
from offline.data.segments import chosen
from offline.data.sources import Subject, find, select
from offline.data.trials import Prepared
from offline.finetune.data import adapted_prior
from offline.probe.features import Signal
from offline.probe.tasks import Session
from offline.train.recipe import Recipe
from streamer.dsp import StepConfig
from streamer.errors import ConfigError, RecordingError


@dataclass(frozen=True, slots=True)
class Side:
    """The recordings of the people on one side, train or validate.

    Attributes
    ----------
    sessions : tuple of Session
        Those with a marker of the recipe's classes other than idle, by subject.
    stretches : tuple of tuple of Prepared
        Of each session, between its holes.
    """

    sessions: tuple[Session, ...]
    stretches: tuple[tuple[Prepared, ...], ...]

    @property
    def prepared(self) -> list[Prepared]:
        """Return all stretches, one after the other."""
        return [one for some in self.stretches for one in some]

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Return those of the recordings, sorted."""
        return tuple(sorted(one.fingerprint for one in self.sessions))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Return the people, sorted."""
        return tuple(sorted({one.subject for one in self.sessions}))


@dataclass(frozen=True, slots=True)
class Material:
    """What a training works on: both sides, and the DSP list with its prior."""

    dsp: tuple[StepConfig, ...]
    train: Side
    validate: Side


def read_material(recipe: Recipe) -> Material:
    """Read and preprocess every recording of a recipe; all of it stays in memory.

    Raises
    ------
    ConfigError
        Subjects that both train and validate, or samples that two people have.
    RecordingError
        No such folder or subject; nobody on a side was asked for any of the classes.
    StreamMismatch
        A recording lacks a channel, or a step cannot work on it.
    """
    train_subjects, validate_subjects = _people(recipe)
    training, held_out = _sessions(train_subjects, recipe), _sessions(validate_subjects, recipe)
    refuse_copies((one.fingerprint, one.subject, one.name) for one in (*training, *held_out))
    plain = Signal(recipe.ch_names, recipe.sfreq, recipe.dsp)
    signal = Signal(recipe.ch_names, recipe.sfreq, adapted_prior(training, plain))
    return Material(signal.dsp, _side(training, signal, recipe), _side(held_out, signal, recipe))


def validation_sessions(recipe: Recipe) -> list[Session]:
    """Read the recordings of the validation subjects; raises as `read_material`."""
    return _sessions(_people(recipe)[1], recipe)


def training_sessions(recipe: Recipe) -> list[Session]:
    """Read the recordings of the training subjects; raises as `read_material`."""
    return _sessions(_people(recipe)[0], recipe)


def prepare(session: Session, signal: Signal, classes: Sequence[str]) -> tuple[Prepared, ...]:
    """Return the stretches between a recording's holes behind the DSP list, with the spans of its markers.

    A span that began before a stretch has a negative first sample.
    """
    markers = [marker for marker in session.recording.markers if marker.label in classes]
    found = []
    for one in signal.stretches(session.recording):
        if not len(one):
            continue
        spans = [
            (
                round((m.time - one.times[0]) * signal.sfreq),
                round((m.time + m.duration - one.times[0]) * signal.sfreq),
                list(classes).index(m.label),
            )
            for m in markers
        ]
        found.append(Prepared(session.subject, one.data, tuple(spans), float(one.times[0])))
    return tuple(found)


def _people(recipe: Recipe) -> tuple[list[Subject], list[Subject]]:
    subjects = {subject.name: subject for subject in find(recipe.data.folders, recipe.data.moabb)}
    where = " and ".join(
        [*(str(one.path) for one in recipe.data.folders), *(one.dataset for one in recipe.data.moabb)]
    )
    train, validate = (
        select(list(subjects), names, where) for names in (recipe.data.train, recipe.data.validate_)
    )
    if shared := sorted(set(train) & set(validate)):
        raise ConfigError(f"Subjects {', '.join(shared)} both train and validate: separate them.")
    return [subjects[name] for name in train], [subjects[name] for name in validate]


def _sessions(subjects: Sequence[Subject], recipe: Recipe) -> list[Session]:
    """Return the recordings that ask for any class; idle, which is everywhere, counts where it is to."""
    asked = set(recipe.classes) - (set() if recipe.data.idle_only else {recipe.idle})
    found = []
    for subject in subjects:
        for name, read in subject.openers():
            recording, fingerprint = read()
            if asked & {marker.label for marker in recording.markers}:
                found.append(Session(subject.name, name, chosen(recording, recipe.stype), fingerprint))
    if not found:
        raise RecordingError(
            f"None of {', '.join(one.name for one in subjects)} has a recording with a marker "
            f"{' or '.join(sorted(asked))}."
        )
    return found


def _side(sessions: Sequence[Session], signal: Signal, recipe: Recipe) -> Side:
    return Side(tuple(sessions), tuple(prepare(one, signal, recipe.classes) for one in sessions))
