"""A cascade of second-order sections with its state carried: what `bandpass` and `notch` are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from streamer.types import Chunk, StreamInfo


class SosStep:
    """Causal IIR filter over every channel; a `Step`.

    The state starts as if the first sample had been there for ever, so a constant offset makes no
    transient and the output does not depend on how long the first chunk is.  Samples must be finite: a NaN
    stays in the state until ``reset``, which is why `quality` belongs in front.

    Parameters
    ----------
    info : StreamInfo
        The stream that enters, and leaves.
    sos : ndarray, shape (n_sections, 6), float64
        As `scipy.signal` designs them.
    delay : int
        Group delay, samples.
    """

    def __init__(self, info: StreamInfo, sos: NDArray[np.float64], delay: int) -> None:
        self.info = info
        self.delay = delay
        self.sos = sos
        self._rest: NDArray[np.float64] = signal.sosfilt_zi(sos)[:, :, None]  # (n_sections, 2, 1)
        self._state: NDArray[np.float64] | None = None

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the filtered chunk, of the same length."""
        if not len(chunk):
            return chunk
        x = chunk.data.astype(np.float64)
        if self._state is None:
            self._state = self._rest * x[0]  # (n_sections, 2, n_chans)
        y, self._state = signal.sosfilt(self.sos, x, axis=0, zi=self._state)
        return replace(chunk, data=y.astype(np.float32, order="C"))

    def reset(self) -> None:
        """Forget the state; the next sample is the first one."""
        self._state = None


def group_delay(sos: NDArray[np.float64], freq: float, sfreq: float) -> float:
    """Return the group delay of a cascade at ``freq`` Hz, in samples."""
    return float(sum(signal.group_delay((s[:3], s[3:]), [freq], fs=sfreq)[1][0] for s in sos))
