"""The half spectrum of a patch as a target: log magnitude, and phase as a point on the unit circle.

BrainRVQ as released regresses the z-scored wrapped angle by squared error, over all bins although half are
redundant: an angle of +π and one of −π are one and the same, and cost the most.  Here phase is (cos, sin),
its loss ``1 - cos`` of the difference, weighted by the magnitude of the bin: the phase of nothing is noise.

The way back (neuro2vec's Fourier inversion, arXiv:2204.12440) is the inverse transform of the half spectrum,
whose other half is its mirror image.  The bins that are their own image, DC and for even lengths Nyquist, are
real: of them the sign is the phase, ``cos`` is the sign, and ``sin`` says nothing.  (The unofficial release
puts the conjugate of DC where Nyquist belongs.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FLOOR = 1e-3  # of a signal of unit power: keeps the logarithm finite in silence
TINY = 1e-8  # under a root
CEILING = 9.0  # of a log magnitude that is inverted, 8,000 times unit power: keeps the exponential finite
DB = 20 / math.log(10)  # of a natural logarithm of magnitude


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


def spectrum(x: Tensor, *, taper: bool = True) -> Spectrum:
    """Return the spectra of patches (..., N).

    Parameters
    ----------
    taper : bool
        Multiply by a Hann window first: without it the drift across a patch leaks into every bin and buries
        the rhythms.  What is to be inverted must not be tapered.
    """
    x = x.float()
    window = torch.ones(x.shape[-1], device=x.device)
    if taper:
        window = torch.hann_window(x.shape[-1] + 2, periodic=False, device=x.device)[1:-1]
    bins = torch.fft.rfft(x * window) / window.square().sum().sqrt()
    magnitude = bins.abs() + FLOOR
    return Spectrum(magnitude.log(), bins.real / magnitude, bins.imag / magnitude)


def polar(log_magnitude: Tensor, cosine: Tensor, sine: Tensor) -> Spectrum:
    """Return what a linear head says, (..., K) each, as a spectrum: the pair (cosine, sine) of length 1."""
    cosine, sine = cosine.float(), sine.float()
    length = (cosine.square() + sine.square() + TINY).sqrt()
    return Spectrum(log_magnitude.float(), cosine / length, sine / length)


def waveform(of: Spectrum, n_samples: int) -> Tensor:
    """Return the signals (..., n_samples) float32 of half spectra that were not tapered.

    The inverse of ``spectrum(x, taper=False)``.  Of the real bins `irfft` ignores the imaginary part.
    """
    magnitude = of.log_magnitude.clamp(max=CEILING).exp()
    bins = torch.complex(magnitude * of.cosine, magnitude * of.sine)
    signals: Tensor = torch.fft.irfft(bins, n_samples, norm="ortho")
    return signals


def laid_out(bins: Tensor, n_samples: int) -> Tensor:
    """Return the half spectrum of a whole window whose tokens each give a run of neighbouring bins.

    As published, token i of F gives the i-th of F runs of frequencies: ``n_bins(n_samples)`` bins cut as
    evenly as they can be, the first runs being the longer ones.

    Parameters
    ----------
    bins : Tensor, shape (..., F, K)
        Room for the longest run: K is `n_bins` of a patch.

    Returns
    -------
    Tensor, shape (..., n_bins(n_samples))
    """
    frames, room = bins.shape[-2:]
    runs = np.array_split(np.arange(n_bins(n_samples)), frames)
    index = np.concatenate([token * room + np.arange(len(run)) for token, run in enumerate(runs)])
    return bins.flatten(-2)[..., torch.from_numpy(index).to(bins.device)]


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
    unit = polar(target.log_magnitude, cosine, sine)
    agreement = unit.cosine * target.cosine + unit.sine * target.sine
    weight = target.log_magnitude.exp()
    return ((1 - agreement) * weight).sum(dim=-1) / weight.sum(dim=-1)
