"""Whether what is taken for rest is one: `rested`, and what is `asked` for when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from engine.answers import ENOUGH, LatentLog
from engine.manifest import Readout
from streamer.errors import ConfigError
from streamer.types import Marker

SLACK_S = (
    1e-3  # what stamps may be off by: on a clock that has run for days a hop at 6 s lies at 6.0000000001
)


def asked(markers: Sequence[Marker], classes: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """Yield what is asked for, from when, and until when, s.

    A class that is marked without an end lasts until the next marker; another word without one is a point,
    and asks for nothing.
    """
    lasting = [marker for marker in markers if marker.duration > 0 or marker.label in classes]
    ordered = sorted(lasting, key=lambda marker: marker.time)
    ends = [*(after.time for _, after in pairwise(ordered)), float("inf")][: len(ordered)]
    for marker, following in zip(ordered, ends, strict=True):
        stop = marker.time + marker.duration if marker.duration > 0 else following
        yield marker.label, marker.time, stop


def rested(
    log: LatentLog, markers: Sequence[Marker], readout: Readout, rest_s: float, hop_s: float
) -> tuple[float, str]:
    """Return how many seconds of the rest that a log begins with are one, and why not all; "" where they are.

    Parameters
    ----------
    rest_s : float
        For how long somebody is said to have rested.
    hop_s : float
        From one decision to the next: by so much stamps may be off from what they stand for.

    Raises
    ------
    ConfigError
        The signal is shorter than that, or in most of it another class than idle is asked for.
    """
    begin, end = (float(log.times[0]), float(log.times[-1]) + hop_s) if len(log.times) else (0.0, 0.0)
    if end - begin < rest_s - hop_s - SLACK_S:
        raise ConfigError(f"Only {end - begin:.4g} s of the {rest_s:g} s of rest came: give at most that.")
    others = set(readout.classes) - {readout.idle}
    cues = [
        (max(start - begin, 0.0), label)
        for label, start, stop in asked(markers, readout.classes)
        if label in others and stop > begin
    ]
    seconds, label = min([*cues, (rest_s, "")])
    if readout.idle is None:
        return rest_s, ""
    if seconds >= rest_s - hop_s - SLACK_S:
        return seconds, ""  # a cue at its very end is no part of it
    why = f"{label} is asked for from {seconds:.3g} s on"
    if seconds < ENOUGH * rest_s:
        raise ConfigError(
            f"The {rest_s:g} s of rest are none: {why}. Say for how long nobody was asked for anything."
        )
    return seconds, f"{seconds:.3g} of the {rest_s:g} s are taken for rest: {why}"
