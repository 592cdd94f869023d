"""Fills the holes of a recording of which only the beginning of each epoch was kept."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamer.errors import RecordingError
from streamer.sources._content import Recording
from streamer.types import Marker

Holes = Literal["split", "repeat"]
LONGEST_S = 60.0  # of a hole: an epoch of sleep that was left out, and what is missing of the one before


def repeated(recording: Recording) -> Recording:
    """Return the recording without holes, each filled by saying the stretch before it again and again.

    The stretches are epochs: all of one length, their starts a whole number of periods apart.  The last is
    filled up, too, and a marker as long as its stretch becomes as long as the period.  What fills the holes
    is no signal: only a model that does not look at it may be given such a recording, and no filter.

    Raises
    ------
    RecordingError
        The stretches differ in length, they do not begin on a regular grid, or a hole is longer than
        `LONGEST_S`.
    """
    if not recording.breaks:
        return recording
    rows = np.array([0, *recording.breaks], dtype=np.int64)  # first row of each stretch
    starts = recording.index[rows]  # its place on the sample grid
    length, period = int(rows[1]), int(np.diff(starts).min())
    _check(recording, rows, starts, period)
    place = np.arange(starts[-1] + period)
    stretch = np.searchsorted(starts, place, side="right") - 1
    source = rows[stretch] + (place - starts[stretch]) % length
    sfreq = recording.info.sfreq
    note = f"{len(rows)} epochs of {length / sfreq:g} s, each repeated to fill {period / sfreq:g} s"
    return replace(
        recording,
        data=recording.data[source],
        times=recording.times[0] + place / sfreq,
        breaks=(),
        markers=tuple(_grown(marker, length / sfreq, period / sfreq) for marker in recording.markers),
        meta=MappingProxyType({**recording.meta, "notes": (*recording.meta.get("notes", ()), note)}),
    )


def _check(recording: Recording, rows: NDArray[np.int64], starts: NDArray[np.int64], period: int) -> None:
    """Refuse what is not the beginnings of epochs."""
    sfreq, name = recording.info.sfreq, recording.info.name
    lengths = np.diff([*rows.tolist(), len(recording.times)])
    advice = "Leave out `holes: repeat`, which is for recordings that keep the beginning of every epoch."
    if np.any(lengths != lengths[0]):
        raise RecordingError(
            f"{name}: the stretches between its holes are {lengths.min() / sfreq:g} to "
            f"{lengths.max() / sfreq:g} s long, where `holes: repeat` needs all of one length. {advice}"
        )
    if np.any((starts - starts[0]) % period):
        stretch = int(np.argmax((starts - starts[0]) % period != 0))
        raise RecordingError(
            f"{name}: stretch {stretch} begins at {starts[stretch] / sfreq:g} s, not a multiple of "
            f"{period / sfreq:g} s, the shortest distance between two. {advice}"
        )
    longest_s = float(np.diff(starts).max() - lengths[0]) / sfreq
    if longest_s > LONGEST_S:
        raise RecordingError(
            f"{name} has a hole of {longest_s:g} s; `holes: repeat` fills {LONGEST_S:g} s at most. {advice}"
        )


def _grown(marker: Marker, length_s: float, period_s: float) -> Marker:
    """Return the marker, as long as the period where it was as long as the stretch."""
    whole = abs(marker.duration - length_s) * 1e3 < length_s  # to a thousandth: stamps are rounded
    return replace(marker, duration=period_s) if whole else marker
