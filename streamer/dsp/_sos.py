"""A cascade of second-order sections with its state carried: what `bandpass` and `notch` are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from streamer.types import Chunk, StreamInfo

try:
    from scipy.signal._sosfilt import _sosfilt
except ImportError:
    _sosfilt = None


Matrix = NDArray[np.float64]


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
        self.sos = np.ascontiguousarray(sos, dtype=np.float64)
        self._rest: NDArray[np.float64] = signal.sosfilt_zi(sos)  # (n_sections, 2)
        self._state: NDArray[np.float64] | None = None

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the filtered chunk, of the same length."""
        if not len(chunk):
            return chunk
        x = chunk.data.T.astype(np.float64, order="C")  # (n_chans, n_times), filtered in place
        if self._state is None:
            self._state = np.ascontiguousarray(x[:, :1, None] * self._rest)  # (n_chans, n_sections, 2)
        sosfilt(self.sos, x, self._state)
        return replace(chunk, data=x.T.astype(np.float32, order="C"))

    def reset(self) -> None:
        """Forget the state; the next sample is the first one."""
        self._state = None


def sosfilt(sos: Matrix, x: Matrix, state: Matrix) -> None:
    """Filter ``x`` (n_chans, n_times) in place and move its state (n_chans, n_sections, 2).

    The loop inside `scipy.signal.sosfilt`, which spends nine tenths of its time around it on a chunk of a few
    samples; that function itself where SciPy keeps its loop elsewhere.
    """
    if _sosfilt is not None:
        _sosfilt(sos, x, state)
        return
    y, after = signal.sosfilt(sos, x, axis=1, zi=state.transpose(1, 0, 2))
    x[:], state[:] = y, after.transpose(1, 0, 2)


def group_delay(sos: NDArray[np.float64], freq: float, sfreq: float) -> float:
    """Return the group delay of a cascade at ``freq`` Hz, in samples."""
    return float(sum(signal.group_delay((s[:3], s[3:]), [freq], fs=sfreq)[1][0] for s in sos))
