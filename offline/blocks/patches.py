"""One token per electrode and patch, from what lies inside the patch and from nothing else.

BrainRVQ as released normalises its patches with GroupNorm over all electrodes and patches of the sample:
editing one patch moves the embedding of all others, masked and future ones included.  Here the norms stay
inside the patch.  They take the patch's power and mean away, and power is what imagery and gestures are read
from, so both are put beside the normalised shape, on compressed scales.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from offline.blocks.scale import RunningScale
from streamer.components import Config

State = tuple[Tensor, ...]
FLOOR = 1e-3  # of the scaled signal: the loudness of silence


class PatchConfig(Config):
    """What the nets of this kind share of their settings; sizes are theirs.

    Attributes
    ----------
    ch_names : tuple of str
        Montage of the exported step; training takes any montage, from the coordinates in its batches.
    stype : str
        ``EEG`` or ``EMG``: how names become places.
    hop : int
        Samples per patch.
    form : str
        ``causal`` or ``window``, see `offline.blocks.tower`.
    context : int
        Frames that a time block sees (``causal``), or that the window holds.
    dim, layers, heads : int
        Width, blocks, attention heads of each.
    dropout : float
    scale : str
        ``fixed``: the signal is divided by ``scale_uv``.  ``running``: by the root mean power of each channel
        over the last ``scale_frames`` frames, for devices of unknown gain; it carries a trace of masked
        patches into visible ones.
    scale_uv : float
    scale_frames : int
    """

    ch_names: Annotated[tuple[str, ...], Field(min_length=1)]
    stype: Literal["EEG", "EMG"] = "EEG"
    hop: PositiveInt
    form: Literal["causal", "window"] = "causal"
    context: PositiveInt
    dim: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    scale: Literal["fixed", "running"] = "fixed"
    scale_uv: PositiveFloat = 100.0
    scale_frames: PositiveInt = 100

    @model_validator(mode="after")
    def _even_heads(self) -> Self:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim must be a multiple of twice the heads, got {self.dim} and {self.heads}")
        return self

    @property
    def n_chans(self) -> int:
        """Channels of the exported step."""
        return len(self.ch_names)


def patches(x: Tensor, hop: int) -> Tensor:
    """Return the samples of each patch: (B, C, T) -> (B, T / hop, C, hop), a view."""
    return x.reshape(*x.shape[:2], -1, hop).transpose(1, 2)


class PatchEmbedding(nn.Module):
    """Patches (B, F, C, hop) -> tokens (B, F, C, dim).

    Parameters
    ----------
    hop : int
        Samples per patch.
    channels, kernel, stride : int
        Of the first convolution; two more of kernel 3 follow, zeros at both ends of the *patch*.
    """

    def __init__(self, hop: int, dim: int, *, channels: int = 8, kernel: int = 15, stride: int = 8) -> None:
        super().__init__()
        first = nn.Conv1d(1, channels, kernel, stride=stride, padding=kernel // 2)
        more = [nn.Conv1d(channels, channels, 3, padding=1) for _ in range(2)]
        self.convs = nn.ModuleList([first, *more])
        width = channels * ((hop + 2 * (kernel // 2) - kernel) // stride + 1)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in self.convs])
        self.out = nn.Linear(width + 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return one token per patch."""
        y = x.flatten(0, 2).unsqueeze(1).float()  # (B F C, 1, hop)
        mean = y.mean(dim=-1, keepdim=True)
        power = (y - mean).square().mean(dim=-1, keepdim=True) + FLOOR**2
        beside = torch.cat([torch.log10(power), torch.asinh(10 * mean)], dim=-1).squeeze(1)  # (B F C, 2)
        y = (y - mean) / power.sqrt()
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = conv(y)
            y = F.gelu(norm(y.flatten(1))).view(y.shape)  # norm over the patch's own width
        tokens: Tensor = self.out(torch.cat([y.flatten(1), beside], dim=-1))
        return tokens.view(*x.shape[:3], -1)


class Scale(nn.Module):
    """µV to the order of 1: divided by a constant, or by each channel's running level; (B, C, T) -> the same.

    Parameters
    ----------
    frames : int
        Frames of ``hop`` samples in the running level.
    """

    def __init__(self, hop: int, mode: Literal["fixed", "running"], scale_uv: float, frames: int) -> None:
        super().__init__()
        self.scale_uv = scale_uv
        self.running = RunningScale(1, hop, frames) if mode == "running" else None

    @property
    def left(self) -> int:
        """Frames before a frame that its scale depends on."""
        return 0 if self.running is None else self.running.frames - 1

    def init_state(self, batch: int, n_chans: int) -> State:
        """Return zeros; nothing for a constant."""
        if self.running is None:
            return ()
        energy, seen = self.running.init_state(batch)
        return energy.repeat(1, n_chans, 1), seen

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the scaled signal and the new state."""
        if self.running is None:
            return x / self.scale_uv, state
        energy, seen = state
        n_chans = x.shape[1]
        # One channel per row, for any number of channels.
        rows = (energy.flatten(0, 1).unsqueeze(1), seen.repeat_interleave(n_chans))
        (scaled, _), (energy, seen) = self.running(x.flatten(0, 1).unsqueeze(1), rows)
        return scaled.view(x.shape), (energy.view(*x.shape[:2], -1), seen[::n_chans])
