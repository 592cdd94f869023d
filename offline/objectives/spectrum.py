"""The half spectrum of a patch as a target: log magnitude, and phase as a point on the unit circle.

BrainRVQ as released regresses the z-scored wrapped angle by squared error, over all bins although half are
redundant: an angle of +π and one of −π are one and the same, and cost the most.  Here phase is (cos, sin),
its loss ``1 - cos`` of the difference, weighted by the magnitude of the bin: the phase of nothing is noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-3  # of a signal of unit power: keeps the logarithm finite in silence


class Spectrum(NamedTuple):
    """Half spectra of patches of N samples, K = N // 2 + 1 bins; every field is (..., K) float32.

    Attributes
    ----------
    log_magnitude : Tensor
        Natural logarithm; 0 for white noise of unit power.
    cosine, sine : Tensor
        Of the phase.
    """

    log_magnitude: Tensor
    cosine: Tensor
    sine: Tensor


def n_bins(n_samples: int) -> int:
    """Return the bins of the half spectrum of a patch of that length."""
    return n_samples // 2 + 1


def spectrum(x: Tensor) -> Spectrum:
    """Return the spectra of patches (..., N), tapered by a Hann window.

    Without the taper the drift across a patch leaks into every bin and buries the rhythms.
    """
    x = x.float()
    taper = torch.hann_window(x.shape[-1] + 2, periodic=False, device=x.device)[1:-1]
    bins = torch.fft.rfft(x * taper) / taper.square().sum().sqrt()
    magnitude = bins.abs() + FLOOR
    return Spectrum(magnitude.log(), bins.real / magnitude, bins.imag / magnitude)


def magnitude_loss(predicted: Tensor, target: Spectrum) -> Tensor:
    """Return the mean absolute error of the log magnitude, one per patch: (..., K) -> (...)."""
    return (predicted.float() - target.log_magnitude).abs().mean(dim=-1)


def phase_loss(cosine: Tensor, sine: Tensor, target: Spectrum) -> Tensor:
    """Return ``1 - cos`` of the phase error, weighted by magnitude, one per patch, 0 to 2.

    Parameters
    ----------
    cosine, sine : Tensor, shape (..., K)
        As predicted, of any length: only their direction counts.
    """
    cosine, sine = cosine.float(), sine.float()
    length = (cosine.square() + sine.square() + 1e-8).sqrt()
    agreement = (cosine * target.cosine + sine * target.sine) / length
    weight = target.log_magnitude.exp()
    return ((1 - agreement) * weight).sum(dim=-1) / weight.sum(dim=-1)
