"""From the model's outputs to decisions: calibrated, smoothed, held, rejected."""

from engine.decision.decider import Decider, DecisionConfig

__all__ = ["Decider", "DecisionConfig"]
