"""Whether the beginning of somebody's recordings is the rest that it is taken for: `no_rest`."""

from __future__ import annotations

from collections.abc import Sequence

from engine.answers import ATOM_S, ENOUGH
from engine.rest import asked
from offline.probe.tasks import Session


def no_rest(session: Session, classes: Sequence[str], idle: str | None, rest_s: float) -> str:
    """Say why the first ``rest_s`` of a recording are no rest to centre on, or nothing.

    They are rest where idle is marked for at least half of them and nothing else is asked for.  A class that
    is marked without an end lasts until the next marker; another word without one is a point, and asks for
    nothing.  Where nothing is marked, or no class means nothing, it is taken on trust.
    """
    begin = float(session.recording.times[0])
    wanted = list(asked(session.recording.markers, classes))
    if idle is None or not wanted:
        return ""
    resting = 0.0
    for label, start, stop in wanted:
        inside = min(stop, begin + rest_s) - max(start, begin)
        if label != idle and inside > ATOM_S:
            return _said(session, rest_s, f"{label} is asked for in them")
        resting += max(inside, 0.0) if label == idle else 0.0
    few = resting < ENOUGH * rest_s
    return _said(session, rest_s, f"{idle} is marked for {resting:g} s of them") if few else ""


def _said(session: Session, rest_s: float, why: str) -> str:
    return f"the first {rest_s:g} s of {session.name} are no rest to centre on: {why}"
