"""Refits the head of a decoder to one person from a few labelled trials; NumPy, well under a second.

The head stays as near to the bundle's own as the trials allow.  Maximum a posteriori (multinomial logistic
regression with a Gaussian prior centred on the source head; Bishop, *Pattern Recognition and Machine
Learning*, 4.3.4 and 4.5): with latents whitened by the source people's covariance, ``u``, the logits are

    source(z) + A u + a,    A ~ N(0, strength / D),  a ~ N(0, strength x `BIAS`)

so that `strength` is how far the logits of a typical latent may move, nats squared.  A few trials span few
directions; Newton's method runs in those alone.  A class without a trial keeps its row, and the changes of
the others sum to zero: the logit of a class that nobody showed keeps its place among theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.head import Head, SourceHead

Array = NDArray[np.float64]
Index = NDArray[np.int64]
BIAS = 0.1  # variance of a bias over that of the logit of a typical latent
SHRINK = 0.1  # of the source covariance towards a sphere, as shrinkage LDA does
STEPS = 30
DONE = 1e-9  # of the gradient's square against the number of trials
RANK = 1e-9


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled latents of one person.

    Attributes
    ----------
    latents : ndarray, shape (n, D), float64
    labels : ndarray, shape (n,), int64
        Place of the class.
    trials : ndarray, shape (n,), int64
        Which trial each is from; a trial weighs the same however many it gave.
    """

    latents: Array
    labels: Index
    trials: Index

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def weights(self) -> Array:
        """One on average, (n,): every trial has the same sum."""
        _, place, count = np.unique(self.trials, return_inverse=True, return_counts=True)
        return np.asarray(len(place) / len(count) / count[place])

    def take(self, rows: NDArray[np.bool_]) -> Examples:
        """Return the examples where ``rows`` is true."""
        return Examples(self.latents[rows], self.labels[rows], self.trials[rows])


class Refitter:
    """Refits one bundle's head.

    Parameters
    ----------
    source : SourceHead
    temperature : float
        Of the bundle: its logits over this are log-probabilities, and so are the refitted head's.
    """

    def __init__(self, source: SourceHead, temperature: float, shrink: float = SHRINK) -> None:
        self.source, self.temperature = source, temperature
        self._middle = source.means.mean(axis=0)  # (D,)
        dim = len(self._middle)
        round_ = np.trace(source.covariance) / dim
        shrunk = (1 - shrink) * source.covariance + (shrink * round_ + np.finfo(float).tiny) * np.eye(dim)
        self._inverse = np.linalg.inv(np.linalg.cholesky(shrunk)) / np.sqrt(dim)

    def features(self, examples: Examples) -> tuple[Array, Array]:
        """Return the examples whitened, (n, D), of about unit length, and their logits, (n, n_classes)."""
        whitened = (examples.latents - self._middle) @ self._inverse.T
        return whitened, self.source.head.logits(examples.latents) / self.temperature

    def head(self, whitened: Array, logits: Array, labels: Index, weights: Array, strength: float) -> Head:
        """Return the head of the largest posterior; arguments as from `features`."""
        change = posterior(whitened, logits, labels, weights, strength)
        weight = change[:, :-1] @ self._inverse  # (n_classes, D)
        bias = change[:, -1] * np.sqrt(BIAS) - weight @ self._middle
        own = self.source.head
        return Head(own.weight + self.temperature * weight, own.bias + self.temperature * bias)


def posterior(whitened: Array, logits: Array, labels: Index, weights: Array, strength: float) -> Array:
    """Return the change of the head that the posterior is largest at.

    Parameters
    ----------
    whitened : ndarray, shape (n, D)
    logits : ndarray, shape (n, n_classes)
        Of the source head.
    labels, weights : ndarray, shape (n,)
    strength : float
        Prior variance.

    Returns
    -------
    ndarray, shape (n_classes, D + 1)
        Of the whitened latents, and of sqrt(`BIAS`).
    """
    inputs = np.hstack([whitened, np.full((len(labels), 1), np.sqrt(BIAS))]) * np.sqrt(strength)
    values, vectors = np.linalg.eigh(inputs @ inputs.T)
    kept = values > RANK * max(values[-1], RANK)
    roots = np.sqrt(values[kept])
    spanned = vectors[:, kept] * roots  # (n, r): the same inner products in as few dimensions as there are
    classes = np.unique(labels)
    found = _newton(spanned, logits[:, classes], labels[:, None] == classes, weights)
    change = np.zeros((logits.shape[1], inputs.shape[1]))
    change[classes] = (found / roots) @ vectors[:, kept].T @ inputs * np.sqrt(strength)
    return change


def log_softmax(logits: Array) -> Array:
    """Return log-probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _newton(inputs: Array, logits: Array, truth: NDArray[np.bool_], weights: Array) -> Array:
    """Return the minimum (k, r) of the weighted cross-entropy plus half the squares; it is convex."""
    shape = (truth.shape[1], inputs.shape[1])
    at = np.zeros(shape)
    cost = _cost(at, inputs, logits, truth, weights)
    for _ in range(STEPS):
        chance = np.exp(log_softmax(logits + inputs @ at.T))
        gradient = ((chance - truth) * weights[:, None]).T @ inputs + at
        move = np.linalg.solve(_hessian(chance, inputs, weights), gradient.ravel()).reshape(shape)
        slope, size = float((gradient * move).sum()), 1.0
        if slope < DONE:
            break
        while (new := _cost(at - size * move, inputs, logits, truth, weights)) > cost - 0.1 * size * slope:
            size /= 2
            if size < 1e-6:
                return at
        at, cost = at - size * move, new
    return at


def _cost(at: Array, inputs: Array, logits: Array, truth: NDArray[np.bool_], weights: Array) -> float:
    logs = log_softmax(logits + inputs @ at.T)
    return float(-(weights * logs[truth]).sum() + 0.5 * np.square(at).sum())


def _hessian(chance: Array, inputs: Array, weights: Array) -> Array:
    """Return the second derivatives, (k r, k r)."""
    n_classes, rank = chance.shape[1], inputs.shape[1]
    result = np.eye(n_classes * rank).reshape(n_classes, rank, n_classes, rank)
    for a in range(n_classes):
        for b in range(a, n_classes):
            curve = weights * chance[:, a] * ((a == b) - chance[:, b])
            block = inputs.T @ (curve[:, None] * inputs)
            result[a, :, b, :] += block
            if a != b:
                result[b, :, a, :] += block
    return result.reshape(n_classes * rank, -1)
