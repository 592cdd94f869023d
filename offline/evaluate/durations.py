"""How long the markers of a recording last that do not say it themselves, and what to tell of them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from engine.lasting import endless, lasting
from offline.probe.tasks import Session

MOST, LONGEST = 8, 30  # names that a note lists, and letters of each


def with_durations(
    session: Session, classes: Sequence[str], idle: str | None, trial_s: float | None
) -> tuple[Session, tuple[str, ...]]:
    """Return the recording with what can be known of how long its markers last, and what to tell of it."""
    recording = session.recording
    end_s = float(recording.times[-1]) + 1 / recording.info.sfreq
    markers = lasting(recording.markers, classes, idle, end_s, trial_s=trial_s)
    points = {one.label for one in recording.markers if one.duration <= 0 and one.label in classes}
    notes = []
    if points and trial_s is None:
        notes.append(
            f"markers of {_listed(classes, points)} do not say how long they last: each was taken to last "
            f"until the next{f', if that is of {idle}' if idle else ''}; --trial-s says otherwise"
        )
    if open_ended := {one.label for one in endless(markers, classes, idle)}:
        notes.append(
            f"nobody says when some of {_listed(classes, open_ended)} were over, as no {idle} follows: they "
            "count neither as windows nor as commands, and what follows not as idle; say it with --trial-s"
        )
    if others := list(dict.fromkeys(one.label for one in markers if one.label not in classes)):
        listed = ", ".join(label[:LONGEST] for label in others[:MOST]) + ", ..." * (len(others) > MOST)
        notes.append(f"markers of other names ask for nothing here: {listed}; --labels OLD=NEW renames them")
    return replace(session, recording=replace(recording, markers=tuple(markers))), tuple(notes)


def _listed(classes: Sequence[str], some: Set[str]) -> str:
    return ", ".join(name for name in classes if name in some)
