"""A label begins where its smoothed probability passes a threshold, and ends below a lower one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from engine.decision._rule import DecisionSettings, Rule, Share


class Config(DecisionSettings):
    """Settings of the threshold, beside those that all kinds share.

    Attributes
    ----------
    threshold, release : float
        A label starts above the first and ends below the second, or below the first where that is less;
        probabilities.
    """

    bound_key: ClassVar[str] = "threshold"

    kind: Literal["threshold"] = "threshold"
    threshold: Share = 0.6
    release: Share = 0.4

    def rule(self, active: NDArray[np.bool_], _idle: int | None, _hop_s: float) -> Threshold:
        """Return a fresh rule; as `DecisionSettings.rule`."""
        return Threshold(self, active)

    def at(self, bound: float) -> Self:
        """Return the same settings with another threshold."""
        return self.model_copy(update={"threshold": bound})

    @property
    def ends_below(self) -> float:
        """The release, or the threshold where that is less."""
        return min(self.release, self.threshold)


class Threshold(Rule):
    """Enough speaks for the most probable class when it is above the threshold."""

    def __init__(self, config: Config, active: NDArray[np.bool_]) -> None:
        self._config, self._active, self._ends_below = config, active.tolist(), config.ends_below
        self._smooth: Sequence[float] = ()
        self.reset()

    def see(self, _logits: Sequence[float], smooth: Sequence[float]) -> None:
        """Take in one good hop."""
        self._smooth = smooth

    def ready(self) -> int | None:
        """Return the most probable class where it may be the label and is above the threshold."""
        best = self._smooth.index(max(self._smooth))
        return best if self._active[best] and self._smooth[best] >= self._config.threshold else None

    def holds(self, label: int) -> bool:
        """Say whether enough still speaks for the label that it goes on."""
        return self._smooth[label] >= self._ends_below

    @property
    def confidence(self) -> float:
        """Probability of the most likely class."""
        return max(self._smooth)

    def reset(self) -> None:
        """Forget everything that was seen: all classes are alike."""
        self._smooth = [1 / len(self._active)] * len(self._active)
