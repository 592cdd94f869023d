"""A linear layer fitted in one convex step: penalised logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
TINY = 1e-9  # of a spread: a latent that stands still says nothing


def logistic(x: NDArray[Any], labels: NDArray[Any], penalty: float, n_classes: int) -> tuple[Array, Array]:
    """Return the weight (K, D) and the bias (K,), float32, that minimise a penalised cross-entropy.

    The cross-entropy is the mean over rows, the classes weighing alike; ``penalty / 2`` times the squared
    norm of the weights is added, on columns scaled to unit variance.  How many rows there are, and in which
    unit the columns, is thereby no matter.

    Parameters
    ----------
    x : ndarray, shape (n, D)
    labels : ndarray, shape (n,), int
        Each of the ``n_classes`` occurs.
    penalty : float
    """
    from sklearn.linear_model import LogisticRegression

    rows = x.astype(np.float64)
    mean, scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), TINY)
    model = LogisticRegression(C=1 / (penalty * len(rows)), class_weight="balanced", max_iter=1000)
    model.fit((rows - mean) / scale, labels)
    weight, bias = model.coef_, model.intercept_
    if n_classes == 2:  # of two classes the fit knows the difference only
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scale
    return weight.astype(np.float32), (bias - weight @ mean).astype(np.float32)
