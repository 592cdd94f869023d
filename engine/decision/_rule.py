"""What every kind of decision has: its settings, and a rule that says when enough speaks for a class."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamer.components import Config

Seconds = Annotated[float, Field(ge=0, le=60)]
Share = Annotated[float, Field(ge=0, le=1)]


class DecisionSettings(Config, ABC):
    """Settings that all kinds of decision share.

    Attributes
    ----------
    smoothing_s : float
        Time constant of the exponential smoothing of probabilities, s; 0 for none.
    dwell_s : float
        How long enough must speak for a class before it becomes the label, s.
    refractory_s : float
        After a label ends, how long no other one may start, s.
    max_invalid : float
        Share of repaired or bad samples under a decision above which it is rejected.
    """

    bound_key: ClassVar[str]  # the setting that trades hits against false activations
    labels_ignore: ClassVar[tuple[str, ...]] = ()  # settings that no label hangs on

    kind: str
    smoothing_s: Seconds = 0.5
    dwell_s: Seconds = 0.25
    refractory_s: Seconds = 0.5
    max_invalid: Share = 0.1

    @abstractmethod
    def rule(self, active: NDArray[np.bool_], idle: int | None, hop_s: float) -> Rule:
        """Return a fresh rule.

        Parameters
        ----------
        active : ndarray, shape (n_classes,), bool
            Classes that may become the label.
        idle : int or None
            Place of the class that means "nothing".
        hop_s : float
            Seconds between decisions.
        """

    @abstractmethod
    def at(self, bound: float) -> Self:
        """Return the same settings with another bound."""

    @property
    @abstractmethod
    def ends_below(self) -> float:
        """How much must speak for a label that it goes on."""

    def keep(self, hop_s: float) -> float:
        """Return what one hop keeps of the smoothed probabilities before it."""
        return math.exp(-hop_s / self.smoothing_s) if self.smoothing_s > 0 else 0.0


class Rule(ABC):
    """Says, hop by hop, for which class enough speaks; owns the state that this takes."""

    @abstractmethod
    def see(self, logits: Sequence[float], smooth: Sequence[float]) -> None:
        """Take in one good hop.

        Parameters
        ----------
        logits : sequence of float
            One per class, over the temperature.
        smooth : sequence of float
            Smoothed probabilities.
        """

    @abstractmethod
    def ready(self) -> int | None:
        """Return the class for which enough speaks to begin; None where that is so of none."""

    @abstractmethod
    def holds(self, label: int) -> bool:
        """Say whether a label that has begun may go on."""

    @property
    @abstractmethod
    def confidence(self) -> float:
        """How much speaks for the leading class, in [0, 1]."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything that was seen."""
