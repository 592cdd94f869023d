"""Cues of our own, for people who have no program that gives them: what to do now, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from streamer.types import Marker

GET_READY_S = 3.0
Show = Callable[[str, float, float], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes
    ----------
    label : str or None
        The class; None for a pause that teaches nothing.
    words : str
        What the person is told.
    seconds : float
    """

    label: str | None
    words: str
    seconds: float


def plan(
    classes: Sequence[str],
    idle: str | None,
    *,
    trials: int,
    trial_s: float,
    pause_s: float,
    rest_s: float = 0.0,
    seed: int = 0,
) -> list[Step]:
    """Return what to do, in order: a stretch of rest if one is wanted, then trials with pauses between.

    Parameters
    ----------
    classes : sequence of str
        What is asked for; all alike often, within one, shuffled in rounds.
    idle : str or None
        The class of doing nothing: where it is asked for, the pauses are its trials.
    trials : int
        Trials of the other classes, together.
    trial_s, pause_s, rest_s : float
        Seconds of a trial, of the pause after it, and of the rest at the beginning.
    """
    rng = np.random.default_rng(seed)
    active = [name for name in classes if name != idle]
    paused = idle if idle in classes else None
    steps = [Step(None, "get ready", GET_READY_S)]
    if rest_s > 0:
        steps.append(Step(idle, "rest: sit still, do nothing", rest_s))
    order: list[str] = []
    while active and len(order) < trials:
        order += [active[place] for place in rng.permutation(len(active))]
    for name in order[:trials]:
        steps += [Step(name, name.replace("_", " "), trial_s), Step(paused, "relax", pause_s)]
    return steps


class Cues:
    """Walks through a plan by the clock; a step begins when it is shown, and is stamped then.

    Nothing happens between two calls of `look`: while no signal comes, nobody is asked for anything.

    Parameters
    ----------
    steps : sequence of Step
    show : callable
        Told the words, the seconds left of the step, and the share of the plan that is done.
    """

    def __init__(self, steps: Sequence[Step], show: Show) -> None:
        self._steps = list(steps)
        self._show = show
        self._place = -1
        self._ends = -np.inf
        self._total = sum(step.seconds for step in steps)
        self._markers: list[Marker] = []

    @property
    def over(self) -> bool:
        """Whether the last step has ended."""
        return self._place >= len(self._steps)

    @property
    def markers(self) -> tuple[Marker, ...]:
        """What was asked for so far."""
        return tuple(self._markers)

    def look(self, now: float) -> None:
        """Show what is to be done at ``now``, s on the LSL clock."""
        if now >= self._ends and not self.over:
            self._begin(now)
        if not self.over:
            step = self._steps[self._place]
            done = sum(one.seconds for one in self._steps[: self._place]) + step.seconds - (self._ends - now)
            self._show(step.words, max(self._ends - now, 0.0), done / self._total)

    def _begin(self, now: float) -> None:
        self._place += 1
        if self.over:
            return
        step = self._steps[self._place]
        self._ends = now + step.seconds
        if step.label is not None:
            self._markers.append(Marker(now, step.label, step.seconds))
