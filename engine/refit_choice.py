"""Whether a refitted head replaces the bundle's own: somebody for whom the bundle works must not lose by it.

Where the bundle tells what a refit gained people whom it has not learnt from (`engine.gains`), the head is
taken if, by what they gained and what the user's own trials say, it should gain more than a point, and
losing as much is less probable than `engine.gains.RISK`.  Of one's own trials only those speak whose class
keeps one when they are left out: without it any move looks bad.  Where the bundle tells nothing, or a class
has no trial, one's own trials must say so alone, by `SURE` standard errors of their gain, and
by more than `LEAST`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.answers import Answer
from engine.calibration import Score
from engine.gains import LOSS, Gain, Told, expected, row_for
from engine.head import Head, SourceHead
from engine.refit import Array, Examples, Index, Refitter, log_softmax
from streamer.errors import ConfigError

# How far a head may move, nats squared.  On validation people 10 gains more for gestures (.90 against .86
# after one repetition of each), and 3 loses less for imagery.  Where the last decision alone answers, 1 gains
# more: .5 points with four trials of each class, on 80 people whom the nets of five folds did not know; 3
# gains .2.
STRENGTH, LAST_STRENGTH = 3.0, 1.0
SURE = 1.5  # standard errors that the gain must exceed
LEAST = 0.01  # nats a trial that it must exceed, too: what was meant becomes one percent more probable
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


def choose(
    source: SourceHead,
    temperature: float,
    examples: Examples,
    classes: Sequence[str],
    idle: str | None = None,
    strength: float = STRENGTH,
) -> Choice:
    """Refit, and say whether the result is to be taken.

    Parameters
    ----------
    idle : str, optional
        A class that is never an answer: what the user's own trials gain is counted among the others.
    strength : float
        How far the head may move, nats squared; see `strength_of`.

    Raises
    ------
    ConfigError
        Fewer than two classes, or fewer than `MIN_TRIALS` trials.
    """
    examples = _in_order(examples)
    _enough(examples, classes)
    refitter = Refitter(source, temperature)
    whitened, logits = refitter.features(examples)
    old, new = log_softmax(logits), _left_out(refitter, examples, whitened, logits, strength)
    scores = [_score(examples, logs, classes) for logs in (old, new)]
    others = row_for(source.gains, _fewest(examples, len(classes)))
    if others is None:
        taken, reason = _alone(_per_trial(examples, old) - _per_trial(examples, new), *scores)
    else:
        among = [place for place, name in enumerate(classes) if name != idle]
        taken, reason = _together(others, own_gain(examples, old, new, among))
    head = refitter.head(whitened, logits, examples.labels, examples.weights, strength) if taken else None
    return Choice(head, reason, *scores)


def strength_of(answer: Answer) -> float:
    """Return how far a head may move for a bundle that answers like this."""
    return LAST_STRENGTH if answer.last else STRENGTH


def own_gain(examples: Examples, old: Array, new: Array, among: Sequence[int]) -> Told | None:
    """Return what trials that were left out in turn say the refit gains, points of balanced accuracy.

    Its error is that of paired differences, as if one more trial had been decided otherwise: that none of a
    few was does not make it nought.  None where no class has two trials.
    """
    truth, before, after = (_answers(examples, logs, among) for logs in (None, old, new))
    counts = {place: int((truth == place).sum()) for place in among}
    known = [place for place, count in counts.items() if count > 1]
    if not known:
        return None
    moved = (after == truth).astype(float) - (before == truth)
    mean = np.mean([moved[truth == place].mean() for place in known])
    judged = np.isin(truth, known)
    variance = (np.square(moved[judged]).sum() + 1) / (judged.sum() + 1)
    error = np.sqrt(variance * np.mean([1 / counts[place] for place in known]) / len(known))
    return Told(100 * float(mean), 100 * float(error))


def _together(others: Gain, own: Told | None) -> tuple[bool, str]:
    """Say whether the head is taken by what others gained and what one's own trials say."""
    both = expected(others, own)
    said = "own trials are too few to say anything"
    if own is not None:
        said = f"own trials, left out in turn, say {own.mean:+.1f} give or take {own.sd:.1f}"
    return both.worth, (
        f"{others.n} other people gained {others.mean:+.1f} points of accuracy with {others.trials} of each "
        f"class (at worst {min(others.points):+.1f}), and {said}: to be expected are {both.mean:+.1f}, and "
        f"a loss of more than {LOSS:g} with probability {both.loses:.0%}"
    )


def _alone(gains: Array, old: Score, new: Score) -> tuple[bool, str]:
    """Say whether the head is taken by one's own trials alone; ``gains`` in nats, one per trial."""
    gain, sure = float(gains.mean()), float(SURE * gains.std(ddof=1) / np.sqrt(len(gains)))
    reason = _objection(gain, sure, old, new)
    if reason:
        return False, reason
    return True, (
        f"{gain:.4f} nats a trial better on {len(gains)} trials that were left out in turn: what was meant "
        f"became {math.expm1(gain):.0%} more probable"
    )


def _fewest(examples: Examples, n_classes: int) -> int:
    """Return the trials of the class that has fewest."""
    _, first = np.unique(examples.trials, return_index=True)
    return int(np.bincount(examples.labels[first], minlength=n_classes).min())


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
            f"more of {', '.join(classes)}."
        )


def _folds(examples: Examples) -> Iterator[NDArray[np.bool_]]:
    """Yield the examples to leave out: whole trials, dealt to the folds class by class."""
    trials, first = np.unique(examples.trials, return_index=True)
    dealt = trials[np.argsort(examples.labels[first], kind="stable")]
    for fold in range(min(FOLDS, len(trials))):
        yield np.isin(examples.trials, dealt[fold::FOLDS])


def _left_out(
    refitter: Refitter, examples: Examples, whitened: Array, logits: Array, strength: float
) -> Array:
    """Return the log-probabilities of each example by a head that did not see its trial, (n, n_classes)."""
    logs = np.empty_like(logits)
    for out in _folds(examples):
        kept = ~out
        head = refitter.head(
            whitened[kept], logits[kept], examples.labels[kept], examples.weights[kept], strength
        )
        logs[out] = log_softmax(head.logits(examples.latents[out]) / refitter.temperature)
    return logs


def _per_trial(examples: Examples, logs: Array) -> Array:
    """Return the mean cross-entropy of each trial, nats."""
    cost = -logs[np.arange(len(examples)), examples.labels]
    return np.array([cost[examples.trials == trial].mean() for trial in np.unique(examples.trials)])


def _answers(examples: Examples, logs: Array | None, among: Sequence[int]) -> Index:
    """Return what each trial is taken for among these classes, or is (``logs`` None); one row per trial."""
    trials = np.unique(examples.trials)
    if logs is None:
        return np.array([examples.labels[examples.trials == trial][0] for trial in trials])
    means = np.array([logs[examples.trials == trial].mean(axis=0) for trial in trials])
    found: Index = np.asarray(among, dtype=np.int64).take(means[:, among].argmax(axis=1))
    return found


def _score(examples: Examples, logs: Array, classes: Sequence[str]) -> Score:
    truth = _answers(examples, None, [])
    shown = np.unique(truth)
    right = _answers(examples, logs, shown.tolist()) == truth
    per_class = {classes[place]: round(float(right[truth == place].mean()), 4) for place in shown}
    return Score(
        accuracy=round(float(right.mean()), 4),
        balanced_accuracy=round(float(np.mean(list(per_class.values()))), 4),
        cross_entropy=round(float(_per_trial(examples, logs).mean()), 4),
        per_class=per_class,
    )


def _objection(gain: float, sure: float, old: Score, new: Score) -> str:
    """Say why the bundle's own head is kept; nothing where it is not."""
    said = f"{gain:+.4f} nats a trial, and"
    if gain <= sure:
        return (
            f"on trials that were left out in turn the refitted head was not surely better: {said} with so "
            f"many trials more than {sure:.4f} would be sure"
        )
    if gain <= LEAST:
        return (
            f"on trials that were left out in turn the refitted head was hardly better: {said} {LEAST:g}, "
            "what was meant one percent more probable, is the least that is taken for a gain"
        )
    if new.balanced_accuracy < old.balanced_accuracy:
        return (
            "on trials that were left out in turn fewer were right with the refitted head: "
            f"{new.balanced_accuracy:.0%}, after {old.balanced_accuracy:.0%}"
        )
    return ""
