"""What a codec's training minimises, and what it is judged by: one figure per row.

Signals are (B, T); losses and metrics are (B,), so that a mean over rows does not depend on how the rows are
spread over processes.  Everything is computed in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamer.errors import ConfigError

PHASE_WEIGHT = 0.2
PHASE_FLOOR = 1e-2  # energy of a bin, below which it has no phase worth learning; the signal's power is 1
LEVEL_FLOOR = 1e-4  # -40 dB of the target's mean: what lies below is the filters' stop band
TINY = 1e-8


def smooth_l1(output: Tensor, target: Tensor, beta: float) -> Tensor:
    """Return the mean over time of the Huber-like loss, quadratic below ``beta``."""
    loss = F.smooth_l1_loss(output.float(), target.float(), beta=beta, reduction="none")
    mean: Tensor = loss.mean(dim=-1)
    return mean


class SpectralLoss(nn.Module):
    """L1 + L2 on log magnitude and phase at several resolutions (Avramidis et al. 2025).

    Each bin is {log(1 + |S|), 0.2 cos phi, 0.2 sin phi}: phase on the circle, so there is no jump at pi.
    Windows are Hann, hops an eighth of them, and only whole windows count: nothing is padded.

    Parameters
    ----------
    n_ffts : tuple of int
        Window lengths in samples, none longer than the signal.
    """

    def __init__(self, n_ffts: tuple[int, ...]) -> None:
        super().__init__()
        self.n_ffts = n_ffts
        for n_fft in n_ffts:
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the sum over resolutions, (B,); `ConfigError` where a window is longer than the signal."""
        if target.shape[-1] < max(self.n_ffts):
            raise ConfigError(
                f"A segment has {target.shape[-1]} samples, the longest window of n_ffts {max(self.n_ffts)}: "
                "make crop_s longer, or leave that window out."
            )
        terms: list[Tensor] = []
        for n_fft in self.n_ffts:
            window = self.get_buffer(f"window_{n_fft}")
            difference = _bins(output.float(), window) - _bins(target.float(), window)  # (B, 3, bins, frames)
            terms.append((difference.abs() + difference.square()).mean(dim=(1, 2, 3)))
        return torch.stack(terms).sum(dim=0)


def pearson_r(output: Tensor, target: Tensor) -> Tensor:
    """Return the correlation over time."""
    a, b = _centred(output), _centred(target)
    norms = torch.sqrt(a.square().sum(dim=-1) * b.square().sum(dim=-1))
    return (a * b).sum(dim=-1) / norms.clamp(min=TINY)


def si_sdr(output: Tensor, target: Tensor) -> Tensor:
    """Return the scale-invariant signal-to-distortion ratio, dB (Le Roux et al. 2019), of centred signals."""
    a, b = _centred(output), _centred(target)
    scale = (a * b).sum(dim=-1, keepdim=True) / b.square().sum(dim=-1, keepdim=True).clamp(min=TINY)
    wanted = (scale * b).square().sum(dim=-1)
    error = (a - scale * b).square().sum(dim=-1)
    return 10 * torch.log10((wanted + TINY) / (error + TINY))


def log_spectral_distance(output: Tensor, target: Tensor, n_fft: int) -> Tensor:
    """Return the root mean square difference of the spectra in dB per window, averaged over windows.

    Bins are floored at -40 dB of the target's mean power: the empty part of a band-limited spectrum would
    else decide.
    """
    window = torch.hann_window(n_fft, device=target.device)
    powers = [_stft(x.float(), window).abs().square() for x in (output, target)]
    floor = (powers[1].mean(dim=(1, 2), keepdim=True) * LEVEL_FLOOR).clamp(min=TINY)
    levels = [10 * torch.log10(power.clamp(min=floor)) for power in powers]
    distance: Tensor = (levels[0] - levels[1]).square().mean(dim=1).sqrt().mean(dim=-1)
    return distance


def _centred(x: Tensor) -> Tensor:
    return x.float() - x.float().mean(dim=-1, keepdim=True)


def _bins(x: Tensor, window: Tensor) -> Tensor:
    """Return log magnitude and weighted phase, (B, 3, bins, frames)."""
    spectrum = _stft(x, window)
    energy = spectrum.real.square() + spectrum.imag.square()
    magnitude = torch.sqrt(energy + TINY)
    # The floor keeps the gradient of the phase finite where there is nothing to have a phase.
    unit = PHASE_WEIGHT / torch.sqrt(energy + PHASE_FLOOR)
    return torch.stack([torch.log1p(magnitude), spectrum.real * unit, spectrum.imag * unit], dim=1)


def _stft(x: Tensor, window: Tensor) -> Tensor:
    """Return the spectrum (B, bins, frames) of whole windows of a signal (B, T)."""
    n_fft = len(window)
    spectrum: Tensor = torch.stft(x, n_fft, n_fft // 8, window=window, center=False, return_complex=True)
    return spectrum
