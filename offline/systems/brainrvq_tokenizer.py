"""Training of BrainRVQ's dual-domain tokenizer: decode the waveform and the spectrum of every patch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from offline.blocks.quantize import CodeUse, ResidualVQ
from offline.models import brainrvq_tokenizer as nets
from offline.models.brainrvq_tokenizer import DOMAINS, Reconstruction
from offline.objectives.spectrum import magnitude_loss, phase_loss, spectrum
from offline.systems import Moment, Segments, System, SystemConfig
from offline.systems._figures import Figures


class Config(SystemConfig):
    """Settings.

    Attributes
    ----------
    model : brainrvq_tokenizer.Config
    waveform, magnitude, phase : float
        Weights of the three reconstructions; the quantisers' commitment has its own.
    """

    kind: Literal["brainrvq_tokenizer"] = "brainrvq_tokenizer"
    model: nets.Config = nets.Config()
    waveform: float = 1.0
    magnitude: float = 1.0
    phase: float = 1.0

    def build(self, sfreq: float) -> BrainRVQTokenizer:
        """Return the system for segments at ``sfreq`` Hz."""
        return BrainRVQTokenizer(self, sfreq)


SMALL = Config(model=nets.SMALL)


class BrainRVQTokenizer(System):
    """``waveform * MSE + magnitude * L1(log) + phase * (1 - cos) + commitments``, a mean per row."""

    def __init__(self, config: Config, sfreq: float) -> None:
        super().__init__()
        self.config, self.sfreq = config, sfreq
        self.net = nets.Net(config.model)
        self._figures = Figures()
        self._uses: dict[str, CodeUse] = {}

    def loss(self, batch: Segments, at: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its terms with the residual energy of each level."""
        made = self.net(batch.x, batch.positions, rng=at.rng())
        rows, terms = self._terms(made)
        logs = {name: term.mean().detach() for name, term in terms.items()}
        for domain in DOMAINS:
            left = self._quantiser(domain).residuals(made.vectors[domain].detach())
            logs |= {f"residual_{domain}_{level + 1}": share for level, share in enumerate(left)}
        return rows.mean(), logs

    def begin_validation(self) -> None:
        """Forget the figures collected so far."""
        self._figures = Figures()
        self._uses = {}
        for domain in DOMAINS:
            quantiser = self._quantiser(domain)
            self._uses[domain] = CodeUse(quantiser.codebook_size)

    def validate(self, batch: Segments) -> None:
        """Collect the loss and its terms, residual energies and code use."""
        made = self.net(batch.x, batch.positions)
        rows, terms = self._terms(made)
        self._figures.add({"loss": rows} | terms)
        power = made.target.square().mean(dim=(1, 2, 3))
        self._figures.add({"waveform_share": terms["waveform"] / power.clamp(min=1e-12)})
        for domain in DOMAINS:
            left = self._quantiser(domain).residuals(made.vectors[domain])
            self._figures.add(
                {f"residual_{domain}_{i + 1}": share.expand(len(rows)) for i, share in enumerate(left)}
            )
            self._uses[domain].add(made.quantized[domain].codes)

    def end_validation(self) -> dict[str, float]:
        """Return means over rows; per domain and level the share of codes in use and the perplexity."""
        figures = self._figures.means()
        for domain, use in self._uses.items():
            figures |= {f"used_{domain}_{i + 1}": float(share) for i, share in enumerate(use.used)}
            figures |= {f"perplexity_{domain}_{i + 1}": float(p) for i, p in enumerate(use.perplexity)}
        return figures

    def parts(self) -> dict[str, nn.Module]:
        """Return ``tokenizer`` and ``backbone`` (its encoder) at the configured montage."""
        tokenizer = nets.Tokenizer(self.config.model, self.net).eval()
        return {"tokenizer": tokenizer, "backbone": tokenizer.backbone().eval()}

    def _quantiser(self, domain: str) -> ResidualVQ:
        return {"time": self.net.time, "frequency": self.net.frequency}[domain].quantiser

    def _terms(self, made: Reconstruction) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its unweighted terms, one per row."""
        target, c = spectrum(made.target), self.config
        error = (made.waveform.float() - made.target).square().mean(dim=-1)  # (B, F, C)
        terms = {
            "waveform": error.mean(dim=(1, 2)),
            "magnitude": magnitude_loss(made.log_magnitude, target).mean(dim=(1, 2)),
            "phase": phase_loss(made.cosine, made.sine, target).mean(dim=(1, 2)),
        }
        commitment = torch.stack([made.quantized[domain].commitment for domain in DOMAINS]).sum(dim=0)
        rows = c.waveform * terms["waveform"] + c.magnitude * terms["magnitude"] + c.phase * terms["phase"]
        return rows + commitment, terms | {"commitment": commitment}
