"""What training minimises."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from offline.data.trials import IGNORE
from streamer.components import Config as BaseConfig

LAST = 2  # hops at the end of a trial


class Config(BaseConfig):
    """Weights of the terms.

    Attributes
    ----------
    hop_weight : float
        Cross-entropy of every hop's class: what the live decision needs.
    trial_weight : float
        Left against right, from the trial's mean log-odds.
    last_weight : float
        Left against right, from the log-odds at the end of the trial alone.  A net that learns this answers
        better then, since it may tell how long ago the cue was, and worse at any other time.
    early_weight, early_s : float
        The same so long before that end, s: two times are learned at little cost to either.
    late_weight, late_s : float
        The same from each hop of the last ``late_s`` alone, averaged over them.
    """

    hop_weight: float = 0.5
    trial_weight: float = 1.0
    last_weight: float = 0.0
    early_weight: float = 0.0
    early_s: PositiveFloat = 1.0
    late_weight: float = 0.0
    late_s: PositiveFloat = 1.5

    def out_of_reach(self, answer_s: float, hop_s: float) -> str | None:
        """Say which term would be learned from nothing, in an answer of ``answer_s``: nobody would notice."""
        hops = round(answer_s / hop_s)
        if self.early_weight and round(self.early_s / hop_s) + LAST > hops:
            return f"early_s {self.early_s:g} reaches before the answer, which is taken over {answer_s:g} s"
        if self.late_weight and not 1 <= round(self.late_s / hop_s) <= hops:
            return f"late_s {self.late_s:g} must be at least a hop, {hop_s:g} s, and at most {answer_s:g} s"
        return None


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


def loss(
    logits: Tensor, hops: Tensor, side: Tensor, answer: Tensor, configs: Sequence[Config], hop_s: float
) -> Tensor:
    """Return the loss summed over members, so that each learns as if it were alone.

    Parameters
    ----------
    logits : Tensor, shape (M, B, T / hop, 3)
    hops, side, answer : Tensor
        As in a `TrialBatches` item.
    configs : sequence of Config
        Nets take turns: members first, then courses.
    hop_s : float
    """
    one_each = zip(logits, itertools.cycle(configs), strict=False)
    return torch.stack([_loss(one, hops, side, answer, config, hop_s) for one, config in one_each]).sum()


def _loss(logits: Tensor, hops: Tensor, side: Tensor, answer: Tensor, config: Config, hop_s: float) -> Tensor:
    """Return the loss of one member's logits (B, T / hop, 3)."""
    total = config.hop_weight * F.cross_entropy(logits.flatten(0, 1), hops.flatten(), ignore_index=IGNORE)
    terms = (
        (config.trial_weight, answer),
        (config.last_weight, last(answer)),
        (config.early_weight, last(answer, round(config.early_s / hop_s))),
    )
    for weight, asked in terms:
        if weight:
            odds = log_odds(logits, asked)
            total = total + weight * F.binary_cross_entropy_with_logits(odds, side.float())
    if config.late_weight:
        late = last(answer, most=round(config.late_s / hop_s))
        odds, sides = logits[..., 2] - logits[..., 1], side.float()[:, None].expand_as(late)
        each = F.binary_cross_entropy_with_logits(odds, sides, reduction="none")
        total = total + config.late_weight * (each * late).sum() / late.sum().clamp(min=1)
    return total


def last(answer: Tensor, before: int = 0, most: int = LAST) -> Tensor:
    """Return 1 at the last ``most`` hops that are 1 in ``answer`` (B, T / hop), ``before`` left out."""
    here = answer.flip(-1).cumsum(dim=-1).flip(-1) - before  # how many from here on
    return answer * ((here > 0) & (here <= most))
