"""What training minimises."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from offline.data.trials import IGNORE
from streamer.components import Config as BaseConfig


class Config(BaseConfig):
    """Weights of the two terms.

    Attributes
    ----------
    hop_weight : float
        Cross-entropy of every hop's class: what the live decision needs.
    trial_weight : float
        Left against right, from the trial's mean log-odds: what the benchmark asks.
    """

    hop_weight: float = 0.5
    trial_weight: float = 1.0


def log_odds(logits: Tensor, answer: Tensor) -> Tensor:
    """Return the trial's mean log-odds of the last class over the one before, (..., B).

    Parameters
    ----------
    logits : Tensor, shape (..., B, T / hop, 3)
    answer : Tensor, shape (B, T / hop)
        1 where the answer is taken.
    """
    difference = logits[..., 2] - logits[..., 1]
    return (difference * answer).sum(dim=-1) / answer.sum(dim=-1).clamp(min=1)


def loss(logits: Tensor, hops: Tensor, side: Tensor, answer: Tensor, config: Config) -> Tensor:
    """Return the loss summed over members, so that each learns as if it were alone.

    Parameters
    ----------
    logits : Tensor, shape (M, B, T / hop, 3)
    hops, side, answer : Tensor
        As in a `TrialBatches` item.
    """
    members = len(logits)
    each = hops.expand(members, *hops.shape).flatten()
    hop = F.cross_entropy(logits.flatten(0, 2), each, ignore_index=IGNORE)
    odds = log_odds(logits, answer)  # (M, B)
    trial = F.binary_cross_entropy_with_logits(odds, side.float().expand_as(odds))
    return members * (config.hop_weight * hop + config.trial_weight * trial)
