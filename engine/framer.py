"""Cuts the stream into hops: the only place that buffers samples, and the only transposition."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.types import Chunk


@dataclass(frozen=True, slots=True)
class Frame:
    """One hop of samples, ready in the framer's buffer.

    Attributes
    ----------
    index : int
        Sample index of the last sample.
    time : float
        Its stamp, s on the local LSL clock.
    invalid : float
        Share of invalid samples among those that the model's output depends on; 1 when the hop holds no
        valid sample at all.
    warm : bool
        The model has seen its whole left context since the last reset.
    """

    index: int
    time: float
    invalid: float
    warm: bool


class Framer:
    """Fills a ``(B, C, hop)`` buffer from chunks of any length.

    Parameters
    ----------
    buffer : ndarray, shape (1, C, hop) or (C, 1, hop), float32, C-contiguous
        Written in place: usually the runner's own input.  The second form is that of a model which takes each
        channel as a row of its own.
    left_context : int
        Samples before the hop that an output depends on.
    """

    def __init__(self, buffer: NDArray[np.float32], left_context: int) -> None:
        self.hop = buffer.shape[2]
        self._buffer = buffer.reshape(-1, self.hop)  # a view, (B C, hop)
        self._span = 1 + math.ceil(left_context / self.hop)
        self.reset()

    def reset(self) -> None:
        """Forget the samples and the validity seen so far."""
        self._filled = 0
        self._bad = 0
        self._recent: deque[int] = deque(maxlen=self._span)

    def frames(self, chunk: Chunk) -> Iterator[Frame]:
        """Yield once per completed hop; the buffer holds that hop until the next frame is asked for."""
        row = 0
        while row < len(chunk):
            n = min(self.hop - self._filled, len(chunk) - row)
            self._buffer[:, self._filled : self._filled + n] = chunk.data[row : row + n].T  # (C, n)
            self._bad += n - int(np.count_nonzero(chunk.valid[row : row + n]))
            self._filled += n
            row += n
            if self._filled == self.hop:
                yield self._frame(chunk.index + row - 1, float(chunk.times[row - 1]))

    def _frame(self, index: int, time: float) -> Frame:
        self._recent.append(self._bad)
        invalid = 1.0 if self._bad == self.hop else sum(self._recent) / (len(self._recent) * self.hop)
        self._filled = self._bad = 0
        return Frame(index, time, invalid, len(self._recent) == self._span)
