"""One person's recordings, as a bundle that is to be theirs sees them."""

from __future__ import annotations

from dataclasses import dataclass

from offline.data.sources import Subject
from offline.evaluate.namesakes import namesakes
from offline.evaluate.recordings import Task, look, trained_on
from offline.personal.origin import Origin
from offline.personal.shown import Shown, shown_by
from offline.probe.features import Signal
from offline.train.data import Side, prepare
from streamer.errors import RecordingError


@dataclass(frozen=True, slots=True)
class Person:
    """One person's recordings behind the DSP list, what was asked in them, and why others were left out.

    ``namesake`` says that the bundle has learned from somebody of that name, ``assumed`` what was taken for
    granted of the markers.
    """

    name: str
    side: Side
    shown: Shown
    left_out: tuple[str, ...]
    namesake: bool
    assumed: frozenset[str] = frozenset()


def read_person(one: Origin, task: Task, subject: Subject) -> Person:
    """Preprocess one person's recordings as live and cut their trials out.

    Raises
    ------
    RecordingError
        None can be used; says why.
    StreamMismatch
        A recording lacks a channel.
    """
    looked = list(look(one.bundle, task, subject, trained_on(one.bundle)))
    sessions = [each.session for each in looked if each.session is not None]
    left_out = tuple(f"{each.where}: {each.why}" for each in looked if each.session is None)
    if not sessions:
        raise RecordingError(f"No recording of {subject.name} can be used: {'; '.join(left_out)}.")
    recipe = one.run.recipe
    signal = Signal(recipe.ch_names, recipe.sfreq, one.run.dsp)
    side = Side(tuple(sessions), tuple(prepare(session, signal, recipe.classes) for session in sessions))
    namesake = bool(namesakes(one.bundle, [subject.name]))
    assumed = frozenset(note for each in looked for note in each.notes)
    return Person(subject.name, side, shown_by(one.model, side, recipe), left_out, namesake, assumed)
