"""Nets over patches of any montage: tokens per electrode, a tower of transformer blocks, the state contract.

::

    x (B, C, T) µV ─ scale ─ patches (B, F, C, hop) ─ patch map ───────┐
                             electrode coordinates ─ embedding ────────+─ [merge] ─ blocks ─ norm ─ latent

`PatchNet` is any such net, `Backbone` puts it at one montage.  A net is of one of two forms.

``causal``
    Blocks over time see the past of their electrode by way of cached keys and values.  A step costs what one
    frame costs.
``window``
    Blocks see the last ``context`` frames in both directions.  The state is the window itself; each step
    computes it again and gives its newest frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline.blocks.attention import Axis, Block
from offline.blocks.electrodes import ElectrodeEmbedding, Merge, coordinates
from offline.blocks.patches import Scale, patches
from streamer.components import Config
from streamer.errors import ConfigError

WINDOWS = 16  # computed at once; one of 64 channels, 40 frames and width 200 takes 2 MB per block

Form = Literal["causal", "window"]
State = tuple[Any, ...]
C = TypeVar("C", bound=Config)


class Tower(nn.Module):
    """Blocks on tokens (B, F, C, D), one per axis, and a norm."""

    def __init__(
        self, dim: int, heads: int, axes: Sequence[Axis], context: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(dim, heads, axis, context, dropout) for axis in axes])
        self.norm = nn.LayerNorm(dim)

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


class PatchNet(nn.Module):
    """A net over patches, for any montage: places come with each call.

    A kind of net derives from it and sets what is listed here.

    Attributes
    ----------
    hop, context : int
        Samples per patch; frames that a time block sees, or that the window holds.
    form : str
        ``causal`` or ``window``.
    scale : Scale
    patch : nn.Module
        Scaled patches (B, F, C, hop) -> (B, F, C, D).
    electrodes : ElectrodeEmbedding
    mask_token : Parameter, shape (D,)
    merge : Merge or None
    tower : Tower
    """

    hop: int
    context: int
    form: Form
    scale: Scale
    patch: nn.Module
    electrodes: ElectrodeEmbedding
    mask_token: nn.Parameter
    merge: Merge | None
    tower: Tower

    @property
    def left_context(self) -> int:
        """Samples before a hop that its output depends on."""
        window = self.context - 1 if self.form == "window" else self.tower.left
        return (window + self.scale.left) * self.hop

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
        scaled, _ = self.scale(x, self.scale.init_state(x.shape[0], x.shape[1]))
        return patches(scaled, self.hop)

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
        frames = x.shape[-1] // self.hop
        if self.form == "window" and frames > self.context:
            raise ConfigError(
                f"Segments of {frames} frames do not fit a window of {self.context}: make "
                "`context` longer or `crop_s` shorter."
            )
        h = self.embed(self.scaled(x), self.electrodes(positions), mask)
        latent: Tensor
        latent, _ = self.tower(h, self.tower.init_state(x.shape[0], h.shape[2]))
        return latent

    def init_state(self, batch: int, n_chans: int) -> State:
        """Return the state before the first sample: zeros."""
        scale = self.scale.init_state(batch, n_chans)
        if self.form == "causal":
            groups = n_chans if self.merge is None else len(self.merge.queries)
            return scale, self.tower.init_state(batch, groups)
        like = self.mask_token
        past = like.new_zeros(batch, n_chans, (self.context - 1) * self.hop)
        return scale, (past, torch.zeros(batch, dtype=torch.int64, device=like.device))

    def forward(self, x: Tensor, places: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the latents (B, F, C or M, D) of every hop of ``x`` (B, C, T), and the new state."""
        scaled, scale = self.scale(x, state[0])
        if self.form == "window":
            latent, new = self._windows(scaled, places, state[1])
        else:
            latent, new = self.tower(self.embed(patches(scaled, self.hop), places), state[1])
        return latent, (scale, new)

    def _windows(self, x: Tensor, places: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute the window that ends at each frame, and keep its newest frame."""
        hop, context = self.hop, self.context
        past, filled = state
        frames = x.shape[-1] // hop
        x = torch.cat([past, x], dim=-1)  # (B, C, (context - 1 + F) hop)
        h = self.embed(patches(x, hop), places)  # (B, context - 1 + F, C or M, D)
        slots = torch.arange(context, device=x.device)
        newest = []
        for start in range(0, frames, WINDOWS):
            ends = torch.arange(start, min(start + WINDOWS, frames), device=x.device)  # (W,)
            there = (filled[:, None] + ends + 1).clamp(max=context)  # (B, W)
            keep = slots >= context - there[..., None]  # (B, W, context)
            windows = h[:, ends[:, None] + slots].flatten(0, 1)  # (B W, context, C or M, D)
            caches = self.tower.init_state(windows.shape[0], 0)  # blocks that see the window keep nothing
            y = self.tower(windows, caches, keep.flatten(0, 1))[0][:, -1]
            newest.append(y.view(x.shape[0], len(ends), *y.shape[1:]))
        kept = x[..., x.shape[-1] - (context - 1) * hop :]
        return torch.cat(newest, dim=1), (kept, (filled + frames).clamp(max=context - 1))


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
    """A net at one montage, on the state contract: (B, C, T) µV -> latent (B, T / hop, C or M, D).

    Attributes
    ----------
    config : Config
        Of the net's kind; has ``ch_names``, ``stype``, ``hop`` and ``dim``.
    hop, left_context, delay : int
        Samples.
    n_chans, n_latent : int
        C, and D.
    bounded, per_channel : bool
        It forgets what lies before ``left_context``; its rows are montages, not single channels.
    """

    def __init__(self, config: Any, net: PatchNet) -> None:
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


def relocated(config: C, ch_names: tuple[str, ...], stype: str) -> C:
    """Return the settings with another montage, checked."""
    return type(config).model_validate(config.model_dump() | {"ch_names": ch_names, "stype": stype})
