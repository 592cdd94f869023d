"""Memory over frames with carried state: what a stream has seen so far, however long ago.

Both layers add what they remember to their input and map (B, D, T) to (B, D, T).  They are not ``bounded``:
no number of frames before a chunk is enough to reproduce their output exactly, only the state is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Lstm(nn.Module):
    """``x + lstm(x)``, with the hidden and cell state carried from chunk to chunk.

    The state is a pair (hidden, cell), each (B, layers, D): batch first, unlike torch's own.
    """

    bounded = False

    def __init__(self, dim: int, layers: int = 2) -> None:
        super().__init__()
        self.dim, self.layers = dim, layers
        self.lstm = nn.LSTM(dim, dim, layers, batch_first=True)

    def first_input(self, n: int) -> int:
        """Return n: what is remembered from before is in the state, not counted as context."""
        return n

    def init_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return an empty memory."""
        weight: Tensor = self.lstm.get_parameter("weight_hh_l0")
        zeros = weight.new_zeros(batch, self.layers, self.dim)
        return zeros, zeros.clone()

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the output (B, D, T) and the new memory."""
        hidden, cell = (part.transpose(0, 1).contiguous() for part in state)  # (layers, B, D)
        y, (hidden, cell) = self.lstm(x.transpose(1, 2), (hidden, cell))  # (B, T, D)
        return x + y.transpose(1, 2), (hidden.transpose(0, 1), cell.transpose(0, 1))


class Gated(nn.Module):
    """``x + out(h)``, h a memory whose gates look at the present frame alone; the state is h (B, D).

    ``h[t] = (1 - u[t]) * h[t-1] + u[t] * v[t]`` with ``u = sigmoid(W x)`` and ``v = V x``: the minimal GRU of
    Feng et al. 2024 (arXiv:2410.01201).  All products are taken over the whole chunk at once, so only a
    weighted sum runs from frame to frame, where an LSTM multiplies by a matrix each time.
    """

    bounded = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.gate, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def first_input(self, n: int) -> int:
        """Return n: what is remembered from before is in the state, not counted as context."""
        return n

    def init_state(self, batch: int) -> Tensor:
        """Return an empty memory, (B, D)."""
        return self.out.weight.new_zeros(batch, self.dim)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output (B, D, T) and the new memory."""
        frames = x.transpose(1, 2)  # (B, T, D)
        update = torch.sigmoid(self.gate(frames))
        keep, new = (1 - update).unbind(1), (update * self.value(frames)).unbind(1)
        seen = []
        for kept, added in zip(keep, new, strict=True):
            memory = kept * memory + added
            seen.append(memory)
        return x + self.out(torch.stack(seen, dim=1)).transpose(1, 2), memory
