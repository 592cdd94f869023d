"""What the armband net is made of: the signal of each electrode, the ring of them, and how it sits.

See `offline.models.gestures` for how they go together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offline.blocks.conv import CausalConv1d, CausalPool1d
from offline.blocks.running import RunningMean

if TYPE_CHECKING:
    from offline.models.gestures import Config

State = tuple[Any, ...]
POWER_FLOOR = 1e-4  # of the unit: keeps the log finite in silence
SPREAD_FLOOR = 0.05
UPRIGHT = 2.0  # log-odds with which the search for the orientation begins
LAGS = (1, 2, 3)  # neighbours whose products are taken
TURNS = (1, 2, 3, 4)  # electrodes round the ring whose powers' correlation is usual for a person


class Signal(nn.Module):
    """Power behind short filters, the same for every electrode, and how alike neighbours are, hop by hop."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        rows = c.n_chans
        self.filters = CausalConv1d(1, c.filters, c.taps, bias=False)
        with torch.no_grad():
            self.filters.weight.mul_(0.3)
            self.filters.weight[0, 0, -1] += 1.0  # amplitude
            self.filters.weight[1, 0, -2:] += torch.tensor([-1.0, 1.0])  # slope
        self.power = CausalPool1d(rows * c.filters, c.pool, 1)
        self.products = CausalPool1d(rows * (1 + len(LAGS)), c.products, 1)

    def init_state(self, batch: int) -> State:
        """Return zeros: of the filters one row per stream, of all electrodes."""
        past: Any = self.filters.init_state(batch * self.config.n_chans)
        return (
            past.view(batch, self.config.n_chans, -1),
            self.power.init_state(batch),
            self.products.init_state(batch),
        )

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return the power behind each filter (B, N, C, F), likeness (B, L, C, F) and the new state."""
        x = x / self.config.unit_uv
        energy, filters, power = self._energy(x, state[0], state[1])
        alike, products = self._alike(x, state[2])
        return energy, alike, (filters, power, products)

    def _energy(self, x: Tensor, past: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the power behind each filter, (B, N, C, F), and the new states."""
        c, batch = self.config, x.shape[0]
        z, after = self.filters(x.flatten(0, 1)[:, None], past.flatten(0, 1)[:, None])  # (B C, N, T)
        hops = F.avg_pool1d(z.square(), c.hop, c.hop)  # (B C, N, F)
        hops = hops.view(batch, c.n_chans, c.filters, -1).transpose(1, 2)  # (B, N, C, F)
        energy, pooled = self.power(hops.flatten(1, 2), pooled)
        return energy.view(hops.shape), after.view(batch, c.n_chans, -1), pooled

    def _alike(self, x: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the correlation of each electrode with those LAGS further, (B, L, C, F), and the state."""
        c = self.config
        both = torch.stack([x.square(), *(x * x.roll(-lag, 1) for lag in LAGS)], dim=1)  # (B, 1 + L, C, T)
        hops = F.avg_pool1d(both.flatten(1, 2), c.hop, c.hop)
        means, pooled = self.products(hops, pooled)
        means = means.view(x.shape[0], 1 + len(LAGS), c.n_chans, -1)
        power = means[:, 0] + POWER_FLOOR
        sizes = torch.stack([(power * power.roll(-lag, 1)).sqrt() for lag in LAGS], dim=1)
        alike = means[:, 1:] / sizes
        return torch.stack([_mean_of_sides(alike[:, i], lag) for i, lag in enumerate(LAGS)], dim=1), pooled


class Ring(nn.Module):
    """From signal to what each electrode says now, and what is usual for it, hop by hop.

    Attributes
    ----------
    n_now, n_usual : int
        Numbers per electrode.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.signal = Signal(config)
        self.usual = RunningMean(c.n_chans * (2 * c.filters + 1 + len(TURNS) + len(LAGS)), c.memory)
        self.n_now = 3 * c.filters + len(LAGS)
        self.n_usual = 2 * c.filters + 1 + len(TURNS) + len(LAGS)

    def init_state(self, batch: int) -> State:
        """Return zeros."""
        return (*self.signal.init_state(batch), self.usual.init_state(batch))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return now (B, F, n_now, C), usual (B, F, n_usual, C) and the new state."""
        energy, alike, new = self.signal(x, state[:3])
        level = torch.log(energy + POWER_FLOOR)  # (B, N, C, F)
        loud = level[:, 0]
        moments = [loud.square()[:, None], *(_both_ways(loud, n)[:, None] for n in TURNS)]
        seen = torch.cat([energy, level, *moments, alike], dim=1)  # (B, S, C, F)
        means, memory = self.usual(seen.flatten(1, 2), state[3])
        means = means.view(seen.shape)
        now, usual = self._features(level, alike, means)
        by_frame = (now.permute(0, 3, 1, 2), usual.permute(0, 3, 1, 2))
        return (*by_frame, (*new, memory))

    def _features(self, level: Tensor, alike: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is now and what is usual, (B, ., C, F)."""
        n = self.config.filters
        energy, log, moments, likeness = torch.split(means, [n, n, 1 + len(TURNS), len(LAGS)], dim=1)
        loudness = torch.log(energy.mean(dim=2, keepdim=True) + POWER_FLOOR)  # (B, N, 1, F) of the armband
        now = torch.cat([level, level - loudness, level - log, alike], dim=1)
        mean = log[:, 0]
        spread = moments[:, 0] - mean.square() + SPREAD_FLOOR
        together = [
            (moments[:, i + 1] - _both_ways(mean, turn)) / _both_ways(spread.clamp(min=1e-3).sqrt(), turn)
            for i, turn in enumerate(TURNS)
        ]
        shape = [log - loudness, torch.log(energy + POWER_FLOOR) - loudness]
        usual = torch.cat(
            [*shape, spread.clamp(min=1e-6).sqrt()[:, None], torch.stack(together, 1), likeness], 1
        )
        return now, usual


class Orientation(nn.Module):
    """Turns the ring upright: scores each orientation from what is usual, and takes their weighted mean."""

    def __init__(self, config: Config, n_usual: int) -> None:
        super().__init__()
        c, width = config, config.dim // 2
        self.norm = nn.BatchNorm1d(n_usual)
        self.wide = nn.Conv1d(n_usual, width, 5)
        self.wide_norm = nn.BatchNorm1d(width)
        self.narrow = nn.Conv1d(width, width, 3)
        self.score = nn.Conv1d(width, 1, 1)
        self.dropout = nn.Dropout(c.dropout)
        self.prior = nn.Parameter(torch.zeros(2, c.n_chans))
        with torch.no_grad():
            self.prior[0, 0] = UPRIGHT
        places = torch.arange(c.n_chans)
        turned = (places[:, None] + places) % c.n_chans  # (C, C): electrode at each place, by turn
        order = torch.stack([turned, c.n_chans - 1 - turned])  # (2, C, C): the ring as it is, and mirrored
        # (2 C, C C): of each orientation the matrix that takes electrodes to places, flat
        matrices = F.one_hot(order.flatten(0, 1), c.n_chans).transpose(1, 2).flatten(1).float()
        self.register_buffer("matrices", matrices, persistent=False)

    def forward(self, now: Tensor, usual: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``now`` (N, P, C) upright, from ``usual`` (N, Q, C), and how sure it was before (N,)."""
        usual = self.norm(usual)
        scores = torch.stack([self._scores(usual), self._scores(usual.flip(-1))], dim=1) + self.prior
        weights = scores.flatten(1).softmax(dim=-1)  # (N, 2 C)
        turn = (weights @ self.get_buffer("matrices")).view(-1, *[now.shape[-1]] * 2)  # (N, C, C)
        return now @ turn, weights[:, 0]

    def _scores(self, usual: Tensor) -> Tensor:
        """Return how well each turn of the ring fits, (N, C)."""
        y = self.dropout(F.elu(self.wide_norm(self.wide(_wrapped(usual, 2)))))
        y = F.elu(self.narrow(_wrapped(y, 1)))
        return self.score(y)[:, 0]  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Circular convolutions over the ring, then all electrodes together; (N, P, C) -> (N, D)."""

    def __init__(self, config: Config, n_now: int) -> None:
        super().__init__()
        c = config
        self.norm = nn.BatchNorm1d(n_now)
        self.first, self.second = nn.Conv1d(n_now, c.dim, 3), nn.Conv1d(c.dim, c.dim, 3)
        self.first_norm, self.second_norm = nn.BatchNorm1d(c.dim), nn.BatchNorm1d(c.dim)
        self.mix = nn.Linear(c.dim * c.n_chans, c.latent)
        self.mix_norm = nn.BatchNorm1d(c.latent)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, now: Tensor) -> Tensor:
        """Return what the head reads."""
        y = self.dropout(F.elu(self.first_norm(self.first(_wrapped(self.norm(now), 1)))))
        y = self.dropout(F.elu(self.second_norm(self.second(_wrapped(y, 1)))))
        latent: Tensor = self.dropout(F.elu(self.mix_norm(self.mix(y.flatten(1)))))
        return latent


def _both_ways(x: Tensor, turn: int) -> Tensor:
    """Return the product of each electrode with those so far along the ring on either side, their mean.

    Both sides alike, so that a mirrored ring has the mirrored products.
    """
    return x * (x.roll(-turn, 1) + x.roll(turn, 1)) / 2


def _mean_of_sides(x: Tensor, lag: int) -> Tensor:
    """Return, from what each electrode shares with the one ``lag`` further, the mean over its two sides."""
    return (x + x.roll(lag, 1)) / 2


def _wrapped(x: Tensor, by: int) -> Tensor:
    """Return a ring (N, P, C) with so many electrodes repeated at either end, (N, P, C + 2 by)."""
    return torch.cat([x[..., -by:], x, x[..., :by]], dim=-1)
