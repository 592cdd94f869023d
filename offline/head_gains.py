"""What refitting the head gains people whom a model has not learnt from: the table of `engine.gains`.

Everybody is calibrated as a user would be, with the first trials of each class, and scored on the rest; once
from the start of each of their recordings, the others following in turn, so that one early trial does not
speak for a person alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.answers import Labelled, answer_of, labelled, spans_of
from engine.bundle import Bundle
from engine.gains import Gain
from engine.head import Head, SourceHead
from engine.refit import Examples, Refitter
from engine.refit_choice import MIN_TRIALS, strength_of
from offline.evaluate.answers import answers
from offline.evaluate.played import Played
from offline.evaluate.protocol import Trials, Windows
from offline.heard import Heard

TRIALS = (1, 2, 4, 8, 16)  # of each class
MIN_PEOPLE = 2


def measure(
    bundle: Bundle,
    source: SourceHead,
    people: Mapping[str, Sequence[Heard]],
    protocol: Trials | Windows,
    least: int = MIN_PEOPLE,
) -> tuple[Gain, ...]:
    """Return a row per number of trials that at least so many people have enough of.

    Parameters
    ----------
    people : mapping of str to sequence of Heard
        The recordings of each, in order.  Nobody that the model has learnt from: they gain nothing.
    """
    simulated = [_Person(bundle, source, recordings, protocol) for recordings in people.values()]
    table = []
    for trials in TRIALS:
        found = [gain for one in simulated if (gain := one.gain(trials)) is not None]
        if len(found) >= least:
            table.append(Gain(trials, tuple(sorted(round(gain, 3) for gain in found))))
    return tuple(table)


def accuracy(played: Sequence[Played], bundle: Bundle, protocol: Trials | Windows) -> float | None:
    """Return the accuracy of cues, the balanced accuracy of windows; None unless every class occurs."""
    said = answers(played, bundle.readout.classes, bundle.readout.idle, protocol)
    shares = [said.right[said.truth == place] for place in range(len(said.asked))]
    if not all(len(share) for share in shares):
        return None
    if isinstance(protocol, Trials):
        return float(said.right.mean())
    return float(np.mean([share.mean() for share in shares]))


class _Person:
    """One person's recordings, to calibrate on the first trials of and to score on the rest."""

    def __init__(
        self, bundle: Bundle, source: SourceHead, heard: Sequence[Heard], protocol: Trials | Windows
    ) -> None:
        self._bundle, self._protocol = bundle, protocol
        self._heard = heard
        self._refitter = Refitter(source, bundle.readout.temperature)
        answer, classes = answer_of(bundle.manifest.provenance), bundle.readout.classes
        self._strength = strength_of(answer)
        self._found: list[Labelled] = [labelled(one.log, one.markers, classes, answer) for one in heard]
        self._stops = [
            np.array([stop for *_, stop in spans_of(one.markers, classes, answer, one.log.times)])
            for one in heard
        ]

    def gain(self, trials: int) -> float | None:
        """Return the mean gain, points, from the start of each recording; None where the trials run out."""
        starts = range(len(self._heard))
        gains = [gain for start in starts if (gain := self._gain_from(start, trials)) is not None]
        return float(np.mean(gains)) if gains else None

    def _gain_from(self, start: int, trials: int) -> float | None:
        order = [*range(start, len(self._heard)), *range(start)]
        chosen = self._first(order, trials)
        if chosen is None:
            return None
        examples, cuts = chosen
        own = self._refitter.source.head
        whitened, logits = self._refitter.features(examples)
        new = self._refitter.head(whitened, logits, examples.labels, examples.weights, self._strength)
        before, after = (
            accuracy(self._rest(head, cuts), self._bundle, self._protocol) for head in (own, new)
        )
        return None if before is None or after is None else 100 * (after - before)

    def _first(self, order: Sequence[int], trials: int) -> tuple[Examples, dict[int, float]] | None:
        """Return so many trials of each class in this order of the recordings, and where the rest begins."""
        n_classes = len(self._bundle.readout.classes)
        wanted = np.full(n_classes, trials)
        parts: list[Examples] = []
        cuts: dict[int, float] = {}
        for place in order:
            examples = self._found[place].examples
            cuts[place] = 0.0
            if not wanted.any():
                continue
            taken, cuts[place] = _taken(examples, self._stops[place], wanted)
            parts.append(taken)
        if wanted.any() or n_classes * trials < MIN_TRIALS:
            return None
        offsets = np.cumsum([0, *(len(stops) for stops in self._stops)])
        return (
            Examples(
                np.concatenate([part.latents for part in parts]),
                np.concatenate([part.labels for part in parts]),
                np.concatenate([part.trials + offsets[order[k]] for k, part in enumerate(parts)]),
            ),
            cuts,
        )

    def _rest(self, head: Head, cuts: Mapping[int, float]) -> list[Played]:
        """Return what this head says of the markers behind the cuts."""
        temperature, cued = self._refitter.temperature, isinstance(self._protocol, Trials)
        return [
            one.played(head, temperature, cuts[place], cued=cued) for place, one in enumerate(self._heard)
        ]


def _taken(
    examples: Examples, stops: NDArray[np.float64], wanted: NDArray[np.int64]
) -> tuple[Examples, float]:
    """Return the first trials that are wanted, and where the last one ends; they are no longer wanted.

    The whole recording is used up where something is still wanted at its end.
    """
    chosen: list[int] = []
    for trial in np.unique(examples.trials):
        label = examples.labels[examples.trials == trial][0]
        if wanted[label]:
            wanted[label] -= 1
            chosen.append(int(trial))
    cut = float("inf") if wanted.any() or not chosen else float(stops[chosen[-1]])
    return examples.take(np.isin(examples.trials, chosen)), cut
