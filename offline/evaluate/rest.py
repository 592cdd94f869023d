"""Whether the beginning of somebody's recordings is the rest that it is taken for: `no_rest`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from engine.answers import ENOUGH
from offline.evaluate.answers import ATOM_S
from offline.probe.tasks import Session
from streamer.types import Marker


def no_rest(session: Session, classes: Sequence[str], idle: str | None, rest_s: float) -> str:
    """Say why the first ``rest_s`` of a recording are no rest to centre on, or nothing.

    They are rest where idle is marked for at least half of them and nothing else is asked for.  A class that
    is marked without an end lasts until the next marker; another word without one is a point, and asks for
    nothing.  Where nothing is marked, or no class means nothing, it is taken on trust.
    """
    begin = float(session.recording.times[0])
    asked = list(_asked(session.recording.markers, classes))
    if idle is None or not asked:
        return ""
    resting = 0.0
    for label, start, stop in asked:
        inside = min(stop, begin + rest_s) - max(start, begin)
        if label != idle and inside > ATOM_S:
            return _said(session, rest_s, f"{label} is asked for in them")
        resting += max(inside, 0.0) if label == idle else 0.0
    few = resting < ENOUGH * rest_s
    return _said(session, rest_s, f"{idle} is marked for {resting:g} s of them") if few else ""


def _asked(markers: Sequence[Marker], classes: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """Yield what is asked for, from when, and until when, s."""
    lasting = [marker for marker in markers if marker.duration > 0 or marker.label in classes]
    ordered = sorted(lasting, key=lambda marker: marker.time)
    ends = [*(after.time for _, after in pairwise(ordered)), float("inf")][: len(ordered)]
    for marker, following in zip(ordered, ends, strict=True):
        stop = marker.time + marker.duration if marker.duration > 0 else following
        yield marker.label, marker.time, stop


def _said(session: Session, rest_s: float, why: str) -> str:
    return f"the first {rest_s:g} s of {session.name} are no rest to centre on: {why}"
