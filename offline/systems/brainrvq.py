"""Masked, depth-autoregressive pretraining of BrainRVQ's backbone on the codes of a frozen tokenizer.

Some patches are hidden; from what is visible the backbone predicts, for each hidden patch, the codes that the
tokenizer gives it: per domain level by level, each level told the levels below it (arXiv:2602.16951,
``h_l = norm(h + sum_{j<l} embed_j(code_j))``).  The depth is autoregressive, time is not.

What a causal backbone learns from this.  A hidden patch sees its electrode's past and, in the channel blocks,
the other electrodes' visible patches of the same frame; never its own future.  Scattered masks are therefore
mostly solved across the scalp (volume conduction), masks over all channels (``mask: {kind: block,
block_channels: 1.0}``) by the past alone.  The tokenizer's codes come from its own causal net, so no target
knows the future either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from offline.blocks.electrodes import Spread
from offline.blocks.tower import Backbone
from offline.models import brainrvq as nets
from offline.models.brainrvq_tokenizer import DOMAINS
from offline.models.brainrvq_tokenizer import Net as TokenizerNet
from offline.objectives import masking
from offline.systems import Moment, Segments, System, SystemConfig
from offline.systems._figures import Figures
from streamer.errors import ConfigError


class Config(SystemConfig):
    """Settings.

    Attributes
    ----------
    tokenizer : Path
        Run folder of a finished `brainrvq_tokenizer`, of the same hop.
    model : brainrvq.Config
    mask : masking.Config
    codebook_size, levels : int
        Of the tokenizer: codes per level, and levels per domain.
    domains : str
        Whose codes are predicted: ``both``, ``time`` or ``frequency``.
    hierarchy : bool
        False: every level is predicted from ``h`` alone, with no lower codes and no embeddings of them.
    level_weights : tuple of float
        One per level, coarse to fine.
    complement : bool
        Predict the visible patches from the hidden ones as well, at twice the cost.
    visible : float
        Weight of naming the codes of the visible patches too (0: as published).  Where nothing is hidden,
        as in a probe, no other term asks the last block to say anything about its own patch.
    """

    kind: Literal["brainrvq"] = "brainrvq"
    tokenizer: Path
    model: nets.Config = nets.Config()
    mask: masking.Config = masking.Config()
    codebook_size: PositiveInt = 8192
    levels: PositiveInt = 3
    domains: Literal["both", "time", "frequency"] = "both"
    hierarchy: bool = True
    level_weights: tuple[Annotated[float, Field(ge=0)], ...] = (1.0, 0.5, 0.25)
    complement: bool = False
    visible: Annotated[float, Field(ge=0)] = 0.0

    def build(self, sfreq: float) -> BrainRVQ:
        """Return the system; the tokenizer is read when it is first needed."""
        if len(self.level_weights) != self.levels:
            raise ConfigError(
                f"level_weights has {len(self.level_weights)} entries for {self.levels} levels."
            )
        return BrainRVQ(self, sfreq)

    def inherited(self) -> dict[str, tuple[str, ...]]:
        """Return the recordings behind the tokenizer, whose codes are what is learned."""
        from offline.runs import load_run

        groups = load_run(self.tokenizer).fingerprints.values()
        return {"tokenizer": tuple(sorted({one for group in groups for one in group}))}


class Heads(nn.Module):
    """The codes of one domain, coarse to fine, from tokens (N, D)."""

    def __init__(self, dim: int, levels: int, codebook_size: int, hierarchy: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(levels)])
        self.logits = nn.ModuleList([nn.Linear(dim, codebook_size) for _ in range(levels)])
        lower = levels - 1 if hierarchy else 0
        self.embeddings = nn.ModuleList([nn.Embedding(codebook_size, dim) for _ in range(lower)])

    def forward(self, h: Tensor, codes: Tensor | None = None) -> list[Tensor]:
        """Return the logits (N, codebook_size) of each level.

        Parameters
        ----------
        codes : Tensor, shape (N, levels), int64, optional
            The true ones, of which each level is told the lower (teacher forcing); without them it is told
            the likeliest ones found so far.
        """
        found = []
        for level, (norm, logits) in enumerate(zip(self.norms, self.logits, strict=True)):
            found.append(logits(norm(h)))
            if level < len(self.embeddings):
                known = found[-1].argmax(dim=-1) if codes is None else codes[:, level]
                h = h + self.embeddings[level](known)
        return found


class Teacher:
    """The frozen tokenizer.  Not a module: its weights are not those of the system."""

    def __init__(self, net: TokenizerNet) -> None:
        self.net = net.eval().requires_grad_(False)

    @torch.no_grad()
    def codes(self, x: Tensor, positions: Tensor) -> Tensor:
        """Return the codes (B, F, C, 2 levels) of whole segments; always in float32."""
        if self.net.encoder.mask_token.device != x.device:
            self.net.to(x.device)
        with torch.autocast(x.device.type, enabled=False):
            return self.net.codes(self.net.encoder.sequence(x, positions))


class BrainRVQ(System):
    """``sum over domains and levels of weight * cross entropy`` over the hidden patches, a mean per row."""

    def __init__(self, config: Config, sfreq: float, teacher: Teacher | None = None) -> None:
        super().__init__()
        self.config, self.sfreq, self._teacher = config, sfreq, teacher
        c = config.model
        self.net = nets.Net(c)
        self.spread = None if c.latents is None else Spread(c.dim, c.heads)
        self.domains = DOMAINS if config.domains == "both" else (config.domains,)
        self.heads = nn.ModuleDict(
            {
                name: Heads(c.dim, config.levels, config.codebook_size, config.hierarchy)
                for name in self.domains
            }
        )
        self._figures = Figures()
        self._frequent: dict[str, Tensor] = {}

    def loss(self, batch: Segments, at: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, its terms, and the effective share of hidden patches."""
        mask, codes = self._mask(batch, at.progress), self._codes(batch.x, batch.positions)
        rows, terms = self._terms(batch, mask, codes)
        if self.config.complement:
            others, _ = self._terms(batch, ~mask, codes)
            rows = (rows + others) / 2
        logs = {name: term.mean().detach() for name, term in terms.items()}
        return rows.mean(), logs | {"mask_ratio": mask.float().mean()}

    def begin_validation(self) -> None:
        """Forget the figures collected so far."""
        self._figures = Figures()
        self._frequent = {}

    def validate(self, batch: Segments) -> None:
        """Collect losses (taught) and accuracies (not taught) at the masks of the end of the curriculum."""
        mask, codes = self._mask(batch, progress=1.0), self._codes(batch.x, batch.positions)
        rows, terms = self._terms(batch, mask, codes)
        self._figures.add({"loss": rows, "mask_ratio": mask.float()} | terms)
        hidden = mask.transpose(1, 2)  # (B, F, C)
        tokens, guess = self._tokens(batch, mask)[hidden], self._guess(batch, mask)[hidden]
        for name in self.domains:
            wanted = self._of(name, codes)[hidden]  # (N, levels)
            logits = self._heads(name)(tokens)
            for level, found in enumerate(logits):
                right = (found.argmax(dim=-1) == wanted[:, level]).float()
                bridged = (self._of(name, guess)[:, level] == wanted[:, level]).float()
                key = f"{name}_{level + 1}"
                self._figures.add({f"accuracy_{key}": right, f"interpolated_{key}": bridged})
                counts = torch.bincount(wanted[:, level].cpu(), minlength=self.config.codebook_size)
                self._frequent[key] = counts + self._frequent.get(key, 0)

    def end_validation(self) -> dict[str, float]:
        """Return the means; ``frequent_*``: the accuracy of always naming the validation's commonest code."""
        commonest = {f"frequent_{key}": float(n.max() / n.sum()) for key, n in self._frequent.items()}
        return self._figures.means() | commonest

    def parts(self) -> dict[str, nn.Module]:
        """Return ``backbone`` at the configured montage."""
        return {"backbone": Backbone(self.config.model, self.net).eval()}

    def _mask(self, batch: Segments, progress: float) -> Tensor:
        c = self.config.model
        return masking.mask(self.config.mask, batch, c.hop, self.sfreq, c.stype, progress)

    def _terms(self, batch: Segments, mask: Tensor, codes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each row (B,) and its terms, one per domain and level, each (B,)."""
        tokens, hidden = self._tokens(batch, mask), mask.transpose(1, 2)  # (B, F, C, D), (B, F, C)
        rows, terms = self._named(tokens, hidden, codes)
        if self.config.visible:
            seen, _ = self._named(tokens, ~hidden, codes)
            rows = rows + self.config.visible * seen
        return rows, terms

    def _named(self, tokens: Tensor, where: Tensor, codes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross entropy over the patches ``where`` (B, F, C), weighted, per row, and its terms."""
        row, tokens = where.nonzero()[:, 0], tokens[where]  # (N,), (N, D)
        count = torch.bincount(row, minlength=len(where)).clamp(min=1)
        total, terms = tokens.new_zeros(len(where), dtype=torch.float32), {}
        for name in self.domains:
            wanted = self._of(name, codes)[where]
            for level, logits in enumerate(self._heads(name)(tokens, wanted)):
                each = F.cross_entropy(logits.float(), wanted[:, level], reduction="none")
                mean = torch.zeros_like(total).index_add(0, row, each) / count
                terms[f"loss_{name}_{level + 1}"] = mean
                total = total + self.config.level_weights[level] * mean
        return total, terms

    def _tokens(self, batch: Segments, mask: Tensor) -> Tensor:
        """Return a token per electrode and frame, (B, F, C, D), the masked ones hidden from the net."""
        latent = self.net.sequence(batch.x, batch.positions, mask)
        return latent if self.spread is None else self.spread(latent, self.net.electrodes(batch.positions))

    def _heads(self, domain: str) -> Heads:
        heads = self.heads[domain]
        assert isinstance(heads, Heads)
        return heads

    def _of(self, domain: str, codes: Tensor) -> Tensor:
        """Return the levels of one domain, (..., levels)."""
        first = DOMAINS.index(domain) * self.config.levels
        return codes[..., first : first + self.config.levels]

    def _guess(self, batch: Segments, mask: Tensor) -> Tensor:
        """Return the codes of the signal whose hidden patches are bridged by straight lines."""
        return self._codes(masking.bridged(batch.x, mask), batch.positions)

    def _codes(self, x: Tensor, positions: Tensor) -> Tensor:
        if self._teacher is None:
            self._teacher = _teacher(self.config, self.sfreq)
        return self._teacher.codes(x, positions)


def _teacher(config: Config, sfreq: float) -> Teacher:
    """Read the tokenizer's run folder; `ConfigError` where it does not fit."""
    from offline.runs import load_system

    system = load_system(config.tokenizer)
    net = getattr(system, "net", None)
    if not isinstance(net, TokenizerNet):
        raise ConfigError(f"{config.tokenizer} is not the run folder of a brainrvq_tokenizer.")
    if config.model.form == "causal" and net.config.encoder.form != "causal":
        raise ConfigError(
            f"{config.tokenizer} looks at whole windows: its codes know the future, which a causal model "
            "cannot. Take a causal tokenizer, or `form: window` for the model too."
        )
    quantiser = net.time.quantiser
    found = (net.config.encoder.hop, quantiser.codebook_size, quantiser.n_codebooks)
    wanted = (config.model.hop, config.codebook_size, config.levels)
    if found != wanted:
        raise ConfigError(
            f"{config.tokenizer} has hop, codebook_size and levels {found}; the recipe says {wanted}: "
            "take the tokenizer's."
        )
    heard = (getattr(system, "sfreq", sfreq), net.config.encoder.stype)
    if heard != (sfreq, config.model.stype):
        raise ConfigError(
            f"{config.tokenizer} was trained on {heard[1]} at {heard[0]:g} Hz, this is {config.model.stype} "
            f"at {sfreq:g} Hz: its codes would mean something else. Train both on shards of one kind."
        )
    return Teacher(net)
