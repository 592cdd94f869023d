"""In which order segments are drawn: pure functions of seed and position, nothing remembered that matters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ROWS = 1 << 44  # rows of a training: at 1,024 rows and 10 steps a second, fifty years
_SEEDS = 1 << 19

Index = NDArray[np.int64]


class Order:
    """The endless sequence of a group's segments: pass after pass, each one a permutation.

    In a pass the shards are permuted, cut into windows of ``open_shards``, and the segments of a window
    shuffled together.

    Parameters
    ----------
    sizes : sequence of int
        Segments of each shard.
    seed : tuple of int
    open_shards : int
        Shards of a window.
    """

    def __init__(self, sizes: Sequence[int], seed: tuple[int, ...], open_shards: int) -> None:
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._seed, self._open = seed, open_shards
        self.n = int(self._sizes.sum())

    def __call__(self, position: int) -> tuple[int, int]:
        """Return shard and segment at a position of the sequence."""
        number, at = divmod(position, self.n)
        shards, starts = _shards(self, number)
        window = int(np.searchsorted(starts, at, side="right")) - 1
        drawn = _window(self, number, window)[at - starts[window]]
        return int(shards[window * self._open + drawn[0]]), int(drawn[1])

    def permuted(self, number: int) -> tuple[Index, Index]:
        """Return a pass's order of shards, and where in the pass its windows start."""
        shards = np.random.default_rng((*self._seed, number)).permutation(len(self._sizes))
        sizes = np.add.reduceat(self._sizes[shards], np.arange(0, len(shards), self._open))
        return shards, np.r_[0, np.cumsum(sizes)[:-1]]

    def shuffled(self, number: int, window: int) -> Index:
        """Return a window's segments in order, shape (n, 2): number of the shard in the window, segment."""
        shards = _shards(self, number)[0][window * self._open :][: self._open]
        pairs = [np.stack([np.full(n, i), np.arange(n)], 1) for i, n in enumerate(self._sizes[shards])]
        return np.random.default_rng((*self._seed, number, window)).permutation(np.concatenate(pairs))


@lru_cache(maxsize=16)
def _shards(order: Order, number: int) -> tuple[Index, Index]:
    return order.permuted(number)


@lru_cache(maxsize=16)
def _window(order: Order, number: int, window: int) -> Index:
    return order.shuffled(number, window)


class Schedule:
    """Which group a batch is of, where groups do not mix: each in proportion to its size, in random order.

    Parameters
    ----------
    sizes : sequence of int
        Segments of each group.
    batch_size, seed : int
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int) -> None:
        self._counts = np.array([max(1, round(n / batch_size)) for n in sizes], dtype=np.int64)
        self._batch_size, self._seed = batch_size, seed

    def __call__(self, step: int) -> tuple[int, int]:
        """Return the group of a step's batch, and the position of its first row in the group's order."""
        if len(self._counts) == 1:
            return 0, step * self._batch_size
        number, at = divmod(step, int(self._counts.sum()))
        groups = np.repeat(np.arange(len(self._counts)), self._counts)
        drawn = np.random.default_rng((self._seed, number)).permutation(groups)
        group = int(drawn[at])
        earlier = number * int(self._counts[group]) + int((drawn[:at] == group).sum())
        return group, earlier * self._batch_size


def row_key(seed: int, row: int) -> int:
    """Return the key of the row-th row of a training: no two rows, of whatever seed, have the same."""
    return (seed % _SEEDS) * _ROWS + row
