"""Filters that take the Fourier coefficients of a band from a window: cosines and sines under a Hann window.

A window is transformed at the frequencies of the bands and at no others, by one product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from streamer.errors import ConfigError

Band = tuple[float, float]


def bins_of(band: Band, sfreq: float, window: int) -> NDArray[np.int64]:
    """Return the frequencies of a transform over the window that lie in a band, as indices.

    Parameters
    ----------
    band : (low, high)
        Hz, ``low <= f < high``.
    window : int
        Samples.

    Raises
    ------
    ConfigError
        There is none.
    """
    k = np.arange(1, (window + 1) // 2)
    inside = k[(k * sfreq / window >= band[0]) & (k * sfreq / window < band[1])]
    if not len(inside):
        raise ConfigError(
            f"No frequency of a window of {window} samples at {sfreq:g} Hz lies in the band {band[0]:g}-"
            f"{band[1]:g} Hz: they are {sfreq / window:g} Hz apart and below {sfreq / 2:g} Hz. Make `window` "
            "longer or the band wider."
        )
    return inside


def basis_of(bins: NDArray[np.int64], window: int) -> Tensor:
    """Return cosines, then sines, as filters (2K, 1, window) float32; white noise of size 1 has power 1.

    Each is orthogonal to a constant, as if the window's mean had been taken away first; the lowest frequency
    alone has a mean under the window to lose, a sixth of its power.
    """
    times = np.arange(window)
    hann = np.sin(np.pi * (times + 0.5) / window) ** 2
    phase = 2 * np.pi * bins[:, None] * times / window
    filters = np.concatenate([np.cos(phase), -np.sin(phase)]) * hann / np.sqrt(np.square(hann).sum())
    filters -= filters.mean(axis=1, keepdims=True)
    return torch.from_numpy(filters[:, None].astype(np.float32))


def averages_of(widths: Sequence[int]) -> Tensor:
    """Return the matrix (K, E) that takes the mean over each band's frequencies, of which it has so many."""
    band = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))  # (K,)
    return F.one_hot(band).float() / torch.tensor(widths)
