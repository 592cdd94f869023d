"""Figures of answers: agreement, calibration, what rejecting buys, bits per minute."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Index = NDArray[np.int64]
BINS = 15  # as in Guo et al. 2017, but of equal mass: none is empty
CURVE_POINTS = 50


def agreement(truth: Index, said: Index) -> dict[str, float | None]:
    """Return accuracy, balanced accuracy, Cohen's kappa and macro-F1; None of no answers.

    Parameters
    ----------
    truth, said : ndarray, shape (n,), int
        ``said`` is -1 where nothing was: wrong for every class.
    """
    from sklearn.metrics import cohen_kappa_score, f1_score

    if not len(truth):
        return dict.fromkeys(("accuracy", "balanced_accuracy", "kappa", "macro_f1"))
    there = np.unique(truth)
    recalls = [float(np.mean(said[truth == label] == label)) for label in there]
    alone = len(np.union1d(truth, said)) == 1  # kappa is 0 / 0
    return {
        "accuracy": rounded(np.mean(truth == said)),
        "balanced_accuracy": rounded(np.mean(recalls)),
        "kappa": None if alone else rounded(cohen_kappa_score(truth, said)),
        "macro_f1": rounded(f1_score(truth, said, labels=there, average="macro", zero_division=0.0)),
    }


def areas(truth: Index, probabilities: Floats) -> dict[str, float | None]:
    """Return ``auroc`` and ``auc_pr`` of the second of two classes: how well it is ranked, at any bound.

    None of more classes, or where one of the two does not occur.  ``auc_pr`` is average precision.  A missing
    answer is wrong, as in the accuracy: it is ranked as the surest answer of the class not asked for.

    Parameters
    ----------
    truth : ndarray, shape (n,), int
    probabilities : ndarray, shape (n, n_classes), float64
        Zeros where there is no answer.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    if probabilities.shape[1] != 2 or len(np.unique(truth)) != 2:
        return {"auroc": None, "auc_pr": None}
    worst = np.where(truth == 1, -1.0, 2.0)  # beyond any probability
    second = np.where(probabilities.any(axis=1), probabilities[:, 1], worst)
    return {
        "auroc": rounded(roc_auc_score(truth, second)),
        "auc_pr": rounded(average_precision_score(truth, second)),
    }


def normalised_mcc(truth: Index, said: Index) -> float | None:
    """Return (MCC + 1) / 2: 0.5 is what knowing nothing gives, whatever the classes' shares.

    MCC is that of any number of classes (Gorodkin 2004, Comput. Biol. Chem. 28, eq. 8), as used for
    decoding with rest as idle by Carrara & Papadopoulo 2024 (J. Neural Eng. 21, 016003).
    """
    from sklearn.metrics import matthews_corrcoef

    if not len(truth):
        return None
    several = len(np.union1d(truth, said)) > 1  # of a single class it tells nothing, and scikit-learn warns
    return rounded((matthews_corrcoef(truth, said) + 1) / 2) if several else 0.5


def reliability(confidence: Floats, right: Bools, n_bins: int = BINS) -> list[dict[str, float]]:
    """Return a row per bin of equally many, in order of confidence: mean ``confidence``, ``accuracy``, ``n``.

    There are as many bins as answers where those are fewer.
    """
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, min(n_bins, len(order))) if len(order) else []
    return [
        {
            "confidence": float(confidence[rows].mean()),
            "accuracy": float(right[rows].mean()),
            "n": len(rows),
        }
        for rows in bins
    ]


def calibration_error(rows: list[dict[str, float]]) -> float | None:
    """Return the expected calibration error of `reliability`'s rows: the gap's size, bins by their mass.

    Small samples alone give some: with 15 bins of 48 answers a perfectly calibrated decoder of two classes
    has .045 on average.
    """
    total = sum(row["n"] for row in rows)
    if not total:
        return None
    return rounded(sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / total)


def coverage_risk(confidence: Floats, right: Bools) -> dict[str, Any]:
    """Return the accuracy of the answers kept when the least confident are rejected.

    Returns
    -------
    dict
        ``curve``: rows of ``coverage``, the share kept, and their ``accuracy``; ``area``: the mean of the
        accuracy over all coverages, one minus the AURC of Geifman & El-Yaniv 2017.  Equally confident
        answers are kept in no order: each counts as the share of them that is right.
    """
    n = len(right)
    if not n:
        return {"area": None, "curve": []}
    _, group = np.unique(-confidence, return_inverse=True)
    shares = np.bincount(group, right) / np.bincount(group)
    kept = np.arange(1, n + 1)
    accuracy = np.cumsum(shares[np.sort(group)]) / kept
    shown = np.unique(np.linspace(0, n - 1, CURVE_POINTS).round().astype(int))
    return {
        "area": rounded(accuracy.mean()),
        "curve": [
            {"coverage": round(float(kept[i]) / n, 4), "accuracy": rounded(accuracy[i])} for i in shown
        ],
    }


def bits_per_minute(accuracy: float, n_classes: int, seconds: float) -> float:
    """Return Wolpaw's information transfer rate (Wolpaw et al. 2002, Clin. Neurophysiol. 113, eq. 1).

    It supposes that classes are equally likely, that errors are spread evenly, and that nothing lies between
    answers: here only the time from the cue to the answer is counted, so it is what trials without a pause
    would give.  Below chance it is 0.
    """
    if n_classes < 2 or accuracy <= 1 / n_classes:
        return 0.0
    bits = np.log2(n_classes)
    if accuracy < 1:
        wrong = 1 - accuracy
        bits += accuracy * np.log2(accuracy) + wrong * np.log2(wrong / (n_classes - 1))
    return round(float(60 * bits / seconds), 3)


def spread(values: list[float]) -> dict[str, float | int | None]:
    """Return ``n``, ``mean``, ``sd`` and ``worst`` over subjects."""
    if not values:
        return {"n": 0, "mean": None, "sd": None, "worst": None}
    sd = rounded(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"n": len(values), "mean": rounded(np.mean(values)), "sd": sd, "worst": rounded(min(values))}


def rounded(value: Any) -> float:
    """Return a plain number of four decimals."""
    return round(float(value), 4)
