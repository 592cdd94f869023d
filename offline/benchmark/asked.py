"""Which hops of a recording answer what a protocol asks: what classical decoders learn from."""

from __future__ import annotations

import numpy as np

from offline.benchmark.hops import Hops
from offline.benchmark.recipe import Task
from offline.evaluate.protocol import Trials, Windows
from offline.probe.tasks import Index, Session, Span, spans_of
from streamer.types import Marker

EPS = 1e-9


def asked(hops: Hops, session: Session, task: Task) -> tuple[Index, Index]:
    """Return the hops that answer, and the class that is right, (n,) each.

    Of trials: the last hop by ``at_s`` after each cue; one after the beginning of each idle stretch that
    lasts so long.  Of windows: the last hop in each.  Hops without a whole window behind them are left out.
    """
    spans = _trials(session, task) if isinstance(task.protocol, Trials) else _windows(session, task)
    stops = [stop for _, stop, _ in spans]
    rows = np.searchsorted(hops.times, np.array(stops) + EPS, side="right") - 1
    kept = [
        (row, label)
        for row, (start, stop, label) in zip(rows.tolist(), spans, strict=True)
        if row >= 0 and hops.times[row] > start and hops.frames[row].warm and _reached(hops, stop)
    ]
    if not kept:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    found, labels = zip(*kept, strict=True)
    return np.array(found, dtype=np.int64), np.array(labels, dtype=np.int64)


def _trials(session: Session, task: Task) -> list[Span]:
    protocol = task.protocol
    assert isinstance(protocol, Trials)
    return [
        (marker.time + protocol.from_s, marker.time + protocol.at_s, task.classes.index(marker.label))
        for marker in session.recording.markers
        if marker.label in task.classes and _lasts(marker, protocol.at_s)
    ]


def _windows(session: Session, task: Task) -> list[Span]:
    protocol = task.protocol
    assert isinstance(protocol, Windows)
    return spans_of(session.recording, task.classes, protocol.from_s, protocol.window_s)


def _lasts(marker: Marker, at_s: float) -> bool:
    """Say whether what was asked for lasts until the answer; a marker without a duration does."""
    return marker.duration == 0 or marker.duration >= at_s - EPS


def _reached(hops: Hops, stop_s: float) -> bool:
    """Say whether the recording goes on until then, but for a hop."""
    return bool(hops.times[-1] + hops.times[0] >= stop_s) if len(hops) else False
