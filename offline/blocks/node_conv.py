"""One causal convolutional net for the signal of every node, whichever it is.

Norms inside a token take its size away, and power is what most is read from, so the log power of the first
filters over the hop stands beside it: the larger part of what tells people apart.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from offline.blocks.conv import CausalConv1d

State = tuple[Any, ...]
FLOOR = 1e-4  # power of what counts as silence in a signal of size 1


class NodeConv(nn.Module):
    """x (B, N, T) -> tokens (B, F, N, size), the nodes each by itself with shared weights.

    Two strided convolutions bring the signal down to frames, dilated residual ones look back over them.

    Parameters
    ----------
    filters, width : int
        Channels behind the first convolution, and from the second on.
    kernel : int
        Of the first convolution, samples; the second has twice its stride, those over frames 3.
    strides : tuple of int
        Of the two; their product is the hop.
    dilations : tuple of int
        One residual convolution each, frames.

    Attributes
    ----------
    size : int
        Of a token: ``width + filters``.
    """

    def __init__(
        self, filters: int, width: int, kernel: int, strides: tuple[int, int], dilations: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.size, self.stride = width + filters, strides[1]
        self.first = CausalConv1d(1, filters, kernel, stride=strides[0])
        self.second = CausalConv1d(filters, width, 2 * strides[1], stride=strides[1])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(len(dilations) + 1)])
        self.over_frames = nn.ModuleList([CausalConv1d(width, width, 3, dilation=d) for d in dilations])

    @property
    def _convs(self) -> list[CausalConv1d]:
        layers = [self.first, self.second, *self.over_frames]
        return [layer for layer in layers if isinstance(layer, CausalConv1d)]

    @property
    def left(self) -> int:
        """Samples before a hop that its tokens depend on."""
        n = 0
        for conv in reversed(self._convs):
            n = conv.first_input(n)
        return -n

    def init_state(self, batch: int, nodes: int) -> State:
        """Return the silent past of each convolution, (B, N, channels, left)."""
        return tuple(_unfolded(conv.init_state(batch * nodes), nodes) for conv in self._convs)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the tokens of every completed hop and the new state."""
        nodes, new = x.shape[1], []
        past = [leaf.flatten(0, 1) for leaf in state]  # (B N, channels, left)
        filtered, kept = self.first(x.flatten(0, 1)[:, None], past[0])
        new.append(kept)
        h, kept = self.second(F.gelu(filtered), past[1])  # (B N, width, F)
        new.append(kept)
        for conv, norm, before in zip(self.over_frames, self.norms, past[2:], strict=False):
            y, kept = conv(_per_token(norm, h), before)
            h = h + F.gelu(y)
            new.append(kept)
        power = F.avg_pool1d(filtered.square(), self.stride)  # (B N, filters, F)
        tokens = torch.cat([_per_token(self.norms[-1], h), (power + FLOOR).log10()], dim=1)
        tokens = tokens.view(x.shape[0], nodes, self.size, -1).permute(0, 3, 1, 2)
        return tokens, tuple(_unfolded(leaf, nodes) for leaf in new)


def _per_token(norm: nn.Module, h: Tensor) -> Tensor:
    """Normalise (B, D, F) over D."""
    y: Tensor = norm(h.transpose(1, 2)).transpose(1, 2)
    return y


def _unfolded(leaf: Any, nodes: int) -> Any:
    """Return (B N, ...) as (B, N, ...)."""
    return pytree.tree_map(lambda part: part.view(-1, nodes, *part.shape[1:]), leaf)
