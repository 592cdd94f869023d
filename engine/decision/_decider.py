"""Turns one hop's logits into a decision.

The chain is: temperature (calibration) → exponential smoothing of the probabilities → a rule, one per kind of
decision, says for which class enough speaks: it must say so for ``dwell_s`` before that class becomes the
label, the label is held while the rule lets it (hysteresis), and after that nothing is decided for
``refractory_s``.  Nothing is decided while the model warms up or the signal is bad, and what a bad signal
said is forgotten.

It is computed with plain numbers: for a handful of classes NumPy takes several times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.decision._rule import DecisionSettings
from engine.framer import Frame
from streamer.types import Decision


class Decider:
    """The decision stage; owns the state of smoothing, rule, dwell and refractory period.

    Parameters
    ----------
    config : DecisionSettings
        Of any kind.
    classes : tuple of str
    idle : str or None
        The class that means "nothing": never a label.
    temperature : float
        Logits are divided by it.
    hop_s : float
        Seconds between decisions.
    """

    def __init__(
        self,
        config: DecisionSettings,
        classes: tuple[str, ...],
        idle: str | None,
        temperature: float,
        hop_s: float,
    ) -> None:
        self.config = config
        self.classes = classes
        self._even = [1 / len(classes)] * len(classes)
        active = np.array([name != idle for name in classes])
        self._rule = config.rule(active, None if idle is None else classes.index(idle), hop_s)
        self._temperature = temperature
        self._keep = config.keep(hop_s)
        self._dwell = max(1, round(config.dwell_s / hop_s))
        self._refractory = round(config.refractory_s / hop_s)
        self._smooth, self._fresh = self._even, True
        self.reset()

    def reset(self) -> None:
        """Forget everything that was seen."""
        self._forget()
        self._label: int | None = None
        self._candidate: int | None = None
        self._count, self._quiet = 0, 0

    def step(self, logits: NDArray[np.float32], frame: Frame) -> Decision:
        """Return the decision for one frame.

        Parameters
        ----------
        logits : ndarray, shape (n_classes,), float32
        frame : Frame
            What the logits were computed from.
        """
        values: list[float] = logits.tolist()
        valid = frame.warm and frame.invalid <= self.config.max_invalid and all(map(math.isfinite, values))
        self._quiet = max(0, self._quiet - 1)
        if valid:
            self._see([value / self._temperature for value in values])
            self._update()
        else:
            self._drop()
            self._forget()  # what bad signal said must not colour what good signal says
        label = None if self._label is None else self.classes[self._label]
        return Decision(frame.index, frame.time, tuple(self._smooth), label, self._rule.confidence, valid)

    def _see(self, logits: Sequence[float]) -> None:
        now, keep = softmax(logits), self._keep
        if self._fresh:
            self._smooth = now
        else:
            self._smooth = [keep * old + (1 - keep) * new for old, new in zip(self._smooth, now, strict=True)]
        self._fresh = False
        self._rule.see(logits, self._smooth)

    def _update(self) -> None:
        """Move the label: release, then refractory period, then dwell."""
        if self._label is not None:
            if self._rule.holds(self._label):
                return
            self._drop()
        if self._quiet > 0:
            return
        ready = self._rule.ready()
        self._count = 0 if ready is None else self._count + 1 if ready == self._candidate else 1
        self._candidate = ready
        if self._count >= self._dwell:
            self._label = ready

    def _drop(self) -> None:
        """End the label, if there is one, and start the refractory period."""
        if self._label is not None:
            self._quiet = self._refractory
        self._label, self._candidate, self._count = None, None, 0

    def _forget(self) -> None:
        self._smooth = self._even
        self._fresh = True
        self._rule.reset()


def softmax(logits: Sequence[float]) -> list[float]:
    """Return probabilities."""
    most = max(logits)
    weights = [math.exp(logit - most) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
