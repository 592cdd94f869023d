"""Attention over time, over electrodes or over both, in transformer blocks with per-token norms.

Over time it is causal and carries a bounded cache of keys and values: a chunk attends over the cache and
itself, and only then is the cache trimmed to ``context - 1`` frames (a ring of ``context`` slots is wrong as
soon as a call brings two frames).  The cache holds the keys un-rotated and rotates them by their place *in
the window* (Su et al. 2021, arXiv:2104.09864), so positions never grow, however long the stream.

Tokens are (B, F, C, D): rows, frames, electrodes (or latents), width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Cache = tuple[Tensor, Tensor, Tensor]
State = tuple[Tensor, ...]
Axis = Literal["time", "channel", "window", "joint"]
BASE = 10_000.0  # of the rotary frequencies, as published


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate the pairs of each head by its position.

    Parameters
    ----------
    x : Tensor, shape (..., N, d), d even
    positions : Tensor, shape (N,), float32
        In frames; only their differences reach the scores.

    Returns
    -------
    Tensor
        As ``x``; the angles are float32 whatever autocast does.
    """
    half = x.shape[-1] // 2
    frequencies = BASE ** (-torch.arange(half, dtype=torch.float32, device=x.device) / half)
    angle = positions[:, None] * frequencies  # (N, d / 2)
    a, b = x[..., :half].float(), x[..., half:].float()
    turned = torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)
    return turned.to(x.dtype)


class _Heads(nn.Module):
    """The linear maps that both kinds of attention share."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads or dim // heads % 2:
            raise ValueError(f"{heads} heads of a width of {dim} are not of even width each")
        self.heads, self.width = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of (N, T, D), each (N, heads, T, d)."""
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        return q, k, v

    def join(self, y: Tensor) -> Tensor:
        """Return (N, T, D) from (N, heads, T, d)."""
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class Attention(_Heads):
    """Attention of all tokens to all tokens, (N, T, D) -> (N, T, D)."""

    def forward(self, x: Tensor, positions: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """Attend.

        Parameters
        ----------
        positions : Tensor, shape (T,), float32, optional
            Frames; without them order means nothing, as among electrodes.
        keep : Tensor, shape (N, T), bool, optional
            Tokens that may be looked at.
        """
        q, k, v = self.split(x)
        if positions is not None:
            q, k = rotate(q, positions), rotate(k, positions)
        mask = None if keep is None else keep[:, None, None]  # (N, 1, 1, T)
        return self.join(F.scaled_dot_product_attention(q, k, v, mask))


class CausalAttention(_Heads):
    """Attention over the last ``context`` frames, the present one included, for several groups per row.

    (B, G, T, D) -> (B, G, T, D); a group is an electrode (or a latent): groups do not see each other.
    """

    def __init__(self, dim: int, heads: int, context: int) -> None:
        super().__init__(dim, heads)
        self.context = context

    @property
    def left(self) -> int:
        """Frames before the chunk that its first output depends on."""
        return self.context - 1

    def init_state(self, batch: int, groups: int) -> Cache:
        """Return the empty cache: keys and values (B, G, heads, context - 1, d), frames filled (B,)."""
        weight = self.qkv.weight
        keys = weight.new_zeros(batch, groups, self.heads, self.left, self.width)
        return keys, keys.clone(), torch.zeros(batch, dtype=torch.int64, device=weight.device)

    def forward(self, x: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        """Return the output and the new cache."""
        past_keys, past_values, filled = state
        batch, groups, t, dim = x.shape
        q, k, v = self.split(x.flatten(0, 1))
        k = torch.cat([past_keys.flatten(0, 1).to(k.dtype), k], dim=2)  # (B G, heads, left + T, d)
        v = torch.cat([past_values.flatten(0, 1).to(v.dtype), v], dim=2)
        places = torch.arange(self.left + t, dtype=torch.float32, device=x.device)
        mask = self._mask(t, filled).repeat_interleave(groups, dim=0)
        y = F.scaled_dot_product_attention(rotate(q, places[self.left :]), rotate(k, places), v, mask)
        keys, values = (each[:, :, t:].reshape(past_keys.shape) for each in (k, v))
        state = (keys.to(past_keys.dtype), values.to(past_values.dtype), (filled + t).clamp(max=self.left))
        return self.join(y).view(batch, groups, t, dim), state

    def _mask(self, t: int, filled: Tensor) -> Tensor:
        """Return who may be looked at, (B, 1, T, left + T): a band, less the slots not yet filled."""
        row = torch.arange(t, device=filled.device)[:, None]
        column = torch.arange(self.left + t, device=filled.device)[None]
        band = (column >= row) & (column <= row + self.left)
        there = column >= self.left - filled[:, None, None, None]
        return band & there


class Block(nn.Module):
    """Pre-norm transformer block, ``h + attention(norm(h))`` then ``h + mlp(norm(h))``; MLP x4 with GELU.

    Parameters
    ----------
    axis : str
        ``time``: causal, per electrode, with a cache of ``context - 1`` frames.  ``channel``: all electrodes
        of a frame see each other.  ``window``: all frames of an electrode see each other, future included;
        ``joint``: so do all tokens of the window, whatever their electrode.
    context : int
        Frames that ``time`` sees, the present one included.
    dropout : float
        Of what attention and MLP add.
    """

    def __init__(self, dim: int, heads: int, axis: Axis, context: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.axis = axis
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = CausalAttention(dim, heads, context) if axis == "time" else Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    @property
    def left(self) -> int:
        """Frames before the chunk that its first output depends on."""
        return self.attention.left if isinstance(self.attention, CausalAttention) else 0

    def init_state(self, batch: int, groups: int) -> State:
        """Return the empty cache of a ``time`` block, and nothing for the others."""
        if isinstance(self.attention, CausalAttention):
            return self.attention.init_state(batch, groups)
        return ()

    def forward(self, h: Tensor, state: State, keep: Tensor | None = None) -> tuple[Tensor, State]:
        """Return tokens (B, F, C, D) and the new state; ``keep`` (B, F) bool: frames that may be seen.

        ``keep`` is for ``window`` and ``joint``.
        """
        y, state = self._attend(self.attention_norm(h), state, keep)
        h = h + self.dropout(y)
        return h + self.dropout(self.mlp(self.mlp_norm(h))), state

    def _attend(self, x: Tensor, state: State, keep: Tensor | None) -> tuple[Tensor, State]:
        frames, groups = x.shape[1:3]
        if isinstance(self.attention, CausalAttention):
            keys, values, filled = state
            y, state = self.attention(x.transpose(1, 2), (keys, values, filled))  # (B, C, F, D)
            return y.transpose(1, 2), state
        if self.axis == "channel":
            return self.attention(x.flatten(0, 1)).view(x.shape), state  # (B F, C, D)
        places = torch.arange(frames, dtype=torch.float32, device=x.device)
        if self.axis == "window":
            alone = x.transpose(1, 2)  # (B, C, F, D)
            seen = None if keep is None else keep.repeat_interleave(groups, dim=0)
            y = self.attention(alone.flatten(0, 1), places, seen).view(alone.shape)
            return y.transpose(1, 2), state
        places = places.repeat_interleave(groups)
        seen = None if keep is None else keep.repeat_interleave(groups, dim=1)
        return self.attention(x.flatten(1, 2), places, seen).view(x.shape), state  # (B, F C, D)
