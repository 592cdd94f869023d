"""Sums over the processes of a training; in a single process each is the identity.

Process r holds the r-th contiguous slice of the global batch, of the same shape in every process, so what
is computed from sums and gathered rows is what one process computes on the whole batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def place() -> tuple[int, int]:
    """Return this process' rank and the number of processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def summed(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over processes, a new tensor of its shape."""
    total = x.clone()
    if place()[1] > 1:
        dist.all_reduce(total)
    return total


def gathered(x: Tensor) -> Tensor:
    """Return the global batch (world * N, ...) of slices (N, ...), in the order of ranks."""
    world = place()[1]
    if world == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world)]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """Return rows ``index`` (M,) of the global batch whose slice is ``x`` (N, D): (M, D)."""
    local = index - place()[0] * len(x)
    mine = (local >= 0) & (local < len(x))
    found = x[local.clamp(0, len(x) - 1)] * mine[:, None].to(x.dtype)
    return summed(found)  # each row is in one process only, so the sum is exact


def gathered_uneven(x: Tensor) -> Tensor:
    """Return slices (N, ...) of any N per process as one, in the order of ranks; without gradient."""
    world = place()[1]
    if world == 1:
        return x.detach()
    mine = torch.zeros(world, dtype=torch.int64, device=x.device)
    mine[place()[0]] = len(x)
    sizes = summed(mine).tolist()
    padded = x.new_zeros(max(*sizes, 1), *x.shape[1:])
    padded[: len(x)] = x.detach()
    parts = gathered(padded[None])  # (world, max N, ...)
    return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])
