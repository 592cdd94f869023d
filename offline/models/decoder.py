"""A pretrained net that decides: its latents pooled over the recent past, and a linear head.

::

    x (B, C, T) µV ─ part ─ frames (B, F, p) ─ mean and log SD over the last frames ─ standardise ─ head

A fine-tuned model is of this kind.  The pooling is that of the frozen probe (`offline.probe.features`), only
that it moves along: frame f is decided on from the ``pool_frames`` frames up to f.  While fewer have been
seen, the mean is of those, and each that is missing counts as one of the spread that is usual in training:
two frames that happen to be alike are no sign of a signal that stands still.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from offline.models import biocodec
from offline.pretrain.recipe import AnySystem
from streamer.components import Config as BaseConfig
from streamer.errors import ConfigError

FLOOR = 1e-3  # of a spread: latents of size 1 are rounded to 1e-7, which must not decide about a logarithm
State = tuple[Any, ...]


class Config(BaseConfig):
    """What the model is made of; its weights are kept apart.

    Attributes
    ----------
    system : block
        Settings of the pretrained system, as in its recipe.
    part : str
        Which of its parts gives the latents.
    sfreq : float
        Hz, of the system.
    ch_names : tuple of str
    stype : str
        ``EEG`` or ``EMG``.
    pool_frames : int
        Frames that a decision is made from.
    n_classes : int
    """

    kind: Literal["decoder"] = "decoder"
    system: AnySystem
    part: str = "backbone"
    sfreq: PositiveFloat
    ch_names: Annotated[tuple[str, ...], Field(min_length=1)]
    stype: Literal["EEG", "EMG"] = "EEG"
    pool_frames: PositiveInt
    n_classes: Annotated[int, Field(ge=2)]

    @property
    def n_chans(self) -> int:
        """Channels of the exported step."""
        return len(self.ch_names)

    def build(self) -> Decoder:
        """Return the model, freshly initialised from torch's global generator."""
        parts = self.system.build(self.sfreq).parts()
        return Decoder(self, placed(parts, self.part, self.ch_names, self.stype))


class Decoder(nn.Module):
    """The model: x (B, C, T) µV -> ``logits`` (B, F, n_classes) and ``latent`` (B, F, 2 p), what is read.

    Parameters
    ----------
    part : nn.Module
        On the state contract, at the channels of ``config``; with an output ``latent`` (B, F, [C,] D), and
        ``gain`` where it is a codec.  One that takes each channel as a row has those rows here.

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.
    bounded : bool
        As the part's.
    n_features : int
        2 p.
    """

    per_channel = False

    def __init__(self, config: Config, part: Any) -> None:
        super().__init__()
        self.config, self.part = config, part
        self.hop, self.delay, self.n_chans = int(part.hop), int(part.delay), config.n_chans
        self.left_context = int(part.left_context) + (config.pool_frames - 1) * self.hop
        self.bounded = bool(getattr(part, "bounded", True))
        self.n_frame = self._width()
        self.n_features = 2 * self.n_frame
        self.register_buffer("mean", torch.zeros(self.n_features))
        self.register_buffer("gain", torch.full((self.n_features,), self.n_features**-0.5))
        self.head = nn.Linear(self.n_features, config.n_classes)

    def set_head(self, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Take the standardisation (2 p,) of features, and the layer (n_classes, 2 p), (n_classes,)."""
        with torch.no_grad():
            self.get_buffer("mean").copy_(mean)
            self.get_buffer("gain").copy_(1 / scale)
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: zeros."""
        rows = batch * self.n_chans if self.part.per_channel else batch
        past = self.get_buffer("mean").new_zeros(batch, self.config.pool_frames - 1, self.n_frame)
        seen = torch.zeros(batch, dtype=torch.int64, device=past.device)
        return self._by_stream(self.part.init_state(rows), batch), past, seen

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the outputs for every completed hop of ``x`` (B, C, T) and the new state."""
        features, state = self.features(x, state)
        latent = self.standardised(features)
        return {"logits": self.head(latent), "latent": latent}, state

    def decide(self, features: Tensor) -> Tensor:
        """Return the logits (..., n_classes) of features (..., 2 p)."""
        logits: Tensor = self.head(self.standardised(features))
        return logits

    def features(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return what is pooled at every completed hop, (B, F, 2 p), not standardised, and the new state."""
        inner, past, seen = state
        frames, inner = self._frames(x, inner)
        joined = torch.cat([past, frames], dim=1)  # (B, n - 1 + F, p)
        n, n_new = self.config.pool_frames, frames.shape[1]
        slots = torch.arange(n, device=x.device)
        filled = (seen[:, None] + torch.arange(1, n_new + 1, device=x.device)).clamp(max=n)  # (B, F)
        windows = joined[:, torch.arange(n_new, device=x.device)[:, None] + slots]  # (B, F, n, p)
        features = pool(windows, slots >= n - filled[..., None], self._usual())
        return features, (inner, joined[:, n_new:], filled[:, -1])

    def standardised(self, features: Tensor) -> Tensor:
        """Return features (..., 2 p) as the head takes them."""
        return (features - self.get_buffer("mean")) * self.get_buffer("gain")

    def final(self, x: Tensor) -> Tensor:
        """Return the logits (B, n_classes) at the end of crops (B, C, T) that nothing came before.

        As `forward` would from an empty past, but only the last frames are pooled.
        """
        frames, _ = self._frames(x, self.init_state(len(x))[0])
        window = frames[:, None, -self.config.pool_frames :]  # (B, 1, n, p)
        keep = torch.ones(window.shape[:3], dtype=torch.bool, device=x.device)
        return self.decide(pool(window, keep, self._usual())[:, 0])

    def _frames(self, x: Tensor, inner: State) -> tuple[Tensor, State]:
        """Return what the part says of each hop, side by side: channel by channel, then dimension."""
        batch = x.shape[0]
        if not self.part.per_channel:
            outputs, inner = self.part(x, inner)
            return torch.cat([each.float().flatten(2) for each in _kept(outputs)], dim=2), inner
        outputs, new = self.part(x.reshape(-1, 1, x.shape[-1]), self._by_row(inner))
        streams = [self._by_stream(each.float(), batch) for each in _kept(outputs)]  # (B, C, F, [D])
        kept = [each.movedim(1, 2).flatten(2) for each in streams]
        return torch.cat(kept, dim=2), self._by_stream(new, batch)

    def _usual(self) -> Tensor:
        """Return the variance over frames that is usual in training, (p,)."""
        return (2 * self.get_buffer("mean")[self.n_frame :]).exp()

    def _by_stream(self, rows: Any, batch: int) -> Any:
        """Return tensors of a part, nested, with one row per stream where the part has one per channel."""
        if not self.part.per_channel:
            return rows
        shape = (batch, self.n_chans)
        return pytree.tree_map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), rows)

    def _by_row(self, inner: State) -> State:
        rows: State = pytree.tree_map(lambda leaf: leaf.flatten(0, 1), inner)
        return rows

    def _width(self) -> int:
        """Return p, from a hop of silence."""
        silence = torch.zeros(1, self.n_chans, self.hop)
        rows = self.n_chans if self.part.per_channel else 1
        with torch.no_grad():
            return self._frames(silence, self._by_stream(self.part.init_state(rows), 1))[0].shape[2]


def pool(frames: Tensor, keep: Tensor, usual: Tensor) -> Tensor:
    """Return mean and log standard deviation over frames, side by side, (B, F, 2 p).

    Sums over whole numbers are exact, so a gain code that stands still has a spread of nothing.

    Parameters
    ----------
    frames : Tensor, shape (B, F, n, p)
    keep : Tensor, shape (B, F, n), bool
        False for frames before the first: one of them at least is True.
    usual : Tensor, shape (p,)
        Variance that a frame stands for which is not there.
    """
    weight = keep[..., None].to(frames.dtype)  # (B, F, n, 1)
    count, n = weight.sum(dim=2), frames.shape[2]
    mean = (frames * weight).sum(dim=2) / count
    squares = ((frames - mean[:, :, None]).square() * weight).sum(dim=2)
    variance = (squares + (n - count) * usual) / n
    # Not `variance + FLOOR**2`: the exporter may take so small a number for zero and leave it out.
    return torch.cat([mean, 0.5 * variance.clamp(min=FLOOR**2).log()], dim=2)


def placed(parts: Mapping[str, Any], name: str, ch_names: tuple[str, ...], stype: str) -> Any:
    """Return a part, at these channels where it takes several at once, in eval mode.

    Raises
    ------
    ConfigError
        No such part, one that gives no latents, or one that is made for other channels.
    """
    if name not in parts:
        raise ConfigError(f"The run has no part {name!r}; it has {', '.join(parts)}.")
    part = parts[name].eval()
    if part.per_channel and part.n_chans != 1:
        raise ConfigError(f"The run's {name} takes codes, not signal: name another of {', '.join(parts)}.")
    if not part.per_channel and hasattr(part, "with_channels"):
        part = part.with_channels(ch_names, stype).eval()
    if not part.per_channel and part.n_chans != len(ch_names):
        raise ConfigError(
            f"The run's {name} takes {part.n_chans} channels, the task has {len(ch_names)}: "
            "give the task the channels of the run."
        )
    return part


def _kept(outputs: dict[str, Tensor]) -> list[Tensor]:
    """Return the outputs that are read: the latent, and the gain that a codec took out of it."""
    if "latent" not in outputs:
        raise ConfigError(
            f"This part gives {', '.join(outputs)} and no latent: name one that does, such as backbone."
        )
    return [outputs[name] for name in ("latent", "gain") if name in outputs]


def _small() -> Config:
    from offline.systems import biocodec as system

    codec = biocodec.SMALL.model_copy(update={"memory": "none"})
    return Config(
        system=system.Config(model=codec),
        part="tokenizer",
        sfreq=200.0,
        ch_names=("C3", "C4"),
        pool_frames=8,
        n_classes=3,
    )


SMALL = _small()
