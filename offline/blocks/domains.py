"""Encoders of what nodes do in time and in frequency; `offline.blocks.graph` has that of how they connect."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from offline.blocks.cross_spectrum import ExponentialMean
from offline.blocks.graph import TINY, Pool
from offline.blocks.node_conv import NodeConv

State = tuple[Any, ...]


class TemporalEncoder(nn.Module):
    """Signal (B, N, T) -> what its course says at each hop, and has said on average, (B, F, D).

    Parameters
    ----------
    convs : NodeConv
    dim : int
        Width of places and embedding, D.
    forget_frames : float
        Time constant of the average.
    dropout : float
        On what is read from the nodes.
    """

    def __init__(self, convs: NodeConv, dim: int, forget_frames: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.convs = convs
        self.token, self.pool = nn.Linear(convs.size, dim), Pool(dim)
        self.mean = ExponentialMean(forget_frames)
        self.norm, self.dropout = nn.LayerNorm(2 * self.pool.size), nn.Dropout(dropout)
        self.out = nn.Linear(2 * self.pool.size, dim)

    def init_state(self, batch: int, nodes: int) -> State:
        """Return the state before the first sample: zeros."""
        like = self.out.weight.new_zeros(batch, self.pool.size)
        return self.convs.init_state(batch, nodes), self.mean.init_state(like)

    def forward(self, x: Tensor, places: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the embedding at every completed hop and the new state."""
        convs, remembered = state
        tokens, convs = self.convs(x, convs)
        frames = tokens.shape[1]
        pooled = self.pool(self.token(tokens).flatten(0, 1), _per_frame(places, frames))  # (B F, size)
        now = pooled.view(-1, frames, pooled.shape[-1])
        means, remembered = self.mean(now, remembered)
        out: Tensor = self.out(self.dropout(self.norm(torch.cat([now, means], dim=-1))))
        return out, (convs, remembered)


class SpectralEncoder(nn.Module):
    """A profile per node -> (B, D): log powers (B, N, K) of a signal, or strengths (B, N, E) of edges.

    The two differ in width, K > E, and have a first layer each.
    """

    def __init__(self, dim: int, n_powers: int, n_strengths: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_powers = n_powers
        self.powers = nn.Linear(n_powers + 2, dim)
        self.strengths = nn.Linear(3 * n_strengths, dim)
        self.pool = Pool(dim)
        self.norm, self.dropout = nn.LayerNorm(self.pool.size), nn.Dropout(dropout)
        self.out = nn.Linear(self.pool.size, dim)

    def forward(self, profile: Tensor, places: Tensor) -> Tensor:
        """Return the embedding (B, D)."""
        if profile.shape[-1] == self.n_powers:
            tokens = self.powers(apart(profile))
        else:
            tokens = self.strengths(relative(profile))
        out: Tensor = self.out(self.dropout(self.norm(self.pool(tokens, places))))
        return out


def apart(profile: Tensor) -> Tensor:
    """Return profiles (B, N, K) as shape, node and level side by side, (B, N, K + 2).

    Shape is what lies over a node's mean, node what that lies over the mean of all: gain and skull move the
    level by more than minds do.
    """
    node = profile.mean(dim=-1, keepdim=True)  # (B, N, 1)
    level = node.mean(dim=1, keepdim=True)
    return torch.cat([profile - node, node - level, level.expand_as(node)], dim=-1)


def relative(strengths: Tensor) -> Tensor:
    """Return strengths (B, N, E) in any measure as deviations from each band's mean over nodes, (B, N, 3 E).

    Beside them stand, the same for all nodes, what `graph.standardised` calls levels: the logarithm of the
    deviation and the mean in deviations, compressed.
    """
    mean = strengths.mean(dim=1, keepdim=True)
    centred = strengths - mean
    spread = (centred.square().mean(dim=1, keepdim=True) + TINY**2).sqrt()
    levels = torch.cat([spread.log10(), torch.asinh(mean / spread)], dim=-1)  # (B, 1, 2 E)
    return torch.cat([centred / spread, levels.expand(-1, strengths.shape[1], -1)], dim=-1)


def _per_frame(places: Tensor, frames: int) -> Tensor:
    """Repeat the places (B or 1, N, D) of each row for its frames: (B F or 1, N, D)."""
    return places if places.shape[0] == 1 else places.repeat_interleave(frames, dim=0)
