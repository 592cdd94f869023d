"""Mean and SD of all that has been so far, older values fading: what a person's signal is usually like."""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]
VARIANCE_FLOOR = 0.01
LEARNING = 0.05  # share of a batch in what is usual for people


class RunningMean(nn.Module):
    """Mean over the past, this step included: (B, D, F) -> (B, D, F).

    With n steps seen it weighs them alike as long as n is far below ``memory``, and later as an exponential
    window does: ``sum_k decay**k x[n - k] / sum_k decay**k`` with ``decay = 1 - 1 / memory``.  So the first
    step is its own mean, and there is nothing to warm up.

    Parameters
    ----------
    dim : int
        D.
    memory : int
        Steps after which a value counts 1 / e.
    """

    def __init__(self, dim: int, memory: int) -> None:
        super().__init__()
        self.dim, self.memory, self.decay = dim, memory, 1.0 - 1.0 / memory
        self.register_buffer("_like", torch.zeros(1), persistent=False)  # where the state lives

    def init_state(self, batch: int) -> State:
        """Return nothing seen: the mean (B, D), and the weight behind it as a share of the memory (B, 1)."""
        like = self.get_buffer("_like")
        return like.new_zeros(batch, self.dim), like.new_zeros(batch, 1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the means (B, D, F) and the new state."""
        mean, share = state
        weight = share * self.memory
        fading, left = _fading(x, self.decay)
        sums = x @ fading + (mean * weight)[..., None] * left  # (B, D, F)
        weights = fading.sum(dim=0) + weight * left  # (B, F)
        means = sums / weights[:, None]
        return means, (means[..., -1], weights[..., -1:] / self.memory)


class RunningStandard(nn.Module):
    """Standardises by a running mean and SD: (B, D, F) -> (B, D, F).

    Both forget exponentially and start from what is usual for people, which counts as much as ``memory``
    steps; in training the end of every crop is averaged into that.

    Parameters
    ----------
    dim : int
        D.
    memory : int
        Steps after which a value counts 1 / e.
    """

    def __init__(self, dim: int, memory: int) -> None:
        super().__init__()
        self.dim, self.decay = dim, 1.0 - 1.0 / memory
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("learned", torch.zeros(1))

    def init_state(self, batch: int) -> Tensor:
        """Return no deviation of mean and of variance from what is usual for people, (B, 2 D)."""
        return self.get_buffer("mean").new_zeros(batch, 2 * self.dim)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the standardised values and the new state."""
        mean, variance = (
            self.get_buffer(name) + past
            for name, past in zip(("mean", "variance"), state.chunk(2, dim=1), strict=True)
        )  # (B, D), before the chunk
        # Around the mean before it, a step alone loses nothing to cancellation; of many at once the mean
        # wanders away from there, so that the difference of two squares needs more digits.
        away = (x if x.shape[-1] == 1 else x.double()) - mean[..., None]
        fading, left = _fading(away, self.decay)
        drift, power = ((1 - self.decay) * (one @ fading) for one in (away, away.square()))
        spread = power + variance[..., None] * left - drift.square()
        z = ((away - drift) / spread.clamp(min=VARIANCE_FLOOR).sqrt()).to(x.dtype)
        mean, variance = mean + drift[..., -1].to(x.dtype), spread[..., -1].to(x.dtype)
        if self.training:
            self._learn(mean.detach(), variance.detach())
        usual = torch.cat([self.get_buffer("mean"), self.get_buffer("variance")])
        return z, torch.cat([mean, variance], dim=1) - usual

    def _learn(self, mean: Tensor, variance: Tensor) -> None:
        """Average the means and variances of a batch of crops (B, D) into what is usual for people."""
        seen = self.get_buffer("learned")
        share = LEARNING if float(seen) else 1.0
        with torch.no_grad():
            for name, value in (("mean", mean), ("variance", variance)):
                self.get_buffer(name).lerp_(value.mean(dim=0), share)
            seen.fill_(1.0)


def _fading(x: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Return what value k of (..., F) still counts at step f, (F, F), and what came before them all, (F,)."""
    steps = torch.arange(x.shape[-1], device=x.device)
    age = steps[None, :] - steps[:, None]
    counts = torch.where(age >= 0, decay ** age.clamp(min=0).to(x.dtype), 0.0)
    return counts, decay ** (steps + 1).to(x.dtype)
