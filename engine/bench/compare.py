"""Several systems on one job: their values first, then their turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bench.consumers import FLOOR, PEERS, System
from engine.bench.figures import TOLERANCE, Reference, difference, figures, ratios
from engine.bench.job import Job
from engine.bench.turns import Turn, rounds
from streamer.errors import StreamLost

VALUES_S = 1.0  # of the turn that shows the values alone
Latencies = dict[str, NDArray[np.float64]]
Take = Callable[[System, Job], Turn]


@dataclass(frozen=True, slots=True)
class Tried:
    """A system, what its answers should be, and how far they may be off, in standard deviations."""

    system: System
    right: Reference
    bar: float = TOLERANCE

    @property
    def foreign(self) -> bool:
        """Whether its failures are somebody else's: they are told, and do not end the bench."""
        return self.system.name in PEERS and self.system.name != FLOOR


@dataclass(frozen=True, slots=True)
class Compared:
    """The report of a comparison, and the latencies behind it, ms."""

    document: dict[str, Any]
    latencies: Latencies


class Comparison:
    """Keeps the turns of those that are still in it."""

    def __init__(self, tried: Sequence[Tried], say: Callable[[str], None], one_turn: Take) -> None:
        self.left = list(tried)
        self.values: dict[str, float | None] = {}
        self.skipped: dict[str, str] = {}
        self.turns: dict[str, list[Turn]] = {}
        self._say, self._take = say, one_turn

    def look(self) -> None:
        """Skip what is not installed."""
        for one in list(self.left):
            if missing := one.system.missing():
                self._skip(one, f"not installed ({', '.join(missing)})")

    def check(self, job: Job) -> None:
        """Let each have a short turn and compare its values; who fails is out."""
        for one in list(self.left):
            if (turn := self._turn(one, job)) is not None:
                self._judge(one, turn)

    def time(self, job: Job, n: int) -> None:
        """Let all of them have ``n`` turns in rotating order; values are checked again in each."""
        for i, order in enumerate(rounds(list(self.left), n), 1):
            for one in order:
                if one not in self.left or (turn := self._turn(one, job)) is None:
                    continue
                self.turns.setdefault(one.system.name, []).append(turn)
                p50 = f"{np.median(turn.latency_ms):.2f} ms" if turn.latency_ms.size else "no latency"
                self._say(f"  round {i}/{n}  {one.system.name}: p50 {p50}, {turn.told.lost} samples lost")
                self._judge(one, turn)

    def _turn(self, one: Tried, job: Job) -> Turn | None:
        try:
            return self._take(one.system, job)
        except StreamLost as error:
            if not one.foreign:
                raise
            self._skip(one, str(error))
            return None

    def _judge(self, one: Tried, turn: Turn) -> None:
        """Compare values; samples that were lost leave nothing to compare, and no latency either.

        A peer that is wrong is out; `StreamLost` where it is the engine or the floor.
        """
        name = one.system.name
        if turn.told.lost:
            if name not in self.values:
                self._say(f"  values   {name}: not compared, {turn.told.lost} samples were lost")
            self.values.setdefault(name, None)
            return
        apart = difference(turn, one.right)
        first, before = name not in self.values, self.values.get(name)
        self.values[name] = apart if before is None else max(before, apart)
        if first:
            self._say(f"  values   {name}: {apart:.1e} standard deviations from the reference")
        if not apart <= one.bar:
            why = f"its values are {apart:.1e} standard deviations off, {one.bar:g} at most are let pass"
            if not one.foreign:
                raise StreamLost(f"{name}: {why}: no figure of this bench would be worth printing.")
            self._skip(one, f"{why}: no figure is worth printing")

    def _skip(self, one: Tried, why: str) -> None:
        self.left.remove(one)
        self.turns.pop(one.system.name, None)
        self.skipped[one.system.name] = why
        self._say(f"  skipped  {one.system.name}: {why}")


def compare(
    tried: Sequence[Tried], job: Job, n: int, *, say: Callable[[str], None], one_turn: Take
) -> Compared:
    """Return values, figures and ratios of the systems on this job.

    Raises
    ------
    StreamLost
        The floor or the engine gave no answer, or a wrong one.
    """
    comparison = Comparison(tried, say, one_turn)
    comparison.look()
    comparison.check(replace(job, seconds=VALUES_S))
    comparison.time(job, n)
    turns = comparison.turns
    found = {name: figures(taken) for name, taken in turns.items()}
    systems = {one.system.name: one.system for one in tried}
    document = {
        "values": {
            name: None if apart is None else float(f"{apart:.2e}")
            for name, apart in comparison.values.items()
        },
        "systems": found,
        "ratios": ratios(found),
        "skipped": comparison.skipped,
        "how": {name: {"settings": systems[name].how, **systems[name].versions()} for name in found},
        "seconds": job.seconds * n,
        "rounds": n,
    }
    latencies = {name: np.concatenate([turn.latency_ms for turn in taken]) for name, taken in turns.items()}
    return Compared(document, latencies)
