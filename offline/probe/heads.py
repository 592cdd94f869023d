"""What reads classes from features: the same logistic regression for every frozen net."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]

STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # inverse, for features scaled to unit squared norm
DEFAULT_STRENGTH = 10.0
FOLDS = 3
ENOUGH = 60  # labelled windows below which folds would hold too few to choose by


def logistic(train: Array, labels: Labels, subjects: NDArray[np.str_], test: Array) -> Probabilities:
    """Fit on labelled windows and return the probability of each class for the test windows.

    Features are standardised by the labelled windows and divided by the root of their number, so that one
    strength of regularisation means the same for nets of any width.  Classes weigh alike.  The strength is
    chosen by cross-validation over the subjects of the labelled windows, by balanced accuracy; with fewer
    than `ENOUGH` windows it is `DEFAULT_STRENGTH`.

    Parameters
    ----------
    train : ndarray, shape (n, p), float32
    labels : ndarray, shape (n,), int
        Every class occurs.
    subjects : ndarray, shape (n,), str
    test : ndarray, shape (m, p), float32

    Returns
    -------
    ndarray, shape (m, n_classes), float64
    """
    x, y = _scaled(train, test)
    strength = _strength(x, labels, subjects)
    return np.asarray(_fit(x, labels, strength).predict_proba(y), dtype=np.float64)


def linear(
    x: Array, labels: Labels, subjects: NDArray[np.str_], *, balanced: bool = True
) -> tuple[Array, Array]:
    """Return what `logistic` fits as a linear layer for features already scaled, see `scaling`.

    Parameters
    ----------
    x : ndarray, shape (n, p), float32
    balanced : bool
        Classes weigh alike; else windows do.

    Returns
    -------
    weight, bias : ndarray, shape (n_classes, p), (n_classes,), float32
    """
    rows, axes = x.astype(np.float64), None
    if len(x) < x.shape[1]:
        rows, axes = _turned(x, np.eye(x.shape[1], dtype=x.dtype))
    fit = _fit(rows, labels, _strength(rows, labels, subjects, balanced), balanced)
    weight, bias = fit.coef_ if axes is None else fit.coef_ @ axes.T, fit.intercept_
    if len(bias) == 1:  # of two classes the fit knows the difference only
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight.astype(np.float32), bias.astype(np.float32)


def scaling(train: Array) -> tuple[Array, Array]:
    """Return mean and scale of features, (p,) each: scaled, each window has a squared norm of about one."""
    mean, sd = train.mean(axis=0), train.std(axis=0)
    scale = np.where(sd > 1e-6 * (np.abs(mean) + 1e-6), sd, np.inf) * np.sqrt(train.shape[1])
    return mean, scale.astype(np.float32)


def _scaled(train: Array, test: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both standardised by ``train`` and, where they are wider than long, turned into its row space.

    A penalised fit never leaves the span of the windows it is fitted on, so turning loses nothing.
    """
    mean, scale = scaling(train)
    x, y = ((part - mean) / scale for part in (train, test))
    if len(x) < x.shape[1]:
        x, y = _turned(x, y)
    return x.astype(np.float64), y.astype(np.float64)


def _turned(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both in the principal axes of ``x``, from its inner products: (n, p) -> (n, rank)."""
    energies, axes = np.linalg.eigh((x @ x.T).astype(np.float64))
    kept = energies > 1e-6 * energies[-1]
    lengths, axes = np.sqrt(energies[kept]), axes[:, kept]
    return axes * lengths, (y @ x.T).astype(np.float64) @ axes / lengths


def _strength(
    x: NDArray[np.float64], labels: Labels, subjects: NDArray[np.str_], balanced: bool = True
) -> float:
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import GroupKFold

    n_subjects = len(np.unique(subjects))
    if len(x) < ENOUGH or n_subjects < FOLDS:
        return DEFAULT_STRENGTH
    scores = np.zeros(len(STRENGTHS))
    for fit, held in GroupKFold(FOLDS).split(x, labels, subjects):
        if len(np.unique(labels[fit])) < len(np.unique(labels)):
            return DEFAULT_STRENGTH
        for i, strength in enumerate(STRENGTHS):
            found = _fit(x[fit], labels[fit], strength, balanced).predict(x[held])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
                scores[i] += balanced_accuracy_score(labels[held], found)
    return STRENGTHS[int(np.argmax(scores))]


def _fit(x: NDArray[np.float64], labels: Labels, strength: float, balanced: bool = True) -> Any:
    from sklearn.linear_model import LogisticRegression

    # The penalty pulls every direction alike, so the fit converges in a few dozen steps.
    weights = "balanced" if balanced else None
    return LogisticRegression(C=strength, class_weight=weights, max_iter=2000, tol=1e-3).fit(x, labels)


def scores(probabilities: Probabilities, labels: Labels) -> dict[str, float | int | None]:
    """Return how good answers are, and the number of windows.

    Balanced accuracy: the mean recall of the classes that occur.  ``auroc``, the area under the ROC curve, is
    for two classes, else None.  Accuracy, macro-F1 (over the classes that occur or are answered) and Cohen's
    kappa (None where chance agrees on everything) are what sleep staging is reported in.
    """
    n_classes, n = probabilities.shape[1], len(labels)
    found = probabilities.argmax(axis=1)
    table = np.bincount(labels * n_classes + found, minlength=n_classes**2).reshape(n_classes, n_classes)
    hits, occur, answered = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    there = occur + answered > 0
    agreed, by_chance = hits.sum() / n, float(occur @ answered) / n**2
    return {
        "balanced_accuracy": round(float(np.mean(hits[occur > 0] / occur[occur > 0])), 4),
        "auroc": _auroc(probabilities, labels),
        "accuracy": round(float(agreed), 4),
        "macro_f1": round(float(np.mean(2 * hits[there] / (occur + answered)[there])), 4),
        "kappa": round(float((agreed - by_chance) / (1 - by_chance)), 4) if by_chance < 1 else None,
        "n": n,
    }


def _auroc(probabilities: Probabilities, labels: Labels) -> float | None:
    from sklearn.metrics import roc_auc_score

    if probabilities.shape[1] != 2 or len(np.unique(labels)) != 2:
        return None
    return round(float(roc_auc_score(labels, probabilities[:, 1])), 4)
