"""Turns one hop's logits into a decision.

The chain is: temperature (calibration) → exponential smoothing of the probabilities → a class other than
idle must stay above ``threshold`` for ``dwell_s`` to be decided for, is held until it falls below
``release`` (hysteresis), and after that nothing is decided for ``refractory_s``.  Nothing is decided while
the model warms up or the signal is bad.
"""

from __future__ import annotations

import math
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from engine.framer import Frame
from streamer.components import Config
from streamer.types import Decision

Seconds = Annotated[float, Field(ge=0, le=60)]
Share = Annotated[float, Field(ge=0, le=1)]


class DecisionConfig(Config):
    """Settings of the decision stage.

    Attributes
    ----------
    smoothing_s : float
        Time constant of the exponential smoothing of probabilities, s; 0 for none.
    threshold, release : float
        A label starts above the first and ends below the second.
    dwell_s : float
        How long a class must stay above ``threshold`` before it becomes the label, s.
    refractory_s : float
        After a label ends, how long no other one may start, s.
    max_invalid : float
        Share of repaired or bad samples under a decision above which it is rejected.
    """

    smoothing_s: Seconds = 0.5
    threshold: Share = 0.6
    release: Share = 0.4
    dwell_s: Seconds = 0.25
    refractory_s: Seconds = 0.5
    max_invalid: Share = 0.1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.release > self.threshold:
            raise ValueError(f"release {self.release} must not exceed threshold {self.threshold}")
        return self


class Decider:
    """The decision stage; owns the state of smoothing, dwell and refractory period.

    Parameters
    ----------
    config : DecisionConfig
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
        config: DecisionConfig,
        classes: tuple[str, ...],
        idle: str | None,
        temperature: float,
        hop_s: float,
    ) -> None:
        self.config = config
        self.classes = classes
        self._even = np.full(len(classes), 1 / len(classes))
        self._active = np.array([name != idle for name in classes])
        self._temperature = temperature
        self._keep = math.exp(-hop_s / config.smoothing_s) if config.smoothing_s > 0 else 0.0
        self._dwell = max(1, round(config.dwell_s / hop_s))
        self._refractory = round(config.refractory_s / hop_s)
        self.reset()

    def reset(self) -> None:
        """Forget everything that was seen."""
        self._smooth = self._even.copy()
        self._fresh = True
        self._label: int | None = None
        self._candidate, self._count, self._quiet = -1, 0, 0

    def step(self, logits: NDArray[np.float32], frame: Frame) -> Decision:
        """Return the decision for one frame.

        Parameters
        ----------
        logits : ndarray, shape (n_classes,), float32
        frame : Frame
            What the logits were computed from.
        """
        finite = bool(np.isfinite(logits).all())
        valid = finite and frame.warm and frame.invalid <= self.config.max_invalid
        self._quiet = max(0, self._quiet - 1)
        if valid:
            self._blend(softmax(logits.astype(np.float64) / self._temperature))
            self._update(self._smooth)
        else:
            self._drop()
            self._smooth = self._even.copy()  # what bad signal said must not colour what good signal says
            self._fresh = True
        label = None if self._label is None else self.classes[self._label]
        smooth = self._smooth
        return Decision(frame.index, frame.time, tuple(smooth.tolist()), label, float(smooth.max()), valid)

    def _blend(self, now: NDArray[np.float64]) -> None:
        self._smooth = now if self._fresh else self._keep * self._smooth + (1 - self._keep) * now
        self._fresh = False

    def _update(self, smooth: NDArray[np.float64]) -> None:
        """Move the label: release, then refractory period, then dwell."""
        if self._label is not None:
            if smooth[self._label] >= self.config.release:
                return
            self._drop()
        if self._quiet > 0:
            return
        best = int(np.argmax(np.where(self._active, smooth, -1.0)))
        above = smooth[best] >= self.config.threshold and best == int(np.argmax(smooth))
        self._count = self._count + 1 if above and best == self._candidate else int(above)
        self._candidate = best
        if self._count >= self._dwell:
            self._label = best

    def _drop(self) -> None:
        """End the label, if there is one, and start the refractory period."""
        if self._label is not None:
            self._quiet = self._refractory
        self._label, self._candidate, self._count = None, -1, 0


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities; shape (n_classes,)."""
    weights = np.exp(logits - logits.max())
    result: NDArray[np.float64] = weights / weights.sum()
    return result
