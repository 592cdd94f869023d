"""neuro2vec's encoder (Wu et al., arXiv:2204.12440) for any montage, in a form that streams and as published.

One linear map per patch, positions, pre-norm transformer blocks over time, a norm.  Every electrode is a row
of tokens through the same weights; see `offline.blocks.tower` for the two forms.

What differs from what is known of the original, and why: time is rotary and relative (a table of positions
ends); an electrode is told apart by its coordinates (it had one channel, or as many as its patch map has
inputs); the linear map sees the shape of the patch and beside it the logarithm of its power.  A linear map
alone keeps the amplitude, but the norms of the blocks do not: behind them a patch at ten and one at a hundred
times the size of the electrode's embedding are the same, and power is what gestures are read from.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from offline.blocks.attention import Axis
from offline.blocks.electrodes import ElectrodeEmbedding
from offline.blocks.patches import FLOOR, PatchConfig, Scale
from offline.blocks.tower import Backbone, PatchNet, Tower

MIDLINE = ("Fz", "FCz", "Cz", "CPz", "Pz", "Oz", "C3", "C4")


class Config(PatchConfig):
    """Settings beside those of `PatchConfig`; the published sizes are the defaults.

    Attributes
    ----------
    layers : int
        Blocks over time.
    mix : str
        ``none``: electrodes do not see each other (as published, one channel).  ``alternate``: after each
        block over time there is one over the electrodes of the frame.
    """

    kind: Literal["neuro2vec"] = "neuro2vec"
    ch_names: Annotated[tuple[str, ...], Field(min_length=1)] = MIDLINE
    hop: PositiveInt = 30
    context: PositiveInt = 100
    dim: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    mix: Literal["none", "alternate"] = "none"

    def build(self) -> Backbone:
        """Return the step for ``ch_names``, freshly initialised from torch's global generator."""
        return Backbone(self, Net(self))


SMALL = Config(ch_names=("C3", "Cz", "C4"), hop=8, context=4, dim=16, layers=2, heads=2, mix="alternate")
SMALL_WINDOW = SMALL.model_copy(update={"form": "window"})


class LinearPatches(nn.Module):
    """Patches (B, F, C, hop) -> tokens (B, F, C, dim): a linear map of the shape, and of the log power.

    Nothing is lost: shape and power together are the patch.
    """

    def __init__(self, hop: int, dim: int) -> None:
        super().__init__()
        self.shape = nn.Linear(hop, dim, bias=False)
        self.loudness = nn.Linear(1, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return one token per patch, from what lies inside it."""
        x = x.float()
        power = x.square().mean(dim=-1, keepdim=True) + FLOOR**2
        tokens: Tensor = self.shape(x / power.sqrt()) + self.loudness(power.log10())
        return tokens


class Net(PatchNet):
    """The encoder for any montage: places come with each call."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.hop, self.context, self.form = c.hop, c.context, c.form
        self.scale = Scale(c.hop, c.scale, c.scale_uv, c.scale_frames)
        self.patch = LinearPatches(c.hop, c.dim)
        self.electrodes = ElectrodeEmbedding(c.dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(c.dim))
        self.merge = None
        over_time: Axis = "time" if c.form == "causal" else "window"
        axes: tuple[Axis, ...] = (over_time,) if c.mix == "none" else (over_time, "channel")
        self.tower = Tower(c.dim, c.heads, axes * c.layers, c.context, c.dropout)
