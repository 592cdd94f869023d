"""What a repeated cross-validation of few people can say: scores, intervals over people, paired differences.

Two sources of chance are told apart.  *Repeats* (how people were dealt into folds, initialisations) give a
standard deviation.  *People* give the interval: they are drawn again with replacement, class by class, each
with what all repeats said of them.  It leaves out that other people would also have been learned from, which
the corrected t-test includes in its way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Labels = NDArray[np.int64]
LEVEL = 0.95


class Resamples:
    """Draws of people, the same for everything that is compared.

    Parameters
    ----------
    labels : ndarray, shape (n,), int
        0 or 1; as many of either are drawn as there are.
    n : int
        Number of draws.
    """

    def __init__(self, labels: Labels, n: int, seed: int = 0) -> None:
        self.labels = labels
        rng = np.random.default_rng(seed)
        self._counts = []  # per class, (n, members): how often each is drawn
        for label in (0, 1):
            size = int((labels == label).sum())
            self._counts.append(rng.multinomial(size, np.full(size, 1 / size), size=n).astype(np.float64))

    def balanced_accuracy(self, share_right: Values) -> Values:
        """Return it in every draw, of the share of repeats in which each person was told right, (n,)."""
        recalls = [
            counts @ share_right[self.labels == label] / counts.shape[1]
            for label, counts in enumerate(self._counts)
        ]
        return np.asarray((recalls[0] + recalls[1]) / 2)

    def auroc(self, order: Values) -> Values:
        """Return it in every draw, of `orders` of the people."""
        negative, positive = self._counts
        return np.asarray(((positive @ order) * negative).sum(axis=1) / order.size)


def shares_right(probabilities: Values, labels: Labels) -> Values:
    """Return the share of repeats in which each person was told right: (repeats, n) -> (n,)."""
    return np.asarray(((probabilities > 0.5) == (labels == 1)).mean(axis=0))


def balanced_accuracies(probabilities: Values, labels: Labels) -> Values:
    """Return that of each repeat, everybody together: (repeats, n) -> (repeats,)."""
    right = (probabilities > 0.5) == (labels == 1)
    return np.asarray((right[:, labels == 0].mean(axis=1) + right[:, labels == 1].mean(axis=1)) / 2)


def orders(probabilities: Values, labels: Labels) -> Values:
    """Return how often each positive was ranked before each negative, ties counting half.

    Parameters
    ----------
    probabilities : ndarray, shape (repeats, n)

    Returns
    -------
    ndarray, shape (positives, negatives)
        Mean over repeats; its own mean is the area under the ROC curve.
    """
    positive = probabilities[:, labels == 1, None]
    negative = probabilities[:, None, labels == 0]
    return np.asarray(((positive > negative) + 0.5 * (positive == negative)).mean(axis=0))


def interval(draws: Values) -> tuple[float, float]:
    """Return the percentile interval of resampled values."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return round(float(low), 4), round(float(high), 4)


def score(probabilities: Values, labels: Labels, resamples: Resamples) -> dict[str, Any]:
    """Return balanced accuracy and AUROC: per repeat, mean, SD over repeats, interval over people."""
    accuracies = balanced_accuracies(probabilities, labels)
    areas = np.array([orders(one[None], labels).mean() for one in probabilities])
    return {
        "balanced_accuracy": round(float(accuracies.mean()), 4),
        "sd": _sd(accuracies),
        "interval": interval(resamples.balanced_accuracy(shares_right(probabilities, labels))),
        "per_repeat": [round(float(one), 4) for one in accuracies],
        "auroc": round(float(areas.mean()), 4),
        "auroc_sd": _sd(areas),
        "auroc_interval": interval(resamples.auroc(orders(probabilities, labels))),
    }


def difference(
    first: Values, second: Values, labels: Labels, fold_of: Labels, resamples: Resamples
) -> dict[str, Any]:
    """Return how much better the first is than the second, person by person.

    Parameters
    ----------
    first, second : ndarray, shape (repeats, n)
        Probabilities of class 1 for the same people, by the same folds.
    fold_of : ndarray, shape (repeats, n), int
        In which fold each person was tested.
    """
    by_person = shares_right(first, labels) - shares_right(second, labels)
    by_pair = orders(first, labels) - orders(second, labels)
    folds = _by_fold(first, labels, fold_of) - _by_fold(second, labels, fold_of)
    n_folds = len(np.unique(fold_of))
    accuracies = balanced_accuracies(first, labels) - balanced_accuracies(second, labels)
    return {
        "balanced_accuracy": round(float(accuracies.mean()), 4),
        "interval": interval(resamples.balanced_accuracy(by_person)),
        "repeats_better": int((accuracies > 0).sum()),
        "repeats": len(accuracies),
        "auroc": round(float(by_pair.mean()), 4),
        "auroc_interval": interval(resamples.auroc(by_pair)),
        "corrected_p": round(corrected_p(folds, 1 / (n_folds - 1)), 4),
    }


def corrected_p(differences: Values, test_over_train: float) -> float:
    """Return the two-sided p of the corrected resampled t-test over the folds of all repeats.

    Folds share people, so their variance is widened by the ratio of test to training people
    (Nadeau & Bengio 2003, Machine Learning 52, section 4; for repeated folds Bouckaert & Frank 2004).

    Parameters
    ----------
    differences : ndarray, shape (folds of all repeats,)
    """
    from scipy.stats import t as student

    n = len(differences)
    variance = float(np.var(differences, ddof=1)) if n > 1 else 0.0
    if variance == 0.0:
        return 1.0 if not differences.any() else 0.0
    t = float(differences.mean()) / np.sqrt((1 / n + test_over_train) * variance)
    return float(2 * student.sf(abs(t), n - 1))


def _by_fold(probabilities: Values, labels: Labels, fold_of: Labels) -> Values:
    """Return the balanced accuracy within each fold of each repeat."""
    return np.array(
        [
            balanced_accuracies(one[None, folds == number], labels[folds == number])[0]
            for one, folds in zip(probabilities, fold_of, strict=True)
            for number in np.unique(folds)
        ]
    )


def _sd(values: Values) -> float:
    return round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else 0.0
