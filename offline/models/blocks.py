"""Layers with carried state: the same numbers for any chunking.

Each has ``init_state(batch)`` (zeros) and ``forward(x, state) -> (y, state)``, ``stride`` (input samples per
output sample) and ``left`` (input samples before the chunk that its first output depends on).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv1d(nn.Conv1d):
    """Convolution over the past: (B, C, T) -> (B, C', T / stride); T must be a multiple of ``stride``.

    Before the first sample lie zeros: reflection would make the first outputs depend on the future.
    """

    @property
    def left(self) -> int:
        """Input samples kept from the chunks before."""
        return (self.kernel_size[0] - 1) * self.dilation[0] + 1 - self.stride[0]

    def init_state(self, batch: int) -> Tensor:
        """Return the silent past, (B, C, left)."""
        return self.weight.new_zeros(batch, self.in_channels, self.left)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the output (B, C', T / stride) and the new past."""
        x = torch.cat([past, x], dim=-1)  # (B, C, left + T)
        return super().forward(x), x[..., x.shape[-1] - self.left :]


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

    def __init__(self, dim: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv = CausalConv1d(dim, dim, kernel, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(dim)
        self.dropout = nn.Dropout(dropout)

    @property
    def left(self) -> int:
        """Frames kept from the chunks before."""
        return self.conv.left

    def init_state(self, batch: int) -> Tensor:
        """Return the silent past, (B, D, left)."""
        return self.conv.init_state(batch)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output (B, D, T) and the new past."""
        y, past = self.conv(x, past)
        return x + self.dropout(F.elu(self.norm(y))), past
