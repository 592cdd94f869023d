"""Where a channel is, as a vector: any montage, any number of channels, unknown places allowed.

A table of names fails on the first name it does not hold.  Here a channel is its coordinates, Fourier
features of them (Tancik et al. 2020, arXiv:2006.10739) and a small MLP; a channel of unknown place gets one
learned vector.  `Merge` turns any number of electrodes into a fixed number of latents by cross attention
from learned queries (as LUNA does, arXiv:2510.22257), `Spread` turns them back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from streamer import montage

OCTAVES = 4  # 1, 2, 4, 8 half-turns across the head: the finest tells neighbours of the 10-05 system apart


def coordinates(ch_names: Sequence[str], stype: str) -> NDArray[np.float32]:
    """Return where channels are, on a head (or limb) of radius 1.

    Parameters
    ----------
    ch_names : sequence of str
        For EEG 10-05 names or their aliases; a bipolar derivation or an unheard-of name has no place.
    stype : str
        ``"EMG"``: an armband, its channels evenly round the limb in their order.

    Returns
    -------
    ndarray, shape (n_chans, 3), float32
        x right, y front, z up; NaN where unknown.
    """
    if stype.upper() == "EMG":
        angle = 2 * np.pi * np.arange(len(ch_names)) / max(len(ch_names), 1)
        return np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1).astype(np.float32)
    places = np.full((len(ch_names), 3), np.nan, dtype=np.float32)
    for row, name in enumerate(ch_names):
        if montage.located(name):
            places[row] = montage.positions([name])[0]
    return places


class ElectrodeEmbedding(nn.Module):
    """Coordinates (..., 3) -> vectors (..., dim); a row with a NaN gets the learned vector ``unknown``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(3 + 6 * OCTAVES, dim), nn.GELU(), nn.Linear(dim, dim))
        self.unknown = nn.Parameter(0.02 * torch.randn(dim))
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(OCTAVES), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Return the embedding of each channel."""
        known = ~positions.isnan().any(dim=-1, keepdim=True)
        places = torch.where(known, positions, torch.zeros_like(positions))
        phase = (places[..., None] * self.get_buffer("frequencies")).flatten(-2)  # (..., 3 OCTAVES)
        features = torch.cat([places, phase.sin(), phase.cos()], dim=-1)
        return torch.where(known, self.mlp(features), self.unknown)


class _CrossAttention(nn.Module):
    """Queries (N, Q, D) look at tokens (N, K, D): -> (N, Q, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.token_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Attend; there is no residual."""
        q = self._heads(self.query(self.query_norm(queries)))
        k, v = (self._heads(each) for each in self.key_value(self.token_norm(tokens)).chunk(2, dim=-1))
        y: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (N, heads, T, d)


class Merge(nn.Module):
    """Any number of electrodes -> ``latents`` tokens a frame: (B, F, C, D) -> (B, F, M, D).

    The tokens carry their place already, so which electrodes there are, and in which order, does not matter.
    """

    def __init__(self, dim: int, heads: int, latents: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(latents, dim))
        self.attention = _CrossAttention(dim, heads)

    def forward(self, h: Tensor) -> Tensor:
        """Return the latents of each frame."""
        batch, frames = h.shape[:2]
        queries = self.queries.expand(batch * frames, -1, -1)
        merged: Tensor = self.queries + self.attention(queries, h.flatten(0, 1))
        return merged.view(batch, frames, *merged.shape[1:])


class Spread(nn.Module):
    """Latents -> what they say about each electrode: (B, F, M, D), places (B, C, D) -> (B, F, C, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = _CrossAttention(dim, heads)

    def forward(self, h: Tensor, places: Tensor) -> Tensor:
        """Return one token per electrode and frame."""
        batch, frames = h.shape[:2]
        queries = places.repeat_interleave(frames, dim=0)  # (B F, C, D)
        spread: Tensor = queries + self.attention(queries, h.flatten(0, 1))
        return spread.view(batch, frames, *spread.shape[1:])
