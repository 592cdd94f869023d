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

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from offline.blocks.attention import Axis, Block
from offline.blocks.electrodes import ElectrodeEmbedding, Merge, coordinates
from offline.blocks.patches import PatchEmbedding, Scale, patches
from streamer.components import Config as BaseConfig
from streamer.errors import ConfigError

BCI_IV_2A = (
    *("Fz", "FC3", "FC1", "FCz", "FC2", "FC4", "C5", "C3", "C1", "Cz", "C2"),
    *("C4", "C6", "CP3", "CP1", "CPz", "CP2", "CP4", "P1", "Pz", "P2", "POz"),
)
State = tuple[Any, ...]


class Config(BaseConfig):
    """Settings; the published sizes are the defaults.

    Attributes
    ----------
    ch_names : tuple of str
        Montage of the exported step; training takes any montage, from the coordinates in its batches.
    stype : str
        ``EEG`` or ``EMG``: how names become places.
    hop : int
        Samples per patch.
    form : str
        ``causal`` or ``window``, see the module.
    context : int
        Frames that a time block sees (``causal``), or that the window holds.
    dim, layers, heads : int
    latents : int, optional
        Merge the electrodes of a frame into so many tokens first.
    patch_channels, patch_kernel, patch_stride : int
        Of the convolutions inside a patch.
    dropout : float
    scale : str
        ``fixed``: the signal is divided by ``scale_uv``.  ``running``: by the root mean power of each channel
        over the last ``scale_frames`` frames, for devices of unknown gain; it carries a trace of masked
        patches into visible ones.
    scale_uv : float
    scale_frames : int
    """

    kind: Literal["brainrvq"] = "brainrvq"
    ch_names: Annotated[tuple[str, ...], Field(min_length=1)] = BCI_IV_2A
    stype: Literal["EEG", "EMG"] = "EEG"
    hop: PositiveInt = 20
    form: Literal["causal", "window"] = "causal"
    context: PositiveInt = 40
    dim: PositiveInt = 200
    layers: PositiveInt = 12
    heads: PositiveInt = 10
    latents: PositiveInt | None = None
    patch_channels: PositiveInt = 8
    patch_kernel: PositiveInt = 15
    patch_stride: PositiveInt = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    scale: Literal["fixed", "running"] = "fixed"
    scale_uv: PositiveFloat = 100.0
    scale_frames: PositiveInt = 100

    @model_validator(mode="after")
    def _even_heads(self) -> Config:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim must be a multiple of twice the heads, got {self.dim} and {self.heads}")
        return self

    @property
    def n_chans(self) -> int:
        """Channels of the exported step."""
        return len(self.ch_names)

    def build(self) -> Backbone:
        """Return the step for ``ch_names``, freshly initialised from torch's global generator."""
        return Backbone(self, Net(self))


SMALL = Config(hop=8, context=4, dim=16, layers=4, heads=2, patch_channels=2, patch_kernel=3, patch_stride=2)


class Tower(nn.Module):
    """Blocks on tokens (B, F, C, D), and a norm."""

    def __init__(self, config: Config, layers: int) -> None:
        super().__init__()
        axes: tuple[Axis, ...] = ("time", "channel") if config.form == "causal" else ("joint",)
        self.blocks = nn.ModuleList(
            [
                Block(config.dim, config.heads, axes[i % len(axes)], config.context, config.dropout)
                for i in range(layers)
            ]
        )
        self.norm = nn.LayerNorm(config.dim)

    @property
    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    @property
    def left(self) -> int:
        """Frames before the chunk that its first output depends on, by way of the caches."""
        return sum(block.left for block in self._blocks)

    def init_state(self, batch: int, groups: int) -> State:
        """Return the empty caches."""
        return tuple(block.init_state(batch, groups) for block in self._blocks)

    def forward(self, h: Tensor, state: State, keep: Tensor | None = None) -> tuple[Tensor, State]:
        """Return tokens as they came in, and the new state; ``keep`` (B, F) hides frames in a window."""
        new = []
        for block, past in zip(self._blocks, state, strict=True):
            h, past = block(h, past, keep)
            new.append(past)
        return self.norm(h), tuple(new)


class Net(nn.Module):
    """The backbone for any montage: places come with each call."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.scale = Scale(c.hop, c.scale, c.scale_uv, c.scale_frames)
        self.patch = PatchEmbedding(
            c.hop, c.dim, channels=c.patch_channels, kernel=c.patch_kernel, stride=c.patch_stride
        )
        self.electrodes = ElectrodeEmbedding(c.dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(c.dim))
        self.merge = None if c.latents is None else Merge(c.dim, c.heads, c.latents)
        self.tower = Tower(c, c.layers)

    @property
    def left_context(self) -> int:
        """Samples before a hop that its output depends on."""
        window = self.config.context - 1 if self.config.form == "window" else self.tower.left
        return (window + self.scale.left) * self.config.hop

    def embed(self, x: Tensor, places: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what the blocks see.

        Parameters
        ----------
        x : Tensor, shape (B, F, C, hop)
            Scaled patches.
        places : Tensor, shape (B or 1, C, D)
        mask : Tensor, shape (B, C, F), bool, optional
            Patches to hide.  The mask token takes the place of the patch, not of its electrode: a hidden
            token that does not know where it is cannot be told apart from another.
        """
        tokens: Tensor = self.patch(x)
        if mask is not None:
            hidden = mask.transpose(1, 2).unsqueeze(-1)  # (B, F, C, 1)
            tokens = torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)
        tokens = tokens + places[:, None]
        if self.merge is not None:
            tokens = self.merge(tokens)
        return tokens

    def scaled(self, x: Tensor) -> Tensor:
        """Return the scaled patches of whole segments: (B, C, T) µV -> (B, F, C, hop)."""
        scaled, _ = self.scale(x, self.scale.init_state(len(x), x.shape[1]))
        return patches(scaled, self.config.hop)

    def sequence(self, x: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the latents of whole segments, as training needs them: (B, F, C or M, D).

        ``causal`` gives what the step would; ``window`` takes the segment for one window, in which every
        frame sees every other.

        Parameters
        ----------
        x : Tensor, shape (B, C, T), µV
        positions : Tensor, shape (B, C, 3)
        mask : Tensor, shape (B, C, F), bool, optional
        """
        frames = x.shape[-1] // self.config.hop
        if self.config.form == "window" and frames > self.config.context:
            raise ConfigError(
                f"Segments of {frames} frames do not fit a window of {self.config.context}: make "
                "`context` longer or `crop_s` shorter."
            )
        h = self.embed(self.scaled(x), self.electrodes(positions), mask)
        latent: Tensor
        latent, _ = self.tower(h, self.tower.init_state(len(x), h.shape[2]))
        return latent

    def init_state(self, batch: int, n_chans: int) -> State:
        """Return the state before the first sample: zeros."""
        scale = self.scale.init_state(batch, n_chans)
        if self.config.form == "causal":
            return scale, self.tower.init_state(batch, self.config.latents or n_chans)
        like = self.mask_token
        past = like.new_zeros(batch, n_chans, (self.config.context - 1) * self.config.hop)
        return scale, (past, torch.zeros(batch, dtype=torch.int64, device=like.device))

    def forward(self, x: Tensor, places: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the latents (B, F, C or M, D) of every hop of ``x`` (B, C, T), and the new state."""
        scaled, scale = self.scale(x, state[0])
        if self.config.form == "window":
            latent, new = self._windows(scaled, places, state[1])
        else:
            latent, new = self.tower(self.embed(patches(scaled, self.config.hop), places), state[1])
        return latent, (scale, new)

    def _windows(self, x: Tensor, places: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute the window that ends at each frame, and keep its newest frame."""
        hop, context = self.config.hop, self.config.context
        past, filled = state
        x = torch.cat([past, x], dim=-1)  # (B, C, (context - 1 + F) hop)
        caches = self.tower.init_state(len(x), 0)  # joint blocks keep nothing
        slots = torch.arange(context, device=x.device)
        newest = []
        for start in range(0, x.shape[-1] - (context - 1) * hop, hop):
            filled = (filled + 1).clamp(max=context)
            keep = slots >= context - filled[:, None]  # (B, context)
            h = self.embed(patches(x[..., start : start + context * hop], hop), places)
            newest.append(self.tower(h, caches, keep)[0][:, -1])
        kept = x[..., x.shape[-1] - (context - 1) * hop :]
        return torch.stack(newest, dim=1), (kept, filled.clamp(max=context - 1))


class Placed(nn.Module):
    """A part with fixed channels; where they are is not a weight, so the same weights serve any montage."""

    delay, bounded, per_channel = 0, True, False

    def __init__(self, ch_names: tuple[str, ...], stype: str) -> None:
        super().__init__()
        self.ch_names, self.n_chans = ch_names, len(ch_names)
        self.register_buffer("positions", torch.zeros(self.n_chans, 3), persistent=False)
        self.set_positions(coordinates(ch_names, stype))

    def set_positions(self, positions: NDArray[np.float32]) -> None:
        """Put the channels elsewhere: (C, 3), NaN where unknown."""
        like: Tensor = self.get_buffer("positions")
        if positions.shape != like.shape:
            raise ValueError(f"coordinates of shape {tuple(like.shape)} expected, got {positions.shape}")
        self.positions = torch.as_tensor(positions, dtype=like.dtype, device=like.device)


class Backbone(Placed):
    """The net at one montage, on the state contract: (B, C, T) µV -> latent (B, T / hop, C or M, D).

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.
    n_chans, n_latent : int
        C, and D.
    bounded, per_channel : bool
        It forgets what lies before ``left_context``; its rows are montages, not single channels.
    """

    def __init__(self, config: Config, net: Net) -> None:
        super().__init__(config.ch_names, config.stype)
        self.config, self.net = config, net
        self.hop, self.n_latent = config.hop, config.dim

    @property
    def left_context(self) -> int:
        """Samples before a hop that its output depends on."""
        return self.net.left_context

    def with_channels(self, ch_names: tuple[str, ...], stype: str) -> Backbone:
        """Return this net for another montage; the weights are shared."""
        return Backbone(relocated(self.config, ch_names, stype), self.net).train(self.training)

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: zeros."""
        return self.net.init_state(batch, self.n_chans)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the latents of every completed hop of ``x`` and the new state."""
        places = self.net.electrodes(self.get_buffer("positions"))[None]  # (1, C, D)
        latent, state = self.net(x, places, state)
        return {"latent": latent}, state


def relocated(config: Config, ch_names: tuple[str, ...], stype: str) -> Config:
    """Return the settings with another montage, checked."""
    return Config.model_validate(config.model_dump() | {"ch_names": ch_names, "stype": stype})
