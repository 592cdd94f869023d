"""Layers with carried state: the same numbers for any chunking.

Each has ``init_state(batch)`` (zeros, batch first) and ``forward(x, state) -> (y, state)``; ``left`` is the
number of steps kept from the chunks before, and ``first_input(n)`` the first input step that output step n
depends on, from which a stack of layers knows its left context.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pad = Literal["zero", "first"]
Past = Tensor | tuple[Tensor, Tensor]


class CausalConv1d(nn.Conv1d):
    """Convolution over the past: (B, C, T) -> (B, C', T / stride); T must be a multiple of ``stride``.

    Before the first sample lie zeros or, with ``pad="first"``, that sample for ever: reflection would make
    the first outputs depend on the future.  The state is the past (B, C, left), with ``pad="first"`` also a
    flag (B, 1, 1) that is 1 once the stream has begun.
    """

    def __init__(self, *args: Any, pad: Pad = "zero", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pad = pad

    @property
    def left(self) -> int:
        """Input samples kept from the chunks before."""
        return (self.kernel_size[0] - 1) * self.dilation[0] + 1 - self.stride[0]

    def first_input(self, n: int) -> int:
        """Return the first input sample that output sample n depends on."""
        return n * self.stride[0] - self.left

    def init_state(self, batch: int) -> Past:
        """Return the silent past."""
        past = self.weight.new_zeros(batch, self.in_channels, self.left)
        return past if self.pad == "zero" else (past, self.weight.new_zeros(batch, 1, 1))

    def forward(self, x: Tensor, past: Past) -> tuple[Tensor, Past]:  # type: ignore[override]
        """Return the output (B, C', T / stride) and the new past."""
        if not isinstance(past, tuple):
            x = torch.cat([past, x], dim=-1)  # (B, C, left + T)
            return super().forward(x), x[..., x.shape[-1] - self.left :]
        before, begun = past
        before = torch.where(begun > 0, before, x[..., :1])
        x = torch.cat([before, x], dim=-1)  # (B, C, left + T)
        return super().forward(x), (x[..., x.shape[-1] - self.left :], torch.ones_like(begun))


class CausalConvTranspose1d(nn.ConvTranspose1d):
    """Up-sampling that never looks ahead: (B, C, T) -> (B, C', T * stride).

    A frame reaches ``kernel_size`` samples from its own first one on.  What it adds to the samples of later
    frames is the state, the overlap (B, C', kernel_size - stride), without the bias, which each sample gets
    once.  Before the first frame lies silence.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        if kernel_size < stride:
            raise ValueError(f"kernel_size must be at least the stride {stride}, got {kernel_size}")
        super().__init__(in_channels, out_channels, kernel_size, stride)

    @property
    def left(self) -> int:
        """Output samples kept for the next chunk."""
        return self.kernel_size[0] - self.stride[0]

    def first_input(self, n: int) -> int:
        """Return the first frame that output sample n depends on."""
        return -((self.kernel_size[0] - 1 - n) // self.stride[0])

    def init_state(self, batch: int) -> Tensor:
        """Return no overlap, (B, C', left)."""
        return self.weight.new_zeros(batch, self.out_channels, self.left)

    def forward(self, x: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the output (B, C', T * stride) and the overlap with what follows."""
        n_times = x.shape[-1] * self.stride[0]
        y = F.conv_transpose1d(x, self.weight, stride=self.stride)  # (B, C', n_times + left)
        y = y + F.pad(overlap, (0, n_times))
        out = y[..., :n_times]
        if self.bias is not None:
            out = out + self.bias[:, None]
        return out, y[..., n_times:]


class CausalPool1d(nn.Module):
    """Mean of the last ``size`` samples, every ``stride``: (B, C, T) -> (B, C, T / stride)."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__()
        self.channels, self.size, self.stride = channels, size, stride
        self.register_buffer("_like", torch.zeros(1), persistent=False)  # where the state lives

    @property
    def left(self) -> int:
        """Input samples kept from the chunks before."""
        return self.size - self.stride

    def first_input(self, n: int) -> int:
        """Return the first input sample that output sample n depends on."""
        return n * self.stride - self.left

    def init_state(self, batch: int) -> Tensor:
        """Return the silent past, (B, C, left)."""
        like: Tensor = self.get_buffer("_like")
        return like.new_zeros(batch, self.channels, self.left)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means (B, C, T / stride) and the new past."""
        x = torch.cat([past, x], dim=-1)  # (B, C, left + T)
        return F.avg_pool1d(x, self.size, self.stride), x[..., x.shape[-1] - self.left :]


class ResidualConv(nn.Module):
    """``x + dropout(elu(norm(conv(x))))`` over frames, dilated and causal; (B, D, T) -> (B, D, T).

    BatchNorm is frozen in export and folds into the convolution; a norm over time would leak the future.
    """

    stride = 1

    def __init__(self, dim: int, kernel: int, dilation: int, dropout: float, groups: int = 1) -> None:
        super().__init__()
        self.conv = CausalConv1d(dim, dim, kernel, dilation=dilation, groups=groups, bias=False)
        self.norm = nn.BatchNorm1d(dim)
        self.dropout = nn.Dropout(dropout)

    @property
    def left(self) -> int:
        """Frames kept from the chunks before."""
        return self.conv.left

    def first_input(self, n: int) -> int:
        """Return the first frame that frame n depends on."""
        return self.conv.first_input(n)

    def init_state(self, batch: int) -> Past:
        """Return the silent past, (B, D, left)."""
        return self.conv.init_state(batch)

    def forward(self, x: Tensor, past: Past) -> tuple[Tensor, Past]:
        """Return the output (B, D, T) and the new past."""
        y, past = self.conv(x, past)
        return x + self.dropout(F.elu(self.norm(y))), past


class Stack(nn.ModuleList):
    """Layers with state, one after the other; the state is a tuple of theirs."""

    def first_input(self, n: int) -> int:
        """Return the first input step of the stack that output step n depends on."""
        for layer in reversed(self):
            n = layer.first_input(n)  # type: ignore[operator]
        return n

    def init_state(self, batch: int) -> tuple[Any, ...]:
        """Return the layers' states before the first sample."""
        return tuple(layer.init_state(batch) for layer in self)  # type: ignore[operator]

    def forward(self, x: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """Return the last layer's output and the new states."""
        new = []
        for layer, past in zip(self, state, strict=True):
            x, past = layer(x, past)
            new.append(past)
        return x, tuple(new)
