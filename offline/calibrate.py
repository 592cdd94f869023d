"""Temperature: one number that makes probabilities mean what they say."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

BOUNDS = (0.2, 10.0)


def fit_temperature(logits: Tensor, classes: Tensor) -> float:
    """Return the temperature that minimises the cross-entropy, every class counting alike.

    Parameters
    ----------
    logits : Tensor, shape (n, n_classes), float32
    classes : Tensor, shape (n,), int64
    """

    def cost(log_temperature: float) -> float:
        return balanced_cross_entropy(logits / np.exp(log_temperature), classes)

    found = minimize_scalar(cost, bounds=tuple(np.log(BOUNDS)), method="bounded")
    return round(float(np.exp(found.x)), 4)


def balanced_cross_entropy(logits: Tensor, classes: Tensor) -> float:
    """Return the cross-entropy, nats, every class counting alike; shapes as in `fit_temperature`."""
    counts = classes.bincount(minlength=logits.shape[1]).clamp(min=1).float()
    return float(F.cross_entropy(logits, classes, weight=1 / counts))
