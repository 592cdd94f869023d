"""Augmented views for contrast: each domain loses what should not matter to who somebody is.

Spatial: edges and nodes are dropped.  Temporal: a crop, jitter, a gain, a stretch of silence.  Spectral: a
band is flattened, the spectrum tilted, noise added.  The rates are those of the nearest published code where
it has them (EEG_DisGCMAE: edges and nodes 0.2, noise 0.1), the rest are ours.

What is drawn for a row depends on its key alone: not on the device, the company it is in, or the process.
Numbers come from a hash of (key, stream, place), so a whole batch is drawn at once where it lies.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from streamer.components import Config as BaseConfig

_BITS = 23  # and a half more are what a float32 can tell apart: 1 itself is never drawn
_GOLDEN, _MIX_1, _MIX_2 = (
    value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
Share = Annotated[float, Field(ge=0, lt=1)]


class Config(BaseConfig):
    """Rates; 0 leaves out.

    Attributes
    ----------
    edge_drop, node_drop : float
        Share of the edges, in all bands at once, and of the nodes with all their edges, that become 0.
    crop : float
        Share of a time series that is kept, at a random place.
    jitter : float
        Noise, in SDs of the node.
    scaling : float
        SD of the logarithm of a gain per node.
    time_mask : float
        Share of the (cropped) time series that becomes 0, in one stretch, in all nodes at once.
    band_drop : float
        Share of the frequencies, in one stretch, that get the node's mean over frequencies.
    tilt : float
        SD of a straight line over the frequencies, end to end, in SDs of the node.
    noise : float
        Noise on the spectrum, in SDs of the node.
    """

    edge_drop: Share = 0.2
    node_drop: Share = 0.2
    crop: Annotated[float, Field(gt=0, le=1)] = 0.8
    jitter: NonNegativeFloat = 0.1
    scaling: NonNegativeFloat = 0.2
    time_mask: Share = 0.2
    band_drop: Share = 0.2
    tilt: NonNegativeFloat = 0.5
    noise: NonNegativeFloat = 0.1


def augmented(config: Config, domain: str, view: Tensor, keys: Tensor, stream: int, hop: int = 1) -> Tensor:
    """Return an augmented copy of a view.

    Parameters
    ----------
    domain : str
        ``spatial``, view (B, E, N, N); ``temporal``, (B, N, T); ``spectral``, (B, N, K).
    keys : Tensor, shape (B,), int64
    stream : int
        Another one gives another augmentation of the same row.
    hop : int
        A cropped time series is a multiple of it.
    """
    draw = Draw(keys.to(view.device), stream)
    if domain == "spatial":
        return _spatial(config, view, draw)
    if domain == "temporal":
        return _temporal(config, view, draw, hop)
    return _spectral(config, view, draw)


class Draw:
    """Random numbers of a batch, row by row from its keys (splitmix64, Steele et al. 2014, section 4).

    Parameters
    ----------
    keys : Tensor, shape (B,), int64
    stream : int
    """

    def __init__(self, keys: Tensor, stream: int) -> None:
        self._seeds = _mixed(_mixed(keys) + keys.new_tensor(stream) * _GOLDEN)
        self._drawn = 0

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers in (0, 1), (B, *shape) float32; another call gives others."""
        n = 1
        for size in shape:
            n *= size
        place = torch.arange(self._drawn + 1, self._drawn + n + 1, device=self._seeds.device)
        self._drawn += n
        bits = _mixed(self._seeds[:, None] + place * _GOLDEN)
        return ((_shifted(bits, 64 - _BITS) + 0.5) / (1 << _BITS)).float().reshape(-1, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Return numbers of mean 0 and SD 1, (B, *shape) float32."""
        return torch.erfinv(2 * self.uniform(*shape) - 1) * 2**0.5

    def stretch(self, share: float, n: int, *shape: int) -> Tensor:
        """Return where a stretch of ``share`` of ``n`` places lies, (B, *shape, n) bool."""
        length = round(share * n)
        start = (self.uniform(*shape, 1) * (n - length + 1)).long()
        place = torch.arange(n, device=start.device)
        return (place >= start) & (place < start + length)


def _spatial(config: Config, view: Tensor, draw: Draw) -> Tensor:
    n = view.shape[-1]
    kept = (draw.uniform(n, n) >= config.edge_drop).triu(1)  # (B, N, N)
    there = draw.uniform(n) >= config.node_drop  # (B, N)
    kept = (kept | kept.mT) & there[:, None, :] & there[:, :, None]
    return view * kept[:, None]


def _temporal(config: Config, view: Tensor, draw: Draw, hop: int) -> Tensor:
    n, total = view.shape[-2:]
    length = max(round(config.crop * total) // hop, 1) * hop
    start = (draw.uniform(1) * (total - length + 1)).long()  # (B, 1)
    place = start + torch.arange(length, device=view.device)  # (B, length)
    x = view.gather(-1, place[:, None].expand(-1, n, -1))
    x = x * (config.scaling * draw.normal(n, 1)).exp()
    if config.jitter:
        x = x + config.jitter * x.std(dim=-1, keepdim=True) * draw.normal(n, length)
    return x.masked_fill(draw.stretch(config.time_mask, length, 1), 0.0)


def _spectral(config: Config, view: Tensor, draw: Draw) -> Tensor:
    n, k = view.shape[-2:]
    mean, spread = view.mean(dim=-1, keepdim=True), view.std(dim=-1, keepdim=True, correction=0)
    line = torch.linspace(-0.5, 0.5, k, device=view.device)
    x = view + spread * (config.tilt * draw.normal(1, 1) * line + config.noise * draw.normal(n, k))
    return torch.where(draw.stretch(config.band_drop, k, 1), mean, x)


def _mixed(x: Tensor) -> Tensor:
    """Return 64 bits in which every bit of ``x`` has a part; int64 wraps around."""
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, n: int) -> Tensor:
    """Return ``x`` shifted right by ``n`` bits, zeros coming in."""
    return (x >> n) & ((1 << (64 - n)) - 1)
