"""The arithmetic of a cross-validation: folds, read-out, scores, intervals and the corrected test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offline.crossval import heads as crossval_heads
from offline.crossval.folds import deal
from offline.crossval.statistics import Resamples, corrected_p, difference, interval, orders, score


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["0 a", "0 b", "1 c", "1 d"]), min_size=10, max_size=60), st.integers(2, 5))
def test_folds_are_alike(strata: list[str], n_folds: int) -> None:
    """Folds differ by one person at most, altogether, in each stratum and in each class."""
    fold_of = deal(strata, n_folds, np.random.default_rng(1))
    for group in (*set(strata), "0", "1", ""):
        inside = np.array([stratum.startswith(group) for stratum in strata])
        counts = np.bincount(fold_of[inside], minlength=n_folds)
        assert counts.max() - counts.min() <= 1


def test_the_read_out_is_the_plain_one() -> None:
    """Fitted in principal axes, the read-out is scikit-learn's on the scaled features, as they are."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    x, labels = rng.normal(size=(30, 80)).astype(np.float32), np.arange(30) % 2
    x[labels == 1, :4] += 1
    head = crossval_heads.fit(x, labels, seed=0)
    scaled = ((x - head.mean) / head.scale).astype(np.float64)
    plain = LogisticRegression(C=head.strength, class_weight="balanced", max_iter=5000, tol=1e-8)
    expected = plain.fit(scaled, labels).predict_proba(scaled)[:, 1]
    np.testing.assert_allclose(head.probabilities(x), expected, atol=2e-3)


def test_scores_by_hand() -> None:
    """Two negatives, two positives, two repeats: recalls, areas and differences are as on paper."""
    labels = np.array([0, 0, 1, 1])
    first = np.array([[0.2, 0.6, 0.7, 0.9], [0.1, 0.4, 0.3, 0.8]])
    second = np.full((2, 4), 0.4)  # says "negative" of everybody
    resamples = Resamples(labels, 200)
    found = score(first, labels, resamples)
    assert found["per_repeat"] == [0.75, 0.75]
    assert (found["balanced_accuracy"], found["sd"]) == (0.75, 0.0)
    assert found["auroc"] == pytest.approx((4 / 4 + 3 / 4) / 2)
    versus = difference(first, second, labels, np.array([[0, 1, 0, 1]] * 2), resamples)
    assert versus["balanced_accuracy"] == 0.25
    assert versus["auroc"] == pytest.approx(0.875 - 0.5)
    assert (versus["repeats_better"], versus["repeats"]) == (2, 2)


def test_intervals_are_those_of_drawing_people_again() -> None:
    """Resampled scores are the scores of the people drawn, computed one draw at a time."""
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    rng = np.random.default_rng(2)
    labels = np.array([0] * 7 + [1] * 5)
    probabilities = np.round(rng.uniform(size=(3, 12)), 1)  # with ties
    resamples = Resamples(labels, 40)
    share = ((probabilities > 0.5) == labels).mean(axis=0)
    accuracies = resamples.balanced_accuracy(share)
    areas = resamples.auroc(orders(probabilities, labels))
    for i in range(40):
        drawn = [np.repeat(np.flatnonzero(labels == c), resamples._counts[c][i].astype(int)) for c in (0, 1)]
        who = np.concatenate(drawn)
        assert len(drawn[0]) == 7
        one = [balanced_accuracy_score(labels[who], p[who] > 0.5) for p in probabilities]
        assert accuracies[i] == pytest.approx(np.mean(one))
        assert areas[i] == pytest.approx(np.mean([roc_auc_score(labels[who], p[who]) for p in probabilities]))
    assert interval(np.arange(1001) / 1000) == (0.025, 0.975)


def test_the_corrected_test_by_hand() -> None:
    """Of ten folds with mean 0.1, t is 0.1 / sqrt((0.1 + 0.25) variance), 9 degrees of freedom."""
    from scipy.stats import t

    differences = np.array([0.0, 0.2] * 5)
    variance = np.var(differences, ddof=1)
    expected = 2 * t.sf(0.1 / np.sqrt((0.1 + 0.25) * variance), 9)
    assert corrected_p(differences, 0.25) == pytest.approx(expected)
    assert corrected_p(differences, 0.25) > corrected_p(differences, 0.0)
    assert corrected_p(np.zeros(10), 0.25) == 1.0
