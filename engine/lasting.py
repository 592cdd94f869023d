"""How long what a marker asks for lasts: markers of LSL and XDF are points, and do not say it themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from streamer.types import Marker


def lasting(
    markers: Iterable[Marker],
    classes: Sequence[str],
    idle: str | None,
    until: float,
    *,
    trial_s: float | None = None,
) -> list[Marker]:
    """Return the markers in time order, those of a class with the duration that the others tell.

    A point that asks for a class ends at the next one that does at the latest.  That is its end where the
    next marker is of idle, and that of a marker of idle itself; where no class is idle, each is one state
    after another.  What is followed by another command, or by a word of no class, which may be one, may have
    been over long before, behind it a pause that nobody marked: its duration stays 0.

    Parameters
    ----------
    until : float
        Where the signal ends, s.
    trial_s : float, optional
        What lasts so long where it does not say it itself: every point of a class, whatever words of no class
        lie in it.
    """
    ordered = sorted(markers, key=lambda marker: marker.time)
    made = []
    for place, marker in enumerate(ordered):
        later = (one for one in ordered[place + 1 :] if one.time > marker.time)
        if marker.duration > 0 or marker.label not in classes:
            made.append(marker)
        elif trial_s is not None:
            end = next((one.time for one in later if one.label in classes), until)
            made.append(replace(marker, duration=max(min(trial_s, end - marker.time), 0.0)))
        else:
            following = next(later, Marker(until, ""))
            known = idle in (None, marker.label, following.label)
            made.append(replace(marker, duration=max(following.time - marker.time, 0.0)) if known else marker)
    return made


def endless(markers: Iterable[Marker], classes: Sequence[str], idle: str | None) -> list[Marker]:
    """Return the commands of which nobody knows how long they last."""
    return [one for one in markers if one.label in classes and one.label != idle and one.duration <= 0]


def endless_said(idle: str | None) -> str:
    """Return what to do about them."""
    return (
        f"where a trial's marker has no duration and the next one is not of {idle}, nobody says how long the "
        f"trial lasts, and nothing is learned from it. Say it with --trial-s, or send {idle} where one ends."
    )
