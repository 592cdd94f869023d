"""BioCodec under training: code a signal, decode it, compare (Avramidis et al. 2025, arXiv:2510.09095).

Every channel of a segment is a row of its own.  The comparison is made on the signal divided by its running
gain, so a quiet electrode teaches as much as a loud one; the reported figures are those of the signal in µV.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from offline.blocks.quantize import CodeUse
from offline.models import biocodec
from offline.models.biocodec import BioCodec, Reconstruction
from offline.objectives.codec import SpectralLoss, log_spectral_distance, pearson_r, si_sdr, smooth_l1
from offline.systems import Moment, Segments, System, SystemConfig

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class Config(SystemConfig):
    """Settings of the training; the defaults are the published ones for EEG.

    Attributes
    ----------
    model : block
        See `offline.models.biocodec`.
    waveform_weight, beta : float
        Of the smooth L1 between the signals, and where it turns from quadratic to linear.
    spectral_weight : float
        Of the spectral loss.
    n_ffts : tuple of int
        Its windows, samples: (32, 64, 128, 256) for EEG, (128, 256, 512, 1024) for EMG at 1 kHz.
    flip : float
        Probability that a row is turned upside down: which electrode is the reference is a convention.
    """

    kind: Literal["biocodec"] = "biocodec"
    model: biocodec.Config = biocodec.Config()
    waveform_weight: Weight = 0.2
    beta: Annotated[float, Field(gt=0)] = 0.7
    spectral_weight: Weight = 1.0
    n_ffts: Annotated[tuple[Annotated[int, Field(ge=8)], ...], Field(min_length=1)] = (32, 64, 128, 256)
    flip: Share = 0.5

    def build(self, sfreq: float) -> Codec:
        """Return the system for segments at ``sfreq`` Hz."""
        return Codec(self, sfreq)


class Codec(System):
    """The codec with its losses."""

    def __init__(self, config: Config, sfreq: float) -> None:
        super().__init__()
        self.config, self.sfreq = config, sfreq
        self.model: BioCodec = config.model.build()
        self.spectral = SpectralLoss(config.n_ffts)
        self.begin_validation()

    @property
    def bit_rate(self) -> float:
        """Bits per second and channel, gain aside."""
        return self.model.tokenizer.rvq.bits * self.sfreq / self.model.hop

    def loss(self, batch: Segments, at: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss and its terms."""
        x = self._rows(batch.x * self._signs(batch))
        terms = self._terms(self.model.reconstruct(x, at.rng()))
        return terms["loss"].mean(), {name: value.mean().detach() for name, value in terms.items()}

    def begin_validation(self) -> None:
        """Forget the figures collected so far."""
        self._use = CodeUse(self.model.tokenizer.codebook_size)
        self._figures: dict[str, list[Tensor]] = {}

    def validate(self, batch: Segments) -> None:
        """Collect losses, and the fidelity in µV, of one batch."""
        x = self._rows(batch.x)
        result = self.model.reconstruct(x)
        figures = self._terms(result) | self._fidelity(x, result)
        for name, value in figures.items():
            self._figures.setdefault(name, []).append(value.float().cpu())
        self._use.add(result.codes)

    def end_validation(self) -> dict[str, float]:
        """Return the means over rows, the use of each level's codes, and the bit rate."""
        means = {name: float(torch.cat(values).mean()) for name, values in self._figures.items()}
        for level, (used, perplexity) in enumerate(zip(self._use.used, self._use.perplexity, strict=True), 1):
            means |= {f"use_{level}": float(used), f"perplexity_{level}": float(perplexity)}
        return means | {"bit_rate": self.bit_rate}

    def parts(self) -> dict[str, nn.Module]:
        """Return ``tokenizer``, ``decoder`` and ``backbone``."""
        return self.model.parts()

    def _rows(self, x: Tensor) -> Tensor:
        """Return channels as rows, whole hops of them: (B, C, T) -> (B * C, 1, T')."""
        return x[..., : x.shape[-1] // self.model.hop * self.model.hop].flatten(0, 1).unsqueeze(1)

    def _signs(self, batch: Segments) -> Tensor:
        """Return 1 or -1 for each row, (B, 1, 1), drawn from the row's own generator."""
        flipped = [batch.rng(row).random() < self.config.flip for row in range(len(batch.keys))]
        signs = np.where(flipped, -1.0, 1.0)[:, None, None]
        return torch.as_tensor(signs, dtype=batch.x.dtype, device=batch.x.device)

    def _terms(self, result: Reconstruction) -> dict[str, Tensor]:
        """Return the loss of each row and what it is made of, (B,) each."""
        output, target = result.output.squeeze(1), result.target.squeeze(1)
        waveform = smooth_l1(output, target, self.config.beta)
        spectral = self.spectral(output, target)
        loss = self.config.waveform_weight * waveform + self.config.spectral_weight * spectral
        return {
            "loss": loss + result.commitment,
            "waveform": waveform,
            "spectral": spectral,
            "commitment": result.commitment,
        }

    def _fidelity(self, x: Tensor, result: Reconstruction) -> dict[str, Tensor]:
        """Return how close the decoded signal (µV) is to ``x`` (B, 1, T), (B,) each."""
        gain = self.model.tokenizer.backbone.scale.gain_of(result.gain)  # (B, F)
        signal = result.output.squeeze(1) * gain.repeat_interleave(self.model.hop, dim=-1)
        wanted = x.squeeze(1)
        return {
            "pearson_r": pearson_r(signal, wanted),
            "si_sdr": si_sdr(signal, wanted),
            "lsd": log_spectral_distance(signal, wanted, max(self.config.n_ffts)),
        }
