"""A logistic regression for few people and many features, its strength chosen among those it is fitted to."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offline.crossval.folds import Index, deal
from offline.probe.heads import scaling

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse, for features scaled to unit squared norm
INNER_FOLDS = 5


class Head(NamedTuple):
    """A linear read-out of features x: logit of class 1 = ((x - mean) / scale) @ weight + bias.

    Attributes
    ----------
    mean, scale, weight : ndarray, shape (p,), float32
    bias : float
    strength : float
        The one that was chosen.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weight: NDArray[np.float32]
    bias: float
    strength: float

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of class 1: (m, p) -> (m,)."""
        logits = ((x - self.mean) / self.scale).astype(np.float64) @ self.weight + self.bias
        return np.asarray(1 / (1 + np.exp(-logits)))


def fit(x: NDArray[np.float32], labels: Index, seed: int) -> Head:
    """Fit, classes weighing alike; the strength with the least log loss in an inner cross-validation.

    Log loss and not accuracy: with some fifty people accuracy moves by steps of two points and prefers
    strengths by chance.

    Parameters
    ----------
    x : ndarray, shape (n, p), float32
    labels : ndarray, shape (n,), int
        0 and 1; both occur.
    seed : int
        Of the inner folds.
    """
    mean, scale = scaling(x)
    # A penalised fit never leaves the span of its rows: in their principal axes nothing is lost.
    u, lengths, axes = np.linalg.svd(((x - mean) / scale).astype(np.float64), full_matrices=False)
    rows = u * lengths
    strength = _strength(rows, labels, seed)
    model = _fit(rows, labels, strength)
    weight = (model.coef_[0] @ axes).astype(np.float32)
    return Head(mean, scale, weight, float(model.intercept_[0]), strength)


def _strength(rows: NDArray[np.float64], labels: Index, seed: int) -> float:
    n_folds = min(INNER_FOLDS, int(np.bincount(labels, minlength=2).min()))
    if n_folds < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    fold_of = deal([str(label) for label in labels], n_folds, np.random.default_rng(seed))
    losses = np.zeros((len(STRENGTHS), len(labels)))
    for number in range(n_folds):
        held = fold_of == number
        for i, strength in enumerate(STRENGTHS):
            found = _fit(rows[~held], labels[~held], strength).predict_log_proba(rows[held])
            losses[i, held] = -found[np.arange(held.sum()), labels[held]]
    balanced = sum(losses[:, labels == label].mean(axis=1) for label in (0, 1))
    return STRENGTHS[int(np.argmin(balanced))]


def _fit(rows: NDArray[np.float64], labels: Index, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, class_weight="balanced", max_iter=2000, tol=1e-4).fit(rows, labels)
