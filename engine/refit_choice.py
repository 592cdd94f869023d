"""Whether a refitted head replaces the bundle's own: only where trials that it did not see say so.

By cross-validation over whole trials, with a margin: somebody for whom the bundle works must not lose by
calibrating.  The strength of the prior is not chosen so: a class of which the one trial is left out makes any
move look bad.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.calibration import Score
from engine.head import Head, SourceHead
from engine.refit import Array, Examples, Refitter, log_softmax
from streamer.errors import ConfigError

# On validation people 10 gains more for gestures (.90 against .86 after one repetition of each) and 3 loses
# less for imagery (at worst 2.6 points after a minute, against 7.9).
STRENGTH = 3.0  # nats squared
SURE = 1.5  # standard errors that the gain must exceed
FOLDS = 8  # with so many trials or fewer, each is left out by itself
MIN_TRIALS = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """What came of a refit.

    Attributes
    ----------
    head : Head or None
        None: the bundle's own is kept.
    reason : str
        In words.
    old, new : Score
        Cross-validated, of the bundle's head and of the refitted one.
    """

    head: Head | None
    reason: str
    old: Score
    new: Score


def choose(source: SourceHead, temperature: float, examples: Examples, classes: Sequence[str]) -> Choice:
    """Refit, and keep the result only if it is better on trials that were left out.

    Raises
    ------
    ConfigError
        Fewer than two classes, or fewer than `MIN_TRIALS` trials.
    """
    examples = _in_order(examples)
    _enough(examples, classes)
    refitter = Refitter(source, temperature)
    whitened, logits = refitter.features(examples)
    old, new = log_softmax(logits), _left_out(refitter, examples, whitened, logits)
    gains = _per_trial(examples, old) - _per_trial(examples, new)
    gain, sure = float(gains.mean()), float(SURE * gains.std(ddof=1) / np.sqrt(len(gains)))
    scores = [_score(examples, logs, classes) for logs in (old, new)]
    reason = _objection(gain, sure, *scores)
    head = None
    if not reason:
        head = refitter.head(whitened, logits, examples.labels, examples.weights, STRENGTH)
        reason = f"{gain:.3f} nats a trial better on {len(gains)} trials that were left out in turn"
    return Choice(head, reason, *scores)


def _in_order(examples: Examples) -> Examples:
    """Return the examples by trial, so that the order in which they are given changes no digit."""
    order = np.argsort(examples.trials, kind="stable")
    return Examples(examples.latents[order], examples.labels[order], examples.trials[order])


def _enough(examples: Examples, classes: Sequence[str]) -> None:
    n, found = len(np.unique(examples.trials)), np.unique(examples.labels)
    if len(found) < 2 or n < MIN_TRIALS:
        named = ", ".join(classes[place] for place in found) or "none"
        raise ConfigError(
            f"{n} labelled trials of {named}: a calibration needs at least {MIN_TRIALS}, of two classes or "
            f"more of {', '.join(classes)}. Give more signal, or check the names of the events."
        )


def _folds(examples: Examples) -> Iterator[NDArray[np.bool_]]:
    """Yield the examples to leave out: whole trials, dealt to the folds class by class."""
    trials, first = np.unique(examples.trials, return_index=True)
    dealt = trials[np.argsort(examples.labels[first], kind="stable")]
    for fold in range(min(FOLDS, len(trials))):
        yield np.isin(examples.trials, dealt[fold::FOLDS])


def _left_out(refitter: Refitter, examples: Examples, whitened: Array, logits: Array) -> Array:
    """Return the log-probabilities of each example by a head that did not see its trial, (n, n_classes)."""
    logs = np.empty_like(logits)
    for out in _folds(examples):
        kept = ~out
        head = refitter.head(
            whitened[kept], logits[kept], examples.labels[kept], examples.weights[kept], STRENGTH
        )
        logs[out] = log_softmax(head.logits(examples.latents[out]) / refitter.temperature)
    return logs


def _per_trial(examples: Examples, logs: Array) -> Array:
    """Return the mean cross-entropy of each trial, nats."""
    cost = -logs[np.arange(len(examples)), examples.labels]
    return np.array([cost[examples.trials == trial].mean() for trial in np.unique(examples.trials)])


def _score(examples: Examples, logs: Array, classes: Sequence[str]) -> Score:
    trials = np.unique(examples.trials)
    means = np.array([logs[examples.trials == trial].mean(axis=0) for trial in trials])
    truth = np.array([examples.labels[examples.trials == trial][0] for trial in trials])
    shown = np.unique(truth)
    right = shown[means[:, shown].argmax(axis=1)] == truth
    per_class = {classes[place]: round(float(right[truth == place].mean()), 4) for place in shown}
    return Score(
        accuracy=round(float(right.mean()), 4),
        balanced_accuracy=round(float(np.mean(list(per_class.values()))), 4),
        cross_entropy=round(float(_per_trial(examples, logs).mean()), 4),
        per_class=per_class,
    )


def _objection(gain: float, sure: float, old: Score, new: Score) -> str:
    """Say why the bundle's own head is kept; nothing where it is not."""
    if gain <= max(sure, 0.0):
        return (
            f"on trials that were left out in turn the refitted head was not surely better: {gain:+.3f} nats "
            f"a trial, and with so many trials more than {sure:.3f} would be sure"
        )
    if new.balanced_accuracy < old.balanced_accuracy:
        return (
            "on trials that were left out in turn fewer were right with the refitted head: "
            f"{new.balanced_accuracy:.0%}, after {old.balanced_accuracy:.0%}"
        )
    return ""
