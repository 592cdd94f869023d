"""A refitted head stays where it should, moves where it must, and is kept only when it is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from engine.calibration import Score
from engine.gains import Gain
from engine.head import Head, SourceHead
from engine.refit import BIAS, Examples, Refitter, log_softmax, posterior
from engine.refit_choice import _alone, _objection, choose, own_gain
from streamer.errors import ConfigError

CLASSES = ("rest", "left", "right")
DIM = 6
MEANS = 2.0 * np.eye(3, DIM)


def source() -> SourceHead:
    """The exact posterior of three unit Gaussians at `MEANS`."""
    return SourceHead(Head(MEANS, -0.5 * np.square(MEANS).sum(axis=1)), MEANS, np.eye(DIM), 10)


def people(seed: int, per_class: int = 8, parts: int = 1, means: np.ndarray = MEANS) -> Examples:
    """Draw trials of ``parts`` latents each."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class * parts)
    trials = np.repeat(np.arange(3 * per_class), parts)
    return Examples(means[labels] + rng.normal(size=(len(labels), DIM)), labels, trials)


def flipped(seed: int) -> Examples:
    """Somebody whose sides are exchanged."""
    return people(seed, means=MEANS[[0, 2, 1]])


def refitted(examples: Examples, strength: float) -> Head:
    refitter = Refitter(source(), 1.0)
    whitened, logits = refitter.features(examples)
    return refitter.head(whitened, logits, examples.labels, examples.weights, strength)


def test_somebody_like_the_source_people_keeps_the_head() -> None:
    """On the source's own distribution a refit moves little, the less the less it may, and costs nothing."""
    examples, fresh = people(1), people(2, 400)
    moved = [np.abs(refitted(examples, strength).weight - MEANS).max() for strength in (1e-6, 1.0)]
    assert moved[0] < 1e-4 < moved[1]
    before, after = (
        np.mean(head.logits(fresh.latents).argmax(axis=1) == fresh.labels)
        for head in (source().head, refitted(examples, 1.0))
    )
    assert after > before - 0.02


def test_somebody_else_gets_a_head_of_their_own() -> None:
    """Whose sides are exchanged is decoded backwards before and rightly after, on fresh trials."""
    choice = choose(source(), 1.0, flipped(1), CLASSES)
    assert choice.head is not None
    assert choice.new.cross_entropy < choice.old.cross_entropy
    fresh = flipped(2)
    right = [np.mean(h.logits(fresh.latents).argmax(1) == fresh.labels) for h in (source().head, choice.head)]
    assert right[0] < 0.5 < 0.7 < right[1]


def test_the_posterior_is_at_its_maximum() -> None:
    """Newton's result is that of a general optimiser on the same cost."""
    rng = np.random.default_rng(3)
    inputs, logits = rng.normal(size=(7, 4)), 3 * rng.normal(size=(7, 3))
    labels, weights = np.array([0, 1, 2, 1, 0, 2, 2]), rng.uniform(0.5, 2, 7)
    found = posterior(inputs, logits, labels, weights, 2.0)

    def cost(flat: np.ndarray) -> float:
        change = flat.reshape(3, 5)
        full = np.hstack([inputs, np.full((7, 1), np.sqrt(0.1))])
        logs = log_softmax(logits + full @ change.T)
        return float(-(weights * logs[np.arange(7), labels]).sum() + np.square(change).sum() / 4)

    best = minimize(cost, np.zeros(15), tol=1e-12)
    assert cost(found.ravel()) <= best.fun + 1e-9
    np.testing.assert_allclose(found, best.x.reshape(3, 5), atol=1e-4)


def test_the_order_of_the_trials_changes_no_digit() -> None:
    """The same trials in any order give the same head and the same scores, bit for bit."""
    examples = flipped(4)
    order = np.random.default_rng(5).permutation(len(examples))
    shuffled = Examples(examples.latents[order], examples.labels[order], examples.trials[order])
    one, other = (choose(source(), 1.0, given, CLASSES) for given in (examples, shuffled))
    assert one.head is not None
    assert other.head is not None
    np.testing.assert_array_equal(one.head.weight, other.head.weight)
    assert (one.old, one.new, one.reason) == (other.old, other.new, other.reason)


@pytest.mark.parametrize("seed", range(6))
def test_a_head_that_is_no_better_is_not_kept(seed: int) -> None:
    """Where labels say nothing, a head replaces the bundle's only if it did better on trials left out."""
    examples = people(seed, 4)
    random = replace(examples, labels=np.random.default_rng(seed).permutation(examples.labels))
    choice = choose(source(), 1.0, random, CLASSES)
    better = choice.new.cross_entropy < choice.old.cross_entropy
    if choice.head is not None:
        assert better
        assert choice.new.balanced_accuracy >= choice.old.balanced_accuracy


def test_who_is_like_the_source_people_loses_nothing() -> None:
    """Over many such people, the heads that are kept do as well as the bundle's on fresh trials."""
    fresh = people(999, 400)
    lost = []
    for seed in range(20):
        head = choose(source(), 1.0, people(seed, 4), CLASSES).head or source().head
        right = [
            np.mean(one.logits(fresh.latents).argmax(axis=1) == fresh.labels) for one in (source().head, head)
        ]
        lost.append(right[0] - right[1])
    assert np.mean(lost) < 0.01
    assert max(lost) < 0.05


def test_a_trial_is_left_out_whole() -> None:
    """Copies of a trial's latents within the trial do not make it look better than the trial alone."""
    alone = people(6, 4)
    copies = Examples(
        np.repeat(alone.latents, 5, axis=0), np.repeat(alone.labels, 5), np.repeat(alone.trials, 5)
    )
    thin = people(6, 4)
    scores = [choose(source(), 1.0, given, CLASSES).old for given in (copies, thin)]
    assert scores[0] == scores[1]
    random = replace(copies, labels=np.repeat(np.random.default_rng(0).permutation(alone.labels), 5))
    free = choose(source(), 1.0, random, CLASSES, strength=1e4)  # to learn each trial by heart
    assert free.new.balanced_accuracy < 0.7


def test_a_class_without_trials_keeps_its_place() -> None:
    """With cued trials alone the idle row stays, and the others move against each other only."""
    examples = flipped(7)
    head = refitted(examples.take(examples.labels > 0), 10.0)
    change = head.weight - MEANS
    np.testing.assert_array_equal(change[0], 0)
    assert np.abs(change[1:]).max() > 0.1
    np.testing.assert_allclose(change.sum(axis=0), 0, atol=1e-8)
    np.testing.assert_allclose((head.bias - source().head.bias).sum(), 0, atol=1e-8)


def test_the_temperature_is_kept() -> None:
    """The refitted logits over the temperature are what a refit of the divided head gives."""
    examples, scaled = flipped(8), replace(source(), head=Head(3 * MEANS, 3 * source().head.bias))
    refitter = Refitter(scaled, 3.0)
    whitened, logits = refitter.features(examples)
    head = refitter.head(whitened, logits, examples.labels, examples.weights, 5.0)
    np.testing.assert_allclose(head.weight / 3, refitted(examples, 5.0).weight, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_head_says_of_a_latent_what_the_posterior_says(temperature: float) -> None:
    """Its logits are the source's plus the change found, wherever the middle of the latents lies."""
    examples, strength = flipped(8), 3.0
    refitter = Refitter(source(), temperature)
    whitened, logits = refitter.features(examples)
    given = (whitened, logits, examples.labels, examples.weights, strength)
    inputs = np.hstack([whitened, np.full((len(examples), 1), np.sqrt(BIAS))])
    expected = logits + inputs @ posterior(*given).T
    found = refitter.head(*given).logits(examples.latents) / temperature
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert np.abs(expected - logits).max() > 0.1


def test_centring_is_a_shift_of_the_latents() -> None:
    """A head centred on a mean gives to a latent what the head gives to the latent minus that mean."""
    mean, latents = np.arange(DIM, dtype=float), people(9).latents
    moved, expected = source().head.centred_on(mean).logits(latents), source().head.logits(latents - mean)
    np.testing.assert_allclose(moved, expected, atol=1e-12)


@pytest.mark.parametrize("labels", [[], [1], [1, 1, 1, 1, 1], [1, 2, 1]])
def test_too_little_is_refused_in_words(labels: list[int]) -> None:
    """One class, or a handful of trials, is no calibration."""
    examples = Examples(np.zeros((len(labels), DIM)), np.array(labels, dtype=int), np.arange(len(labels)))
    with pytest.raises(ConfigError, match="at least 4, of two classes or more"):
        choose(source(), 1.0, examples, CLASSES)


@pytest.mark.parametrize(
    ("gain", "right", "said"),
    [(0.3, 0.8, ""), (0.1, 0.8, "not surely better"), (-0.1, 0.9, "not surely better"), (0.3, 0.6, "fewer")],
)
def test_doubt_keeps_the_bundles_head(gain: float, right: float, said: str) -> None:
    """A gain within its error, a loss, and fewer trials right each keep the old head, and say so."""
    old, new = (Score(accuracy=x, balanced_accuracy=x, cross_entropy=1.0) for x in (0.7, right))
    found = _objection(gain, 0.2, old, new)
    assert said in found
    assert bool(found) == bool(said)


def test_a_gain_that_nobody_would_notice_is_none() -> None:
    """However sure: a head that makes what was meant half a percent more probable is not taken."""
    same = Score(accuracy=0.7, balanced_accuracy=0.7, cross_entropy=1.0)
    for gain, taken in ((4e-4, False), (5e-3, False), (2e-2, True)):
        found, said = _alone(np.full(40, gain) + 1e-6 * np.arange(40), same, same)
        assert found == taken
        assert f"{gain:.4f}" in said
    assert "what was meant" in _alone(np.full(40, 5e-3), same, same)[1]


GAINED, LOST = Gain(1, (2.0, 9.0, 10.0, 11.0)), Gain(1, (-6.0, -2.0, -1.0, 1.0))


def with_gains(*table: Gain) -> SourceHead:
    return replace(source(), gains=table)


def test_what_others_gained_decides_where_own_trials_say_little() -> None:
    """One trial of each class, left out, tells nothing: the head is taken where others gained, else kept."""
    four = people(1, 2).take(np.array([1, 1, 1, 0, 1, 0], dtype=bool))
    taken, kept, alone = (choose(with_gains(*t), 1.0, four, CLASSES) for t in ((GAINED,), (LOST,), ()))
    assert taken.head is not None
    assert kept.head is None
    assert "4 other people gained +8.0 points" in taken.reason
    assert "at worst -6.0" in kept.reason
    assert "left out in turn" in alone.reason


def test_many_own_trials_outweigh_what_others_lost() -> None:
    """Who gains much by many trials gets the head although others lost by it, and hears both numbers."""
    many = people(1, 60, means=MEANS[[0, 2, 1]])
    choice = choose(with_gains(LOST), 1.0, many, CLASSES)
    assert choice.head is not None
    assert "gained -2.0 points" in choice.reason
    assert "own trials, left out in turn, say +" in choice.reason


def test_a_class_without_trials_leaves_own_trials_alone() -> None:
    """What others gained was measured with every class: it says nothing of a refit of some."""
    examples = people(3, 4)
    choice = choose(with_gains(GAINED), 1.0, examples.take(examples.labels > 0), CLASSES)
    assert "other people" not in choice.reason


def test_own_gain_is_counted_among_the_classes_that_are_answered() -> None:
    """Among those without idle an answer of idle is no error; one trial of a class says nothing."""
    examples = Examples(np.zeros((5, DIM)), np.array([0, 1, 1, 2, 2]), np.arange(5))
    right, wrong = np.log(np.eye(3)[examples.labels] * 0.8 + 0.1), np.log(np.full((5, 3), 0.2))
    wrong[:, 0], wrong[3:, 1] = np.log(0.7), np.log(0.25)
    every, cued = (own_gain(examples, wrong, right, among) for among in ([0, 1, 2], [1, 2]))
    assert every is not None
    assert cued is not None
    assert (every.mean, cued.mean) == (100.0, 50.0)
    assert cued.sd == pytest.approx(100 * np.sqrt(3 / 5 * 0.5 / 2))
    once = np.array([1, 1, 0, 1, 0], dtype=bool)
    assert own_gain(examples.take(once), wrong[once], right[once], [1, 2]) is None


def test_idle_is_no_answer_that_a_head_is_taken_for() -> None:
    """A head that only stops saying idle gains where idle may be answered, and nothing where it may not."""
    timid = replace(with_gains(LOST), head=Head(MEANS, source().head.bias + np.array([9, 0, 0])))
    examples = people(1, 60)
    with_idle, cued = (choose(timid, 1.0, examples, CLASSES, idle) for idle in (None, "rest"))
    assert with_idle.head is not None
    assert cued.head is None
    assert "left out in turn, say +0.0 give" in cued.reason
