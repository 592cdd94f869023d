"""Standardises features by what a stream has shown so far: a person's own scale, without a future."""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor, Tensor]
SMALLEST_VARIANCE = 0.05  # of a population's: a night that begins with an hour of wake hardly varies


class RunningNorm(nn.Module):
    """Minus the running mean, divided by the running standard deviation; x (B, F, D) -> (B, F, D).

    Both are over all frames up to the present one, and over ``prior`` frames of mean 0 and variance 1 that
    stand for the population: feed features that are standardised over it.  The state is the number of frames
    (B, 1), the mean (B, D) and by how much the variance exceeds 1 (B, D); they are moved frame by frame
    (Welford, Technometrics 4(3), 1962), where sums of squares would lose digits through a night.
    """

    bounded = False

    def __init__(self, n_features: int, prior: float) -> None:
        super().__init__()
        if prior <= 0:
            raise ValueError(f"prior must be above 0 frames, got {prior:g}")
        self.n_features, self.prior = n_features, prior
        self.register_buffer("_like", torch.zeros(1), persistent=False)  # where the state lives

    def init_state(self, batch: int) -> State:
        """Return the state before the first frame: the prior alone."""
        like = self.get_buffer("_like")
        return (
            like.new_zeros(batch, 1),
            like.new_zeros(batch, self.n_features),
            like.new_zeros(batch, self.n_features),
        )

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the standardised features (B, F, D) and the new state."""
        count, mean, excess = state
        scaled = []
        for frame in x.unbind(dim=1):  # (B, D)
            count = count + 1
            share = 1 / (count + self.prior)
            before = frame - mean
            mean = mean + before * share
            excess = excess + (before * (frame - mean) - 1 - excess) * share
            scaled.append((frame - mean) / (1 + excess).clamp(min=SMALLEST_VARIANCE).sqrt())
        return torch.stack(scaled, dim=1), (count, mean, excess)
