"""Mental workload from band powers: what a spectrum says of the last seconds, read by one linear layer.

::

    x (B, C, T) µV ─ Hann segments of 1 s, one per hop ─ power in each band ─ mean over the last 5 s ─ log
                                                             = latent (B, F, C E) ─ linear ─ logits

There is nothing to learn but the layer, and that is fitted in one convex step (`offline.blocks.convex`).

There are two such layers.  ``head`` is for somebody of whom nothing is known.  ``centred`` is for latents
minus their mean over some rest of the person's own, which takes away what differs from head to head and from
cap to cap; logarithms make that the same as dividing by the person's powers at rest.  A calibration by rest
puts it in the place of the other.

Only powers are used, electrode by electrode, and no covariance.  Recordings are often cleaned file by file,
by taking independent components away, which leaves directions almost without power that are others in each
file: whatever sees them tells files apart, not mental states.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from offline.blocks.bands import Band, averages_of, basis_of, bins_of
from offline.blocks.convex import logistic
from streamer.components import Config as BaseConfig

State = tuple[Tensor, Tensor, Tensor]
POWER_FLOOR = 1e-3  # µV²: keeps the logarithm finite where an electrode is silent
BANDS: tuple[Band, ...] = ((2, 4), (4, 6), (6, 8), (8, 10), (10, 13), (13, 20), (20, 30), (30, 40))


class Config(BaseConfig):
    """Settings; lengths in samples at the model's rate.

    Attributes
    ----------
    n_chans, n_classes : int
    sfreq : float
        Hz.
    hop : int
        Samples per decision, and from one segment to the next.
    segment : int
        Length of what is transformed.
    look : int
        What a decision is made from; a segment and a whole number of hops.
    bands : tuple of (low, high)
        Hz, ``low <= f < high``.
    closed_form : bool
        Its layers are fitted in one step, see `offline.train.fitted`.
    penalty : float
        Of the squared weights, on latents of unit variance, against the mean cross-entropy.
    """

    closed_form: ClassVar[bool] = True

    kind: Literal["workload"] = "workload"
    n_chans: PositiveInt = 19
    n_classes: Annotated[int, Field(ge=2)] = 2
    sfreq: PositiveFloat = 128.0
    hop: PositiveInt = 64
    segment: PositiveInt = 128
    look: PositiveInt = 640
    bands: Annotated[tuple[Band, ...], Field(min_length=1)] = BANDS
    penalty: PositiveFloat = 0.4

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if self.segment < self.hop:
            raise ValueError(
                f"segment ({self.segment}) must be at least the hop ({self.hop}): none is skipped"
            )
        if self.look < self.segment or (self.look - self.segment) % self.hop:
            raise ValueError(
                f"look ({self.look}) must be the segment ({self.segment}) and a whole number of hops "
                f"({self.hop})"
            )
        return self

    @property
    def n_segments(self) -> int:
        """Segments that a decision is made from."""
        return (self.look - self.segment) // self.hop + 1

    def build(self) -> Workload:
        """Return the model, its two layers drawn from torch's global generator: they are to be fitted."""
        return Workload(self)


class Workload(nn.Module):
    """x (B, C, T) µV -> ``latent`` (B, T / hop, C E), natural logs of µV², and ``logits`` (B, T / hop, K).

    The latent goes band by band, and within a band electrode by electrode.  Before the first sample lies
    silence; while fewer segments have been seen than a decision is made from, those seen count.

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.
    n_latent : int
        C E.
    head, centred : nn.Linear
        For latents as they are, and minus the person's own mean at rest.
    """

    delay = 0
    per_channel = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        bins = [bins_of(band, c.sfreq, c.segment) for band in c.bands]
        self.hop, self.left_context = c.hop, c.look - c.hop
        self.n_latent = c.n_chans * len(c.bands)
        self.register_buffer("basis", basis_of(np.concatenate(bins), c.segment), persistent=False)
        self.register_buffer("average", averages_of([len(each) for each in bins]), persistent=False)  # (K, E)
        self.head, self.centred = (nn.Linear(self.n_latent, c.n_classes) for _ in range(2))

    def init_state(self, batch: int) -> State:
        """Return zeros: the samples of a segment before its hop, powers of past segments, segments seen."""
        like, c = self.get_buffer("basis"), self.config
        past = like.new_zeros(batch, c.n_chans, c.segment - c.hop)
        powers = like.new_zeros(batch, self.n_latent, c.n_segments - 1)
        return past, powers, torch.zeros(batch, dtype=torch.int64, device=like.device)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the outputs at every completed hop of ``x`` (B, C, T) and the new state."""
        past, powers, seen = state
        x = torch.cat([past, x], dim=-1)
        powers = torch.cat([powers, self._powers(x)], dim=-1)  # (B, C E, n - 1 + F)
        n = self.config.n_segments
        n_new = powers.shape[-1] - (n - 1)
        filled = (seen[:, None] + torch.arange(1, n_new + 1, device=x.device)).clamp(max=n)  # (B, F)
        totals = powers.unfold(-1, n, 1).sum(dim=-1)  # (B, C E, F)
        latent = (totals / filled[:, None] + POWER_FLOOR).log().transpose(1, 2)  # (B, F, C E)
        kept = x[..., x.shape[-1] - past.shape[-1] :], powers[..., n_new:], filled[:, -1]
        return {"logits": self.head(latent), "latent": latent}, kept

    def fit(self, latents: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Fit the layer for somebody unknown; see `fit_centred` for the arguments."""
        _set(self.head, logistic(latents, labels, self.config.penalty, self.config.n_classes))

    def fit_centred(self, latents: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Fit the layer for somebody of whom some rest is known.

        Parameters
        ----------
        latents : ndarray, shape (n, C E), float32
            Each minus the mean at rest of the person it is of.
        labels : ndarray, shape (n,), int
            Every class occurs; they weigh alike.
        """
        _set(self.centred, logistic(latents, labels, self.config.penalty, self.config.n_classes))

    def _powers(self, x: Tensor) -> Tensor:
        """Return the powers (B, E C, F), µV², of each segment of ``x`` (B, C, segment - hop + F hop)."""
        basis = self.get_buffer("basis")
        z = F.conv1d(x.flatten(0, 1)[:, None], basis, stride=self.hop)  # (B C, 2K, F)
        z = z.view(-1, x.shape[1], *z.shape[1:]).square()  # (B, C, 2K, F)
        re, im = z.chunk(2, dim=2)
        bands = torch.einsum("bckf,ke->becf", re + im, self.get_buffer("average"))
        return bands.flatten(1, 2)


def _set(layer: nn.Linear, found: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(found[0]))
        layer.bias.copy_(torch.from_numpy(found[1]))


SMALL = Config(n_chans=3, n_classes=3, hop=16, segment=32, look=96, sfreq=64.0, bands=((2, 8), (8, 20)))
