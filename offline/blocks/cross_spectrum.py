"""Cross-spectra of a stream, remembered with exponential weights: connectivity and spectrum, hop by hop.

Each hop a Hann window of the newest samples is transformed: the products with sines and cosines at the
frequencies of the bands, and no others, which is two matrix products and exports as one convolution.  Per
band the cross-spectrum is the sum over its frequencies,

    S_ij = mean over hops and over f in band of Z_i(f) conj(Z_j(f)),

and connectivity is its ratio to the powers, C_ij = S_ij / sqrt(S_ii S_jj), the coherency of the band-passed
signals.  ``imaginary`` gives |Im C_ij|, which a source seen by both electrodes at once cannot cause (Nolte et
al. 2004, Clin. Neurophysiol. 115:2292), ``correlation`` gives Re C_ij, which is their correlation.  Nolte
takes the ratio at each frequency and averages afterwards; the ratio of sums costs a fifth of the memory and
of the work at five bands, and is the same where the lag is one phase throughout the band.

The mean over hops forgets with time constant ``forget_s``.  It starts from nothing and is divided by the
weight it holds, so the first hops are unbiased, only noisier: a band that spans one frequency has, after one
hop, the sine of the momentary phase difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offline.blocks.bands import Band, averages_of, basis_of, bins_of

Connectivity = Literal["imaginary", "correlation"]
MeanState = tuple[Tensor, Tensor]
State = tuple[Tensor, MeanState, MeanState]
FLOOR = 1e-4  # power, per sample, of what counts as silence in a signal of size 1


class Spectra(NamedTuple):
    """What is known at each hop; float32.

    Attributes
    ----------
    edges : Tensor, shape (B, F, E, N, N)
        Connectivity of E bands over the remembered past; symmetric, zero on the diagonal.
    power : Tensor, shape (B, F, N, K)
        log10 of the remembered power at K frequencies; white noise of size 1 has 0.
    newest : Tensor, shape (B, F, N, E)
        log10 of the band powers of the newest window alone.
    """

    edges: Tensor
    power: Tensor
    newest: Tensor


class CrossSpectrum(nn.Module):
    """x (B, N, T) -> `Spectra` at each hop; there are no weights to learn.

    Parameters
    ----------
    bands : sequence of (low, high)
        Hz, ``low <= f < high``; they may overlap.
    sfreq : float
    hop, window : int
        Samples.
    forget_s : float
        Time constant of the memory.
    connectivity : str
    """

    def __init__(
        self,
        bands: Sequence[Band],
        sfreq: float,
        hop: int,
        window: int,
        forget_s: float,
        connectivity: Connectivity,
    ) -> None:
        super().__init__()
        self.hop, self.window, self.connectivity = hop, window, connectivity
        self.mean = ExponentialMean(forget_s * sfreq / hop)
        bins = [bins_of(band, sfreq, window) for band in bands]
        self.widths = [len(each) for each in bins]
        self.frequencies = tuple(float(k) * sfreq / window for each in bins for k in each)
        self.register_buffer("basis", basis_of(np.concatenate(bins), window), persistent=False)  # (2K, 1, W)
        self.register_buffer("average", averages_of(self.widths), persistent=False)  # (K, E)

    @property
    def left(self) -> int:
        """Samples before a hop that the newest window sees; the memory reaches further."""
        return self.window - self.hop

    def init_state(self, batch: int, nodes: int) -> State:
        """Return the state before the first sample: zeros."""
        like, bands = self.get_buffer("basis"), len(self.widths)
        past = like.new_zeros(batch, nodes, self.left)
        cross = self.mean.init_state(like.new_zeros(batch, bands, nodes, nodes))
        return past, cross, self.mean.init_state(like.new_zeros(batch, nodes, len(self.frequencies)))

    def forward(self, x: Tensor, state: State) -> tuple[Spectra, State]:
        """Return the spectra at every completed hop of ``x`` (B, N, T) and the new state."""
        past, cross, power = state
        x = torch.cat([past, x], dim=-1)
        re, im = self._transform(x)
        newest = re.square() + im.square()  # (B, F, N, K)
        means, cross = self.mean(self._cross(self._split(re), self._split(im)), cross)
        powers, power = self.mean(newest, power)
        return self._spectra(means, powers, newest), (x[..., x.shape[-1] - self.left :], cross, power)

    def last(self, x: Tensor) -> Spectra:
        """Return what `forward` gives at the last hop of a stream ``x`` (B, N, T) from its start (F = 1).

        The weights of the memory are put on the windows, so that no cross-spectrum but the last is made.
        """
        re, im = self._transform(F.pad(x, (self.left, 0)))
        newest = re.square() + im.square()
        weights = self.mean.weights(re.shape[1], like=re)[:, None, None]  # (F, 1, 1)
        parts = [self._split(part * weights.sqrt()) for part in (re, im)]
        # A mean over hops and frequencies is one over all of them side by side: (B, 1, N, F bins).
        re_bands, im_bands = ([band.transpose(1, 2).flatten(2)[:, None] for band in part] for part in parts)
        means = self._cross(re_bands, im_bands)
        powers = (weights * newest).sum(dim=1, keepdim=True)
        return self._spectra(means, powers, newest[:, -1:])

    def _transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary part (B, F, N, K) of each window of ``x`` (B, N, left + F hop)."""
        basis = self.get_buffer("basis")
        z = F.conv1d(x.flatten(0, 1)[:, None], basis, stride=self.hop)  # (B N, 2K, F)
        z = z.view(x.shape[0], x.shape[1], basis.shape[0], -1).permute(0, 3, 1, 2)  # (B, F, N, 2K)
        re, im = z.chunk(2, dim=-1)
        return re, im

    def _split(self, part: Tensor) -> list[Tensor]:
        """Return the frequencies (B, F, N, bins) of each band."""
        return list(torch.split(part, self.widths, dim=-1))

    def _cross(self, re: Sequence[Tensor], im: Sequence[Tensor]) -> Tensor:
        """Return the part of the cross-spectra in use, (B, F, E, N, N), from (B, F, N, bins) per band."""
        bands = []
        for r, i, width in zip(re, im, self.widths, strict=True):
            if self.connectivity == "imaginary":
                turned = i @ r.transpose(-1, -2)
                cross = turned - turned.transpose(-1, -2)
            else:
                cross = r @ r.transpose(-1, -2) + i @ i.transpose(-1, -2)
            bands.append(cross / width)
        return torch.stack(bands, dim=-3)

    def _spectra(self, cross: Tensor, power: Tensor, newest: Tensor) -> Spectra:
        average = self.get_buffer("average")
        bands = (power @ average).transpose(-1, -2) + FLOOR  # (B, F, E, N)
        size = bands.sqrt()
        coherency = cross / (size[..., :, None] * size[..., None, :])
        edges = coherency.abs() if self.connectivity == "imaginary" else coherency
        others = 1 - torch.eye(cross.shape[-1], dtype=cross.dtype, device=cross.device)
        return Spectra(edges * others, (power + FLOOR).log10(), (newest @ average + FLOOR).log10())


def correlation(x: Tensor) -> Tensor:
    """Return Pearson's correlation of signals (B, N, T) as edges (B, 1, N, N); 0 where one is flat."""
    x = x - x.mean(dim=-1, keepdim=True)
    size = x.square().sum(dim=-1, keepdim=True).sqrt()
    unit = x / size.clamp(min=torch.finfo(x.dtype).eps)
    others = 1 - torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return (unit @ unit.transpose(1, 2) * others)[:, None]


class ExponentialMean:
    """The mean of what came so far, weighted by ``exp(-age / frames)``; an operation, without weights.

    The state is a pair: the weighted sum, and the weight (B, 1) it holds, which goes from 0 to 1.
    """

    def __init__(self, frames: float) -> None:
        self.keep = math.exp(-1 / frames)

    def init_state(self, like: Tensor) -> MeanState:
        """Return no past for values like ``like`` (B, ...)."""
        return torch.zeros_like(like), like.new_zeros(like.shape[0], 1)

    def __call__(self, values: Tensor, state: MeanState) -> tuple[Tensor, MeanState]:
        """Return the mean at each frame of ``values`` (B, F, ...) and the new state.

        A chunk is one product with the triangle of powers of ``keep``, not a loop over its frames.
        """
        total, weight = state
        frames = values.shape[1]
        age = torch.arange(frames, device=values.device, dtype=torch.float64)
        old = (self.keep ** (age + 1)).to(values.dtype)[:, None]  # (F, 1)
        triangle = (1 - self.keep) * torch.tril(self.keep ** (age[:, None] - age))
        new = triangle.to(values.dtype) @ values.flatten(2)  # (B, F, ...)
        totals = (old * total.flatten(1)[:, None] + new).view(values.shape)
        weights = old * weight[:, None] + (1 - old)  # (B, F, 1)
        means = totals / weights.view(*weights.shape[:2], *(1,) * (values.dim() - 2))
        return means, (totals[:, -1], weights[:, -1])

    def weights(self, frames: int, like: Tensor) -> Tensor:
        """Return what each of the first ``frames`` frames weighs in the mean at the last, (F,)."""
        age = torch.arange(frames, device=like.device, dtype=torch.float64).flip(0)
        kept = self.keep**age
        return (kept / kept.sum()).to(like.dtype)
