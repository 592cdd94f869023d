"""BrainRVQ's dual-domain tokenizer (arXiv:2602.16951): codes for the waveform and codes for the spectrum.

::

                                   ┌ project ─ RVQ, 3 levels ─ decoder ─ waveform of the patch
    x (B, C, T) ─ encoder ─ latent ┤
                                   └ project ─ RVQ, 3 levels ─ decoder ─ log magnitude, phase (cos, sin)

The encoder is the backbone, smaller if so configured.  Each domain has a projection of its own: quantisers
that are given the same vector learn the same codes.  Residuals are true ones (`offline.blocks.quantize`);
the release normalises at every level, and its residual does not shrink.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from offline.blocks import quantize
from offline.blocks.quantize import Quantized, ResidualVQ
from offline.blocks.tower import Backbone, Placed, relocated
from offline.models import brainrvq
from offline.objectives.spectrum import n_bins
from streamer.components import Config as BaseConfig

DOMAINS = ("time", "frequency")
State = tuple[Any, ...]


class Config(BaseConfig):
    """Settings; the published sizes are the defaults (256 to 1,024 codes are used better than 8,192).

    Attributes
    ----------
    encoder : brainrvq.Config
        Its channels are those of the exported step; ``latents`` must be left out: codes are per electrode.
    code_dim : int
        Width that is quantised.
    quantiser : quantize.Config
        Of each domain; ``codebooks`` levels each.
    decoder_layers : int
        Blocks of each decoder.
    """

    kind: Literal["brainrvq_tokenizer"] = "brainrvq_tokenizer"
    encoder: brainrvq.Config = brainrvq.Config()
    code_dim: PositiveInt = 64
    quantiser: quantize.Config = quantize.Config(codebooks=3, size=8192)
    decoder_layers: Annotated[int, Field(ge=0)] = 3

    @model_validator(mode="after")
    def _per_electrode(self) -> Config:
        if self.encoder.latents is not None:
            raise ValueError("encoder.latents must be left out: a tokenizer's codes are per electrode")
        return self

    @property
    def n_chans(self) -> int:
        """Channels of the exported step."""
        return self.encoder.n_chans

    def build(self) -> Tokenizer:
        """Return the step for the encoder's channels, freshly initialised from torch's global generator."""
        return Tokenizer(self, Net(self))


SMALL = Config(
    encoder=brainrvq.SMALL, code_dim=8, quantiser=quantize.Config(codebooks=3, size=16), decoder_layers=1
)


class Reconstruction(NamedTuple):
    """What the decoders make of the codes; B rows, F frames, C electrodes, K bins.

    Attributes
    ----------
    target, waveform : Tensor, shape (B, F, C, hop)
        The scaled patches, and the decoded ones.
    log_magnitude, cosine, sine : Tensor, shape (B, F, C, K)
    vectors : dict of str to Tensor, shape (B, F C, code_dim)
        What was quantised, by domain.
    quantized : dict of str to Quantized
    """

    target: Tensor
    waveform: Tensor
    log_magnitude: Tensor
    cosine: Tensor
    sine: Tensor
    vectors: dict[str, Tensor]
    quantized: dict[str, Quantized]


class _Domain(nn.Module):
    """One domain: projection, quantiser, decoder."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        dim = config.encoder.dim
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, config.code_dim))
        self.quantiser = ResidualVQ(config.quantiser, config.code_dim)
        self.widen = nn.Linear(config.code_dim, dim)
        self.tower = brainrvq.tower(config.encoder, config.decoder_layers)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, width))

    def encode(self, latent: Tensor) -> Tensor:
        """Return the codes (B, F, C, levels) of latents (B, F, C, D)."""
        return self.quantiser.encode(self.project(latent))

    def forward(
        self, latent: Tensor, places: Tensor, rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor, Quantized]:
        """Return the decoded (B, F, C, width), what was quantised, and how."""
        z = self.project(latent)  # (B, F, C, code_dim)
        quantized = self.quantiser(z.flatten(1, 2), rng=rng)
        h = self.widen(quantized.z.view(z.shape)) + places[:, None]
        h, _ = self.tower(h, self.tower.init_state(len(h), h.shape[2]))
        return self.head(h), z.flatten(1, 2), quantized


class Net(nn.Module):
    """Encoder, quantisers and decoders, for any montage."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        hop = config.encoder.hop
        self.encoder = brainrvq.Net(config.encoder)
        self.encoder.mask_token.requires_grad_(False)  # nothing is hidden from a tokenizer
        self.time = _Domain(config, hop)
        self.frequency = _Domain(config, 3 * n_bins(hop))

    def forward(
        self, x: Tensor, positions: Tensor, *, rng: np.random.Generator | None = None
    ) -> Reconstruction:
        """Encode, quantise and decode whole segments.

        Parameters
        ----------
        x : Tensor, shape (B, C, T), µV
        positions : Tensor, shape (B, C, 3)
        rng : Generator
            Of the quantisers, in training mode.
        """
        latent, places = self.encoder.sequence(x, positions), self.encoder.electrodes(positions)
        waveform, z_time, q_time = self.time(latent, places, rng)
        spectrum, z_frequency, q_frequency = self.frequency(latent, places, rng)
        log_magnitude, cosine, sine = spectrum.chunk(3, dim=-1)
        return Reconstruction(
            self.encoder.scaled(x),
            waveform,
            log_magnitude,
            cosine,
            sine,
            dict(zip(DOMAINS, (z_time, z_frequency), strict=True)),
            dict(zip(DOMAINS, (q_time, q_frequency), strict=True)),
        )

    def codes(self, latent: Tensor) -> Tensor:
        """Return the codes (B, F, C, 2 levels) int64 of latents, the waveform's levels first."""
        return torch.cat([self.time.encode(latent), self.frequency.encode(latent)], dim=-1)


class Tokenizer(Placed):
    """The tokenizer at one montage, on the state contract.

    (B, C, T) µV -> codes (B, T / hop, C, 2 levels) int64, the waveform's levels first; latent
    (B, T / hop, C, D), what the quantisers' projections see: classify from it, not from the codes.

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.
    n_codebooks, codebook_size : int
        Of both domains together; codes per level.
    """

    def __init__(self, config: Config, net: Net) -> None:
        super().__init__(config.encoder.ch_names, config.encoder.stype)
        self.config, self.net = config, net
        self.hop, self.n_latent = config.encoder.hop, config.encoder.dim
        self.n_codebooks = len(DOMAINS) * net.time.quantiser.n_codebooks
        self.codebook_size = net.time.quantiser.codebook_size

    @property
    def left_context(self) -> int:
        """Samples before a hop that its output depends on."""
        return self.net.encoder.left_context

    def with_channels(self, ch_names: tuple[str, ...], stype: str) -> Tokenizer:
        """Return this net for another montage; the weights are shared."""
        encoder = relocated(self.config.encoder, ch_names, stype)
        return Tokenizer(self.config.model_copy(update={"encoder": encoder}), self.net).train(self.training)

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: zeros."""
        return self.net.encoder.init_state(batch, self.n_chans)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the codes and latents of every completed hop of ``x`` and the new state."""
        places = self.net.encoder.electrodes(self.get_buffer("positions"))[None]  # (1, C, D)
        latent, state = self.net.encoder(x, places, state)
        return {"codes": self.net.codes(latent), "latent": latent}, state

    def backbone(self) -> Backbone:
        """Return the encoder as a backbone."""
        return Backbone(self.config.encoder, self.net.encoder)
