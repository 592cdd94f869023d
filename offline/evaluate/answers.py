"""From hops to answers: what was asked for, what was said, and how surely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.answers import ATOM_S
from offline.evaluate.played import Played
from offline.evaluate.protocol import Trials, Windows
from streamer.types import Marker

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers in the order of their recordings; all arrays have one entry per answer.

    Attributes
    ----------
    asked : tuple of int
        Places of the classes that may be answered, K of them.
    subjects : ndarray of str
    truth : ndarray of int
        Place in ``asked``.
    probabilities : ndarray, shape (n, K), float64
        Zero where nothing was answered.
    n_cut : int
        Trials that a recording ends before the end of.
    """

    asked: tuple[int, ...]
    subjects: NDArray[np.str_]
    truth: Index
    probabilities: Floats
    n_cut: int = 0

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Whether there is an answer at all."""
        return np.asarray(self.probabilities.any(axis=1))

    @property
    def said(self) -> Index:
        """Place in ``asked`` of each answer; -1 for none."""
        return np.where(self.answered, self.probabilities.argmax(axis=1), -1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each is right; none is wrong."""
        return np.asarray(self.said == self.truth)

    @property
    def confidence(self) -> Floats:
        """Probability of each answer; 0 for none."""
        return np.asarray(self.probabilities.max(axis=1))

    def by_subject(self) -> dict[str, Index]:
        """Return the rows of each subject, sorted by name."""
        return {str(name): np.flatnonzero(self.subjects == name) for name in np.unique(self.subjects)}


def answers(
    played: Sequence[Played], classes: Sequence[str], idle: str | None, protocol: Trials | Windows
) -> Answers:
    """Return one answer for all that the protocol asks for in these recordings."""
    asked = protocol.asked(classes, idle)
    rows = [(one.subject, *row) for one in played for row in _rows(one, classes, asked, protocol)]
    return Answers(
        asked=tuple(asked),
        subjects=np.array([row[0] for row in rows], dtype=np.str_),
        truth=np.array([row[1] for row in rows], dtype=np.int64),
        probabilities=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, len(asked)),
        n_cut=_n_cut(played, classes, asked, protocol),
    )


def cues(played: Played, classes: Sequence[str], asked: Sequence[int]) -> list[Marker]:
    """Return the markers of classes that may be answered."""
    names = {classes[place] for place in asked}
    return [marker for marker in played.markers if marker.label in names]


def lasts(played: Played, cue: Marker, at_s: float) -> bool:
    """Say whether decisions were put out until so long after the cue."""
    return len(played) > 0 and bool(played.times[-1] >= cue.time + at_s - ATOM_S)


def answer_at(
    played: Played, cue: Marker, asked: Sequence[int], protocol: Trials, at_s: float | None = None
) -> Floats:
    """Return the probabilities of the asked classes so long after a cue, (K,); zeros for no answer.

    Those of the mean log-probability of the valid decisions stamped in ``(cue + from_s, cue + at_s]``, or of
    the last one of them.  Until ``from_s`` it is the last decision since the cue alone.
    """
    rows = answering(played, cue, protocol, at_s)
    return _of_hops(played, rows, asked)


def answering(played: Played, cue: Marker, protocol: Trials, at_s: float | None = None) -> Index:
    """Return the hops that the answer so long after a cue is made of; none where none is valid."""
    at_s = protocol.at_s if at_s is None else at_s
    early = at_s <= protocol.from_s + ATOM_S
    alone = early or protocol.answer == "last"
    first = cue.time + (0.0 if early else protocol.from_s)
    start, stop = np.searchsorted(played.times, (first + ATOM_S, cue.time + at_s + ATOM_S))
    rows: Index = start + np.flatnonzero(played.valid[start:stop])
    return rows[-1:] if alone else rows


def truth_of_hops(played: Played, classes: Sequence[str], settle_s: float) -> Index:
    """Return the class asked for at each hop, (n,); -1 where none is, it has just changed, or not valid."""
    truth = np.full(len(played), -1)
    for marker in played.markers:
        if marker.label in classes:
            since = played.times - marker.time
            inside = (since > settle_s + ATOM_S) & (since <= marker.duration + ATOM_S)
            truth[inside & played.valid] = list(classes).index(marker.label)
    return truth


def hops_of(
    played: Played, classes: Sequence[str], asked: Sequence[int], protocol: Trials | Windows
) -> Iterator[tuple[int, Index]]:
    """Yield, answer by answer, what was asked for as a place in ``asked``, and the hops that say it."""
    found = _of_trials if isinstance(protocol, Trials) else _of_windows
    for cue in cues(played, classes, asked):
        truth = asked.index(list(classes).index(cue.label))
        yield from ((truth, hops) for hops in found(played, cue, protocol))  # type: ignore[arg-type]


def _rows(
    played: Played, classes: Sequence[str], asked: Sequence[int], protocol: Trials | Windows
) -> Iterator[tuple[int, Floats]]:
    """Yield what was asked for, as a place in ``asked``, and the answer's probabilities."""
    for truth, hops in hops_of(played, classes, asked, protocol):
        yield truth, _of_hops(played, hops, asked)


def _of_hops(played: Played, hops: Index, asked: Sequence[int]) -> Floats:
    """Return the probabilities of the mean log-probability of these hops, (K,); zeros of none."""
    if not len(hops):
        return np.zeros(len(asked))
    return _softmax(played.log_probs[hops][:, list(asked)].astype(np.float64).mean(axis=0))


def _of_trials(played: Played, cue: Marker, protocol: Trials) -> Iterator[Index]:
    if lasts(played, cue, protocol.at_s):
        yield answering(played, cue, protocol)


def _of_windows(played: Played, marker: Marker, protocol: Windows) -> Iterator[Index]:
    """Windows lie as `offline.probe.tasks.spans_of` lays them; one with a hole in it has too few hops."""
    needed = max(1, int(protocol.window_s / played.hop_s + ATOM_S) - 1)
    span = min(marker.duration, played.duration_s - marker.time) - protocol.from_s
    for i in range(int(span / protocol.window_s + ATOM_S)):
        start_s = marker.time + protocol.from_s + i * protocol.window_s
        edges = (start_s + ATOM_S, start_s + protocol.window_s + ATOM_S)
        start, stop = np.searchsorted(played.times, edges)
        if stop - start >= needed:
            first = np.searchsorted(played.times, played.times[stop - 1] - protocol.smoothing_s - ATOM_S)
            yield np.arange(min(first, stop - 1), stop)


def _n_cut(
    played: Sequence[Played], classes: Sequence[str], asked: Sequence[int], protocol: Trials | Windows
) -> int:
    if isinstance(protocol, Windows):
        return 0
    return sum(not lasts(one, cue, protocol.at_s) for one in played for cue in cues(one, classes, asked))


def _softmax(logs: Floats) -> Floats:
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())
