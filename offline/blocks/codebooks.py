"""One level of a residual quantiser: how a vector finds its code, and how codes follow the data.

Code vectors are moving averages of the vectors that chose them (van den Oord et al. 2017, appendix A.1).
A code that is hardly chosen any more is put near a vector of the batch.  Its average and its counts are set
with it, and after the averages were copied: else the next copy takes the code back to where it died.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = 1e-12
GAIN_SPAN = 2.5  # standard deviations of log gain that the ladder of gains reaches to either side
MIN_SPREAD = 0.05  # of log gain: keeps the rungs apart where all gains are the same


class Codebook(nn.Module):
    """The nearest code vector by Euclidean distance.

    Attributes
    ----------
    embed : Tensor, shape (S, D)
        Code vectors.
    total, count : Tensor, shapes (S, D) and (S,)
        Sum and number of the vectors that chose each code vector, per step, averaged over steps.
    recent : Tensor, shape (S,)
        The number, averaged over as many steps as tell a dead code from one that had bad luck.  The averages
        above are slower: latents that move by five standard deviations leave 2 % of the codes in use, which
        takes 300 steps to be seen by ``count`` (decay 0.99, 32 vectors per code and step) and 30 here.
    n_codes : int
        Codes are below it.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.n_codes = size
        self.embed: Tensor
        self.total: Tensor
        self.count: Tensor
        self.recent: Tensor
        self.register_buffer("embed", self.averaged(torch.randn(size, dim)))
        self.register_buffer("total", torch.zeros(size, dim))
        self.register_buffer("count", torch.zeros(size))
        self.register_buffer("recent", torch.zeros(size))

    def nearest(self, x: Tensor) -> Tensor:
        """Return the codes (...,) int64 of vectors (..., D)."""
        # Least |x - c|^2 less |x|^2.  As one linear layer: product and difference take 1.5 times as long.
        return F.linear(x, self.embed, self.embed.square().sum(dim=-1) / -2).argmax(dim=-1)

    def vectors(self, codes: Tensor) -> Tensor:
        """Return the vectors (..., D) of codes (...,)."""
        return F.embedding(codes, self.embed)

    def slots(self, codes: Tensor) -> Tensor:
        """Return the row of ``embed`` that each code uses."""
        return codes

    def averaged(self, x: Tensor) -> Tensor:
        """Return that of vectors (..., D) which a code vector is the average of."""
        return x

    def start(self, x: Tensor, step_size: int, iterations: int, rng: np.random.Generator) -> None:
        """Place the code vectors by k-means on vectors ``x`` (N, D), drawn from ``step_size`` of a step."""
        self.embed.copy_(self.averaged(x[draw(rng, len(x), len(self.embed), x.device)]))
        for _ in range(iterations):
            self.follow(self.statistics(x, self.nearest(x)) * (step_size / len(x)), 0.0, 0.0)

    def statistics(self, x: Tensor, codes: Tensor) -> Tensor:
        """Return what `follow` needs to know of vectors (N, D) and their codes (N,): (M,) float64.

        The statistics of two parts of a batch add up to those of the batch; in float64, so that a batch
        spread over processes gives the same codebook as in one.
        """
        rows = torch.cat([self.averaged(x), x.new_ones(len(x), 1)], dim=-1)  # (N, D + 1)
        sums = x.new_zeros(len(self.embed), rows.shape[-1], dtype=torch.float64)
        return sums.index_add_(0, self.slots(codes), rows.double()).flatten()

    def follow(self, statistics: Tensor, decay: float, recent_decay: float) -> None:
        """Move the averages towards the statistics of a batch, and the code vectors to the averages."""
        size, dim = self.embed.shape
        sums = statistics[: size * (dim + 1)].view(size, dim + 1).float()
        self.total.lerp_(sums[:, :dim], 1 - decay)
        self.count.lerp_(sums[:, dim], 1 - decay)
        self.recent.lerp_(sums[:, dim], 1 - recent_decay)
        mean = self.averaged(self.total / self.count.clamp(min=TINY)[:, None])
        self.embed.copy_(torch.where((self.count > TINY)[:, None], mean, self.embed))

    def revive(self, dead: Tensor, x: Tensor, count: float) -> None:
        """Put code vectors ``dead`` (M,) int64 near vectors ``x`` (M, D), with this count per step.

        Halfway between a vector and the code it has: in many dimensions a place on the vector itself is
        nearest to no other vector, and the code dies again (64 dimensions: 86 % of codes used, not 99 %).
        """
        place = self.averaged((x + self.vectors(self.nearest(x))) / 2)
        self.embed[dead] = place
        self.total[dead] = place * count
        self.count[dead] = count
        self.recent[dead] = count


class AngleCodebook(Codebook):
    """The code vector closest in angle.

    A code vector is the mean of the vectors that chose it, with its length: that is the best gain along
    its direction, so what is left after this level is less, whatever the scale.
    """

    def nearest(self, x: Tensor) -> Tensor:
        """Return the codes (...,) int64 of vectors (..., D)."""
        return (x @ F.normalize(self.embed, dim=-1).T).argmax(dim=-1)


class GainShapeCodebook(Codebook):
    """The unit vector closest in angle, times the nearest of ``gains`` gains in logarithmic steps.

    The ladder of gains follows mean and spread of the logarithm of the projections, so the level fits any
    scale.  A code is ``shape * gains + gain``.
    """

    def __init__(self, size: int, dim: int, gains: int) -> None:
        super().__init__(size, dim)
        self.n_codes, self.n_gains = size * gains, gains
        self.log_gain: Tensor
        self.gains: Tensor
        self.register_buffer("log_gain", torch.tensor([0.0, 1.0]))  # mean, standard deviation
        self.register_buffer("gains", self._ladder())  # (G,)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the codes (...,) int64 of vectors (..., D)."""
        gain, shape = (x @ self.embed.T).max(dim=-1)
        return shape * self.n_gains + (gain[..., None] - self.gains).abs().argmin(dim=-1)

    def vectors(self, codes: Tensor) -> Tensor:
        """Return the vectors (..., D) of codes (...,)."""
        gain = self.gains[torch.remainder(codes, self.n_gains)]
        return F.embedding(self.slots(codes), self.embed) * gain[..., None]

    def slots(self, codes: Tensor) -> Tensor:
        """Return the row of ``embed`` that each code uses."""
        return torch.div(codes, self.n_gains, rounding_mode="floor")

    def averaged(self, x: Tensor) -> Tensor:
        """Return unit vectors."""
        return F.normalize(x, dim=-1, eps=TINY)

    def statistics(self, x: Tensor, codes: Tensor) -> Tensor:
        """Return those of the shapes, then number, sum and sum of squares of the log projections."""
        gain = (x * F.embedding(self.slots(codes), self.embed)).sum(dim=-1).double()
        seen = gain > TINY  # silence has no gain
        log_gain = torch.where(seen, gain.clamp(min=TINY).log(), 0.0)
        moments = torch.stack([seen.double().sum(), log_gain.sum(), log_gain.square().sum()])
        return torch.cat([super().statistics(x, codes), moments])

    def follow(self, statistics: Tensor, decay: float, recent_decay: float) -> None:
        """Move averages, code vectors and the ladder towards the statistics of a batch."""
        super().follow(statistics, decay, recent_decay)
        number, first, second = statistics[-3:]
        number = number.clamp(min=1.0)
        mean = first / number
        spread = (second / number - mean.square()).clamp(min=0.0).sqrt().clamp(min=MIN_SPREAD)
        self.log_gain.lerp_(torch.stack([mean, spread]).float(), 1 - decay)
        self.gains.copy_(self._ladder())

    def _ladder(self) -> Tensor:
        rungs = torch.linspace(-GAIN_SPAN, GAIN_SPAN, self.n_gains, device=self.log_gain.device)
        return torch.exp(self.log_gain[0] + self.log_gain[1] * rungs)


def draw(rng: np.random.Generator, n: int, size: int, device: torch.device) -> Tensor:
    """Return ``size`` of the numbers below ``n`` (int64), no two the same where there are enough."""
    return torch.from_numpy(rng.choice(n, size, replace=size > n)).to(device)
