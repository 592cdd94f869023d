"""The mean of all that has been so far, older values fading: what a person's signal is usually like."""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


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
        n, weight = x.shape[-1], share * self.memory
        steps = torch.arange(n, device=x.device)
        age = steps[None, :] - steps[:, None]  # (F, F): of value k at step f
        fading = torch.where(age >= 0, self.decay ** age.clamp(min=0).to(x.dtype), 0.0)
        left = self.decay ** (steps + 1).to(x.dtype)  # (F,) of what came before
        sums = x @ fading + (mean * weight)[..., None] * left  # (B, D, F)
        weights = fading.sum(dim=0) + weight * left  # (B, F)
        means = sums / weights[:, None]
        return means, (means[..., -1], weights[..., -1:] / self.memory)
