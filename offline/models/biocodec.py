"""BioCodec: a causal codec for one channel of EEG or EMG (Avramidis et al. 2025, arXiv:2510.09095).

::

    x (B, 1, T) µV ─ running gain ─ encoder ─ memory ─ latent (B, F, 128) ─ to 16-d ─ RVQ ─ codes (B, F, 6)
                          │                                                                    │
    signal (B, F, hop) µV ┴──────── decoder ─ memory ──────── from 16-d ───────────────────────┘

Encoder and decoder are convolutions in the style of SEANet, halving and doubling the width at each stride;
frame f of the latent sees nothing after its own last sample, and the decoder gives that frame's samples
back without waiting for the next one.  Each channel is a row of its own, so any montage can be coded.

Where this differs from the authors' release, and why:

- Zeros (or the first sample) lie before the stream, not its reflection, which is its future.
- The gain runs with the signal and travels with the codes; a median over the recording does not stream.
- One projection to 16 dimensions before the first level and one after the last.  With a projection per
  level the residual is taken in 128 dimensions, most of which no code can reach, and unit vectors leave a
  residual that need not shrink; here every level codes what the levels before left over.
- All memory is carried from call to call; the released segment mode starts each segment with none.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from offline.blocks import quantize, seanet
from offline.blocks.conv import Pad, Stack
from offline.blocks.quantize import ResidualVQ
from offline.blocks.recurrent import Gated, Lstm
from offline.blocks.scale import RunningScale
from streamer.components import Config as BaseConfig

Count = Annotated[int, Field(ge=1)]
State = tuple[Any, ...]


class Config(BaseConfig):
    """Settings of the codec; the defaults are the published EEG net.

    Attributes
    ----------
    dim : int
        Width before the first stride; doubled at each.
    strides : tuple of int
        Their product is the hop: (2, 2, 3) for EEG at 250 Hz, (2, 3, 3) for EMG at 1 kHz.
    dilations : tuple of int
        One residual block each, at every width.
    latent, code_dim : int
        Dimensions of the latent and of what is quantised.
    memory : str
        ``lstm`` as published, ``gated`` for a lighter one, ``none`` for a bounded past.
    memory_layers : int
        Of the LSTM.
    pad : str
        What lies before the stream: ``zero``, or its ``first`` sample.
    scale_frames : int
        Frames over which the gain runs.
    quantiser : block
        See `offline.blocks.quantize`.
    """

    kind: Literal["biocodec"] = "biocodec"
    dim: Count = 32
    strides: Annotated[tuple[Count, ...], Field(min_length=1)] = (2, 2, 3)
    dilations: tuple[Count, ...] = (1, 2)
    latent: Count = 128
    code_dim: Count = 16
    memory: Literal["lstm", "gated", "none"] = "lstm"
    memory_layers: Count = 2
    pad: Pad = "zero"
    scale_frames: Count = 104
    quantiser: quantize.Config = quantize.Config()

    @property
    def n_chans(self) -> int:
        """Channels of a row: one."""
        return 1

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.strides)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.code_dim > self.latent:
            raise ValueError(f"code_dim must be at most latent, got {self.code_dim} and {self.latent}")
        return self

    def build(self) -> BioCodec:
        """Return the codec, freshly initialised from torch's global generator."""
        return BioCodec(self)


SMALL = Config(dim=4, latent=16, code_dim=8, scale_frames=8, quantiser=quantize.Config(codebooks=3, size=32))


class Reconstruction(NamedTuple):
    """What training looks at.

    Attributes
    ----------
    target, output : Tensor, shape (B, 1, T), float32
        The signal divided by its running gain, and the decoder's answer.
    codes : Tensor, shape (B, F, K), int64
    gain : Tensor, shape (B, F), int64
        Codes of the gain, see `RunningScale.gain_of`.
    commitment : Tensor, shape (B,), float32
        Weighted, of each row.
    """

    target: Tensor
    output: Tensor
    codes: Tensor
    gain: Tensor
    commitment: Tensor


class Analysis(NamedTuple):
    """Signal without its gain (B, 1, T), codes of the gain (B, F) int64, latent (B, F, D)."""

    scaled: Tensor
    gain: Tensor
    latent: Tensor


class BioCodec(nn.Module):
    """The whole codec; on the state contract it is its own tokenizer, with its attributes.

    ``parts()`` are its step functions for the two ends; ``reconstruct`` is what training looks at.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config)
        self.from_code = nn.Linear(config.code_dim, config.latent)
        self.decoder = _stack(seanet.decoder, config)
        self.hop, self.left_context, self.delay = config.hop, self.tokenizer.left_context, 0
        self.n_chans, self.per_channel, self.bounded = 1, True, self.tokenizer.bounded
        self.n_latent = config.latent

    def init_state(self, batch: int) -> State:
        """Return the state of the tokenizer before the first sample: zeros."""
        return self.tokenizer.init_state(batch)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the tokenizer's outputs for ``x`` (B, 1, T) µV and the new state."""
        outputs: tuple[dict[str, Tensor], State] = self.tokenizer(x, state)
        return outputs

    def decode(self, codes: Tensor, gain: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the signal (B, F, hop) µV of codes (B, F, k <= K) and gains (B, F), and the new state."""
        state = self.decoder.init_state(len(codes)) if state is None else state
        scaled, state = self._synthesise(self.tokenizer.rvq.decode(codes), state)
        framed = scaled.reshape(*gain.shape, self.hop)  # (B, F, hop)
        return framed * self.tokenizer.backbone.scale.gain_of(gain)[..., None], state

    def reconstruct(self, x: Tensor, rng: np.random.Generator | None = None) -> Reconstruction:
        """Code and decode rows ``x`` (B, 1, T) µV from an empty past; ``rng`` as for `ResidualVQ`."""
        analysis, _ = self.tokenizer.backbone.analyse(x, self.init_state(len(x)))
        quantized = self.tokenizer.rvq(self.tokenizer.to_code(analysis.latent), rng=rng)
        output, _ = self._synthesise(quantized.z, self.decoder.init_state(len(x)))
        return Reconstruction(analysis.scaled, output, quantized.codes, analysis.gain, quantized.commitment)

    def parts(self) -> dict[str, nn.Module]:
        """Return ``tokenizer``, ``decoder`` and ``backbone``: copies in eval mode, weight norm folded in."""
        codec = copy.deepcopy(self).eval()
        seanet.fold(codec)
        return {
            "tokenizer": codec.tokenizer,
            "decoder": Decoder(codec),
            "backbone": codec.tokenizer.backbone,
        }

    def _synthesise(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the scaled signal (B, 1, T) of quantised vectors (B, F, code_dim), and the new state."""
        result: tuple[Tensor, State] = self.decoder(self.from_code(z).transpose(1, 2), state)
        return result


class Backbone(nn.Module):
    """Running gain and encoder: x (B, 1, T) µV -> latent (B, F, D) float32.

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.  A frame is decoded to the hop it came from: no delay beside the hop itself.
    n_chans : int
        1: channels are rows of the batch, so the part runs ``per_channel``.
    n_latent : int
        D.
    bounded : bool
        Whether ``left_context`` samples are all that matters.  A memory has no such number; then
        ``left_context`` is that of everything else.
    """

    per_channel, n_chans, delay = True, 1, 0

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.hop, self.n_latent, self.bounded = config.hop, config.latent, config.memory == "none"
        self.scale = RunningScale(1, config.hop, config.scale_frames)
        self.encoder = _stack(seanet.encoder, config)

    @property
    def left_context(self) -> int:
        """Samples before a hop that its outputs depend on, memory aside."""
        hops = -(self.encoder.first_input(0) // self.hop)  # whole ones: all samples of a hop have one gain
        return hops * self.hop + self.scale.left_context

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: zeros."""
        return self.scale.init_state(batch), self.encoder.init_state(batch)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the latent for every completed hop of ``x`` (B, 1, T) and the new state."""
        analysis, state = self.analyse(x, state)
        return {"latent": analysis.latent}, state

    def analyse(self, x: Tensor, state: State) -> tuple[Analysis, State]:
        """Return the latent with the scaled signal and the gains it stands on, and the new state."""
        (scaled, gain), scale = self.scale(x, state[0])
        latent, encoder = self.encoder(scaled, state[1])  # (B, D, F)
        return Analysis(scaled, gain.squeeze(-1), latent.transpose(1, 2)), (scale, encoder)


class Tokenizer(nn.Module):
    """x (B, 1, T) µV -> codes (B, F, K) int64, gain (B, F) int64, latent (B, F, D) float32.

    The latent is taken before it is quantised: it is what classifiers should look at.  Attributes as those
    of `Backbone`, and ``n_codebooks`` (K), ``codebook_size``.
    """

    per_channel, n_chans, delay = True, 1, 0

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.to_code = nn.Linear(config.latent, config.code_dim)
        self.rvq = ResidualVQ(config.quantiser, config.code_dim)
        self.hop, self.left_context = config.hop, self.backbone.left_context
        self.n_latent, self.bounded = config.latent, self.backbone.bounded
        self.n_codebooks, self.codebook_size = self.rvq.n_codebooks, self.rvq.codebook_size
        self.n_gains = self.backbone.scale.n_gains

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: zeros."""
        return self.backbone.init_state(batch)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the outputs for every completed hop of ``x`` (B, 1, T) and the new state."""
        analysis, state = self.backbone.analyse(x, state)
        codes = self.rvq.encode(self.to_code(analysis.latent))
        return {"codes": codes, "gain": analysis.gain, "latent": analysis.latent}, state


class Decoder(nn.Module):
    """The far end: x (B, K + 1, F) float32, codes and then the gain's code -> signal (B, F, samples) µV.

    Attributes
    ----------
    hop, left_context, delay : int
        Frames: its time axis counts those, so ``hop`` is 1.
    samples : int
        Of the signal, per frame.
    n_chans : int
        K + 1.
    """

    per_channel, hop, delay = True, 1, 0

    def __init__(self, codec: BioCodec) -> None:
        super().__init__()
        self.codec = codec
        self.samples, self.bounded = codec.hop, codec.bounded
        self.n_codebooks, self.codebook_size = codec.tokenizer.n_codebooks, codec.tokenizer.codebook_size
        self.n_gains = codec.tokenizer.n_gains
        self.n_chans = self.n_codebooks + 1
        self.left_context = -codec.decoder.first_input(0)

    def init_state(self, batch: int) -> State:
        """Return the state before the first frame: zeros."""
        return self.codec.decoder.init_state(batch)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the signal of every frame and the new state."""
        whole = x.transpose(1, 2).to(torch.int64)  # (B, F, K + 1)
        signal, state = self.codec.decode(whole[..., :-1], whole[..., -1], state)
        return {"signal": signal}, state


def _stack(make: Callable[..., Stack], config: Config) -> Stack:
    """Return encoder or decoder of these settings."""
    c = config
    return make(c.dim, c.strides, c.dilations, c.latent, c.pad, _memory(c))


def _memory(config: Config) -> list[nn.Module]:
    """Return the layers over frames."""
    width = config.dim * 2 ** len(config.strides)
    if config.memory == "none":
        return []
    return [Lstm(width, config.memory_layers) if config.memory == "lstm" else Gated(width)]
