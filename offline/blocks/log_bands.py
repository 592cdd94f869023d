"""Log power in bands of short windows, as one product with cosines and sines: a spectrum that exports."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

POWER_FLOOR = 1e-3  # µV² / Hz: less than an amplifier's own noise
SIZE_FLOOR_UV = 1.0


class LogBands(nn.Module):
    """What a look of a few seconds sounds like: x (E, C, T) µV -> (E, n_features), nothing learned.

    Of each channel, in this order: log power in every band, averaged over the windows; its largest value in
    one window; its standard deviation over windows, all in natural logs of µV²/Hz; then log peak amplitude
    and log mean step.  A spindle or a K-complex lasts a second: the mean of a look hardly shows it, the
    largest window does.

    Parameters
    ----------
    n_chans : int
        C.
    sfreq : float
        Hz.
    window, step : int
        Length of a Hann window and distance between two, samples.  T is at least two windows' worth.
    edges : sequence of float
        Borders of adjacent bands, Hz.

    Attributes
    ----------
    n_features : int
        ``C * (3 * n_bands + 2)``.

    Raises
    ------
    ValueError
        A band holds no frequency of the window.
    """

    def __init__(self, n_chans: int, sfreq: float, window: int, step: int, edges: Sequence[float]) -> None:
        super().__init__()
        self.step, n_bands = step, len(edges) - 1
        self.n_features = n_chans * (3 * n_bands + 2)
        freqs = np.fft.rfftfreq(window, 1 / sfreq)
        inside = np.stack([(freqs >= low) & (freqs < high) for low, high in pairwise(edges)])
        if not inside.any(axis=1).all():
            raise ValueError(
                f"edges {tuple(edges)} make a band that holds no frequency of a window of {window} samples: "
                f"they are {freqs[1]:g} Hz apart, up to {freqs[-1]:g} Hz"
            )
        used = inside.any(axis=0)
        self.waves: Tensor
        self.bands: Tensor
        self.register_buffer("waves", _waves(freqs[used] / sfreq, window, sfreq), persistent=False)
        weights = inside[:, used] / inside.sum(axis=1, keepdims=True)
        self.register_buffer("bands", torch.from_numpy(weights).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of each look (E, n_features)."""
        n_chans = x.shape[1]
        x = (x - x.mean(dim=-1, keepdim=True)).flatten(0, 1)  # (E C, T)
        waves = F.conv1d(x[:, None], self.waves, stride=self.step)  # (E C, 2 bins, windows)
        cosine, sine = waves.chunk(2, dim=1)
        power = torch.matmul(self.bands, cosine.square() + sine.square())  # (E C, n_bands, windows)
        logs = torch.log(power + POWER_FLOOR)
        steps = (x[:, 1:] - x[:, :-1]).abs().mean(dim=1, keepdim=True)
        features = [
            torch.log(power.mean(dim=-1) + POWER_FLOOR),
            logs.amax(dim=-1),
            logs.std(dim=-1),
            torch.log(x.abs().amax(dim=1, keepdim=True) + SIZE_FLOOR_UV),
            torch.log(steps + SIZE_FLOOR_UV / 100),
        ]
        return torch.cat(features, dim=1).reshape(-1, n_chans, self.n_features // n_chans).flatten(1)


def _waves(cycles: NDArray[np.floating[Any]], window: int, sfreq: float) -> Tensor:
    """Return cosines, then sines, of so many cycles per sample under a Hann window, (2 bins, 1, window).

    Scaled so that the sum of both squares is the one-sided power density.
    """
    taper = np.hanning(window + 2)[1:-1]
    phase = 2 * np.pi * cycles[:, None] * np.arange(window)
    waves = np.concatenate([np.cos(phase), np.sin(phase)]) * taper
    waves *= np.sqrt(2 / (np.square(taper).sum() * sfreq))
    return torch.from_numpy(waves).float()[:, None]
