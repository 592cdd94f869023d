"""Which latents stand for a labelled trial: what a calibration learns from and is judged on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import Arrays
from engine.framer import Frame
from engine.refit import Examples
from engine.scoring import ANSWER_AT_S, ANSWER_FROM_S
from streamer.types import Decision, Marker

PARTS = 6  # a long trial gives so many means: more say nothing new, and cost
ENOUGH = 0.5  # of the hops of a trial must be valid
# Of a trial that is answered by the last decision alone, what is learned from.  On 32 people whom the nets of
# two folds did not know heads refitted to it gained .2 to .9 points more than those refitted to all of it.
LAST_S = 0.5
ATOM_S = 1e-6  # what stamps that are sums may be off by


@dataclass(frozen=True, slots=True)
class Answer:
    """When in a trial its answer is.

    Attributes
    ----------
    from_s : float
        After the cue.
    at_s : float or None
        After the cue; None: to the end of what was asked for, in parts of at least ``window_s``.
    window_s : float
    last : bool
        The last decision answers, not the mean of all.
    """

    from_s: float = ANSWER_FROM_S
    at_s: float | None = ANSWER_AT_S
    window_s: float = 0.0
    last: bool = False

    @property
    def cued(self) -> bool:
        """Whether each cue is answered once: never by the class of doing nothing."""
        return self.at_s is not None


def answer_of(provenance: Mapping[str, Any]) -> Answer:
    """Return when the bundle's own protocol takes its answers; half a second to 3 s where it tells none."""
    protocol = told_task(provenance).get("protocol")
    if not isinstance(protocol, Mapping):
        return Answer()
    if protocol.get("kind") == "windows":
        return Answer(float(protocol.get("from_s", 0.0)), None, float(protocol["window_s"]))
    return Answer(
        float(protocol.get("from_s", ANSWER_FROM_S)),
        float(protocol.get("at_s", ANSWER_AT_S)),
        last=protocol.get("answer") == "last",
    )


def told_task(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a bundle says of its task: ``protocol``, ``folder``, ``stype``; empty where it is not said.

    Fine-tuned bundles of before say it in their recipe alone.
    """
    task, recipe = provenance.get("task"), provenance.get("recipe")
    if isinstance(task, Mapping):
        return dict(task)
    old = recipe.get("task") if isinstance(recipe, Mapping) else None
    if not isinstance(old, Mapping) or not {"from_s", "window_s", "folder", "stype"} <= old.keys():
        return {}
    windows = {"kind": "windows", "from_s": old["from_s"], "window_s": old["window_s"]}
    return {"folder": old["folder"], "stype": old["stype"], "protocol": windows}


class LatentLog:
    """Keeps the latent under every decision: the observer of a pipeline, and a receiver of its decisions.

    Parameters
    ----------
    latent : str
        Which of the outputs.
    width : int
        Its length D, which is asked for where no frame came.
    """

    lost = 0

    def __init__(self, latent: str, width: int = 0) -> None:
        self._latent, self._width = latent, width
        self._latents: list[NDArray[np.float32]] = []
        self._times: list[float] = []
        self._valid: list[bool] = []

    def observe(self, _frame: Frame, outputs: Arrays) -> None:
        """Copy the latent of one frame."""
        self._latents.append(outputs[self._latent].reshape(-1).astype(np.float32))

    def write(self, decision: Decision) -> None:
        """Take the stamp and the verdict that belong to it."""
        self._times.append(decision.time)
        self._valid.append(decision.valid and bool(np.isfinite(self._latents[-1]).all()))

    @property
    def times(self) -> NDArray[np.float64]:
        """Stamps, s, (n,)."""
        return np.array(self._times, dtype=np.float64)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether the model was warm and the signal good, (n,)."""
        return np.array(self._valid, dtype=bool)

    @property
    def latents(self) -> NDArray[np.float32]:
        """Latents, (n, D)."""
        if not self._times:
            return np.empty((0, self._width), dtype=np.float32)
        return np.array(self._latents[: len(self._times)])


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labelled trials of a stretch of signal.

    Attributes
    ----------
    examples : Examples
    trials : dict of str to int
        How many of each class.
    left_out : int
        Trials without enough valid signal.
    endless, short : int
        Trials of which nobody says how long they lasted, and such as lasted no window, where all of a trial
        is learned from.
    seconds : float
        From the first stamp of the log to the last one used; 0 without any.
    unknown : dict of str to int
        Events that name no class of the bundle, in the order in which they came: how many of each.
    """

    examples: Examples
    trials: dict[str, int]
    left_out: int
    seconds: float
    unknown: dict[str, int] = field(default_factory=dict)
    endless: int = 0
    short: int = 0


def labelled(
    log: LatentLog,
    markers: Sequence[Marker],
    classes: Sequence[str],
    answer: Answer,
    *,
    among: Sequence[str] | None = None,
    before: float = np.inf,
    most: int | None = None,
) -> Labelled:
    """Return the trials of these markers.

    Parameters
    ----------
    classes : sequence of str
        Of the bundle: the label of an example is the place in it.
    among : sequence of str, optional
        Classes whose trials count; all by default.
    before : float
        What is later than this stamp, s, is not looked at.
    most : int, optional
        Nor are trials after so many good ones.
    """
    times, valid, latents = log.times, log.valid, log.latents.astype(np.float64)
    wanted = tuple(classes if among is None else among)
    rows: list[tuple[NDArray[np.float64], int, int]] = []
    counts: Counter[str] = Counter()
    left_out, seconds = 0, 0.0
    heard = times[times <= before]  # as if the signal ended there, which it does live
    for trial, (marker, start, stop) in enumerate(spans_of(markers, classes, answer, heard)):
        if marker.label not in wanted or counts.total() == most:
            continue
        inside = (times > start) & (times <= stop)
        if not inside.any() or (inside & valid).sum() < ENOUGH * inside.sum():
            left_out += 1
            continue
        means = _parts(latents[inside & valid], times[inside & valid] - start, stop - start, answer)
        rows += [(mean, list(classes).index(marker.label), trial) for mean in means]
        counts[marker.label] += 1
        seconds = max(seconds, float(times[inside][-1] - times[0]))
    examples = Examples(
        np.array([row[0] for row in rows]).reshape(len(rows), latents.shape[1]),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.int64),
    )
    trials = {name: counts[name] for name in wanted if counts[name]}
    unknown = Counter(marker.label for marker in markers if marker.label not in classes)
    lasting = [one.duration for one in markers if one.label in wanted and one.time <= before]
    endless, short = (0, 0) if answer.cued else _unused(lasting, answer)
    return Labelled(examples, trials, left_out, seconds, dict(unknown), endless, short)


def behind_rest(log: LatentLog, markers: Sequence[Marker], rest_s: float) -> list[Marker]:
    """Return the markers behind the rest that a log begins with: what centres is not learned from."""
    if not rest_s:
        return list(markers)
    times = log.times
    begin = float(times[0]) if len(times) else 0.0
    return [marker for marker in markers if marker.time >= begin + rest_s - ATOM_S]


def spans_of(
    markers: Sequence[Marker], classes: Sequence[str], answer: Answer, times: NDArray[np.float64]
) -> list[tuple[Marker, float, float]]:
    """Return each marker with the stretch of its answer, s: none reaches past the next one that asks.

    A word of no class that has no duration asks for nothing: it may lie in a trial, such as one of feedback.
    A trial that the signal ends in is left out where its answer has a set time, and one of no known duration
    where it has none: `engine.lasting` tells what can be known of them.
    """
    ordered = sorted(markers, key=lambda marker: marker.time)
    last = float(times[-1]) if len(times) else 0.0
    spans = []
    for place, marker in enumerate(ordered):
        asking = (one.time for one in ordered[place + 1 :] if one.duration > 0 or one.label in classes)
        following = next(asking, np.inf)
        if answer.at_s is None and marker.duration <= 0:
            continue
        end = min(following, marker.time + marker.duration if marker.duration > 0 else np.inf)
        start = marker.time + answer.from_s
        stop = min(end, last) if answer.at_s is None else min(marker.time + answer.at_s, end)
        if stop - start >= answer.window_s and stop > start and stop <= last:
            spans.append((marker, max(start, stop - LAST_S) if answer.last else start, stop))
    return spans


def _unused(lasting: Sequence[float], answer: Answer) -> tuple[int, int]:
    """Return how many of these durations, s, nobody told, and how many are too short to hold a window."""
    told = [duration for duration in lasting if duration > 0]
    return len(lasting) - len(told), sum(duration < answer.from_s + answer.window_s for duration in told)


def _parts(
    latents: NDArray[np.float64], since: NDArray[np.float64], length: float, answer: Answer
) -> list[NDArray[np.float64]]:
    """Return the means that stand for a trial: one, or one per part of a long stretch."""
    n = 1
    if answer.at_s is None and answer.window_s > 0:
        n = max(1, min(PARTS, int(length / answer.window_s + 1e-6)))
    place = np.minimum((since / length * n).astype(int), n - 1)
    return [latents[place == part].mean(axis=0) for part in range(n) if (place == part).any()]
