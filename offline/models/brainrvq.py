"""BrainRVQ's backbone (arXiv:2602.16951) in a form that streams, and in the form that was published.

::

    x (B, C, T) µV ─ scale ─ patches (B, F, C, hop) ─ patch embedding ─┐
                             electrode coordinates ─ embedding ────────+─ [merge] ─ blocks ─ norm ─ latent

``form: causal``
    Blocks alternate: over time (each electrode its own past, cached keys and values), then over electrodes
    within the frame.  A step costs what one frame costs.
``form: window``
    Every block sees all patches of all electrodes of the last ``context`` frames, in both directions, as
    published.  The state is the window itself; each step computes it again and gives its newest frame.

What differs from the release, and why: norms stay inside a token (its GroupNorm let masked and future
patches move visible ones), time is rotary and relative (its table ends after 30 patches), electrodes are
coordinates (its table of names overflows), and there is no class token.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

from offline.blocks.attention import Axis
from offline.blocks.electrodes import ElectrodeEmbedding, Merge
from offline.blocks.patches import PatchConfig, PatchEmbedding, Scale
from offline.blocks.tower import Backbone, PatchNet, Tower

BCI_IV_2A = (
    *("Fz", "FC3", "FC1", "FCz", "FC2", "FC4", "C5", "C3", "C1", "Cz", "C2"),
    *("C4", "C6", "CP3", "CP1", "CPz", "CP2", "CP4", "P1", "Pz", "P2", "POz"),
)


class Config(PatchConfig):
    """Settings beside those of `PatchConfig`; the published sizes are the defaults.

    Attributes
    ----------
    latents : int, optional
        Merge the electrodes of a frame into so many tokens first.
    patch_channels, patch_kernel, patch_stride : int
        Of the convolutions inside a patch.
    """

    kind: Literal["brainrvq"] = "brainrvq"
    ch_names: Annotated[tuple[str, ...], Field(min_length=1)] = BCI_IV_2A
    hop: PositiveInt = 20
    context: PositiveInt = 40
    dim: PositiveInt = 200
    layers: PositiveInt = 12
    heads: PositiveInt = 10
    latents: PositiveInt | None = None
    patch_channels: PositiveInt = 8
    patch_kernel: PositiveInt = 15
    patch_stride: PositiveInt = 4

    def build(self) -> Backbone:
        """Return the step for ``ch_names``, freshly initialised from torch's global generator."""
        return Backbone(self, Net(self))


SMALL = Config(hop=8, context=4, dim=16, layers=4, heads=2, patch_channels=2, patch_kernel=3, patch_stride=2)


class Net(PatchNet):
    """The backbone for any montage: places come with each call."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.hop, self.context, self.form = c.hop, c.context, c.form
        self.scale = Scale(c.hop, c.scale, c.scale_uv, c.scale_frames)
        self.patch = PatchEmbedding(
            c.hop, c.dim, channels=c.patch_channels, kernel=c.patch_kernel, stride=c.patch_stride
        )
        self.electrodes = ElectrodeEmbedding(c.dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(c.dim))
        self.merge = None if c.latents is None else Merge(c.dim, c.heads, c.latents)
        self.tower = tower(c, c.layers)


def tower(config: Config, layers: int) -> Tower:
    """Return so many blocks of the configured form and sizes."""
    axes: tuple[Axis, ...] = ("time", "channel") if config.form == "causal" else ("joint",)
    chosen = [axes[i % len(axes)] for i in range(layers)]
    return Tower(config.dim, config.heads, chosen, config.context, config.dropout)
