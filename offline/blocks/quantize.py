"""Residual vector quantiser: each level says what the levels before it left over.

The residual is a real one for every distance: what is subtracted is what the far end adds up, so its energy
falls at every level at any scale of the input.

Why not vector-quantize-pytorch (1.32.0, tried): its encoder does not export (a branch on a buffer), two
processes do not learn what one learns (each samples its own tokens from global random state), the cosine
residual is taken from raw vectors by unit codes (4 % of the energy left at scale 1, 98 % at 100), and it has
no gain-shape codes.  Its decoder does export, and its dead codes do come back.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from offline.blocks.codebooks import AngleCodebook, Codebook, GainShapeCodebook, draw
from offline.blocks.ranks import gathered, place, rows, summed
from streamer.components import Config as BaseConfig

RECENT_STEPS, RECENT_CHOICES = 10, 50  # what is recent: steps, and choices of a code that is used evenly
KMEANS_TOKENS = 64  # vectors per code vector that the start looks at, at most
DEAD_SHARE = 0.1  # of the fair share: what is dead where a batch is too small for `dead_below`


class Config(BaseConfig):
    """Settings of the quantiser.

    Attributes
    ----------
    codebooks, size : int
        Levels, and code vectors per level.
    distance : str
        ``euclidean``: the nearest code vector.  ``cosine``: the one closest in angle, with its own length.
        ``gain_shape``: the closest in angle of ``size`` unit vectors, times one of ``gains`` gains.
    gains : int
        ``gain_shape`` only; a level then has ``size * gains`` codes.
    decay : float
        Of the moving averages, per training step.
    kmeans_iterations : int
        On the first training batch, from vectors drawn from it.
    dead_below : float
        A code vector recently chosen less often than this per step is put near a random vector of the batch.
        Where that is more than a tenth of the fair share, a tenth of the fair share counts.
    commitment : float
        Weight of the commitment term that `ResidualVQ.forward` returns.
    dropout : float
        Probability that a training step decodes from fewer levels, their number drawn evenly: one net then
        serves every bit rate.
    """

    codebooks: Annotated[int, Field(ge=1)] = 6
    size: Annotated[int, Field(ge=2)] = 256
    distance: Literal["euclidean", "cosine", "gain_shape"] = "euclidean"
    gains: Annotated[int, Field(ge=2)] = 16
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    kmeans_iterations: Annotated[int, Field(ge=1)] = 10
    dead_below: Annotated[float, Field(ge=0)] = 2.0
    commitment: Annotated[float, Field(ge=0)] = 0.25
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0

    def codebook(self, dim: int) -> Codebook:
        """Return one level for vectors of this dimension, not yet fitted."""
        if self.distance == "gain_shape":
            return GainShapeCodebook(self.size, dim, self.gains)
        return (AngleCodebook if self.distance == "cosine" else Codebook)(self.size, dim)


class Quantized(NamedTuple):
    """What a batch becomes.

    Attributes
    ----------
    z : Tensor, shape (B, N, D), float32
        Sum of the chosen vectors; its gradient goes to the input unchanged (straight through).
    codes : Tensor, shape (B, N, K), int64
        Of every level, also of those that dropout leaves out of ``z``.
    commitment : Tensor, shape (B,), float32
        One per row, weight included: what each level leaves over, squared, mean over tokens, dimensions and
        the levels in ``z``.
    """

    z: Tensor
    codes: Tensor
    commitment: Tensor


class ResidualVQ(nn.Module):
    """K levels of code vectors of dimension ``dim``; they learn by moving averages, not by gradients.

    Everything is computed in float32: distances in bfloat16 change 4 % of the codes.

    Attributes
    ----------
    n_codebooks, codebook_size : int
        K, and the number of codes of a level.
    bits : float
        Per token, all levels.
    """

    def __init__(self, config: Config, dim: int) -> None:
        super().__init__()
        self.config, self.dim = config, dim
        self.levels = nn.ModuleList([config.codebook(dim) for _ in range(config.codebooks)])
        self.n_codebooks, self.codebook_size = config.codebooks, self._levels[0].n_codes
        self.bits = self.n_codebooks * math.log2(self.codebook_size)
        self.started: Tensor
        self.register_buffer("started", torch.tensor(False))

    @property
    def _levels(self) -> list[Codebook]:
        return [level for level in self.levels if isinstance(level, Codebook)]

    def forward(self, z: Tensor, *, rng: np.random.Generator | None = None) -> Quantized:
        """Quantise a batch and, in training mode, learn from it.

        Parameters
        ----------
        z : Tensor, shape (B, N, D)
            In several processes, this one's slice of the rows; of the same shape in each.
        rng : Generator
            Of the step and the same in every process.  Training mode needs it: it draws the start, the
            places of dead codes, and dropout.

        Raises
        ------
        ValueError
            Training without ``rng``.
        """
        with _float32(z):
            z = z.float()
            if not self.training:
                return self._quantized(z, self.n_codebooks)
            if rng is None:
                raise ValueError("ResidualVQ draws at random in training mode: pass rng, that of the step.")
            used = self._draw_levels(rng)
            if not self.started:
                self._start(z.detach().reshape(-1, self.dim), rng)
            quantized = self._quantized(z, used)
            self._learn(z.detach().reshape(-1, self.dim), quantized.codes.flatten(0, 1), rng)
            return quantized

    def encode(self, z: Tensor) -> Tensor:
        """Return the codes (..., K) int64 of vectors (..., D)."""
        with _float32(z):
            residual, codes = z.float(), []
            for level in self._levels:
                codes.append(level.nearest(residual))
                residual = residual - level.vectors(codes[-1])
            return torch.stack(codes, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors (..., D) float32 of codes (..., k), k <= K: fewer levels are coarser."""
        vectors = self._levels[0].vectors(codes[..., 0])
        for i in range(1, codes.shape[-1]):
            vectors = vectors + self._levels[i].vectors(codes[..., i])
        return vectors

    @torch.no_grad()
    def residuals(self, z: Tensor) -> Tensor:
        """Return the energy left after each level (K,), as a share of the energy of ``z`` (..., D)."""
        z = z.float()
        codes = self.encode(z)
        left = [z - self.decode(codes[..., : i + 1]) for i in range(self.n_codebooks)]
        return torch.stack([r.square().sum() for r in left]) / z.square().sum()

    def _quantized(self, z: Tensor, used: int) -> Quantized:
        """Return the sum of the first ``used`` levels, straight through, all codes, and the commitment."""
        with torch.no_grad():
            codes = self.encode(z)
        residual, left = z, []
        for i, level in enumerate(self._levels[:used]):
            # Only the chosen vector is a constant: through the residual every level pulls at the input.
            residual = residual - level.vectors(codes[..., i])
            left.append(residual.square().mean(dim=(1, 2)))  # (B,)
        commitment = self.config.commitment * torch.stack(left).mean(dim=0)
        return Quantized(z - residual.detach(), codes, commitment)

    def _draw_levels(self, rng: np.random.Generator) -> int:
        fewer, drawn = rng.random() < self.config.dropout, int(rng.integers(self.n_codebooks)) + 1
        return drawn if fewer else self.n_codebooks

    @torch.no_grad()
    def _start(self, tokens: Tensor, rng: np.random.Generator) -> None:
        """Place the codes level by level, on the vectors (N, D) of all processes."""
        residual = gathered(tokens)
        n_tokens, limit = len(residual), KMEANS_TOKENS * self.config.size
        if n_tokens > limit:
            residual = residual[draw(rng, n_tokens, limit, residual.device)]
        for level in self._levels:
            level.start(residual, n_tokens, self.config.kmeans_iterations, rng)
            residual = residual - level.vectors(level.nearest(residual))
        self.started.fill_(True)

    @torch.no_grad()
    def _learn(self, tokens: Tensor, codes: Tensor, rng: np.random.Generator) -> None:
        """Follow the vectors (N, D) of all processes and revive dead codes among them."""
        residuals = [tokens]
        for i, level in enumerate(self._levels):
            residuals.append(residuals[-1] - level.vectors(codes[:, i]))
        each = [level.statistics(residuals[i], codes[:, i]) for i, level in enumerate(self._levels)]
        n_tokens = place()[1] * len(tokens)
        share = n_tokens / self.config.size
        recent_decay = 1 - min(1 / RECENT_STEPS, share / RECENT_CHOICES)
        for level, statistics in zip(self._levels, summed(torch.stack(each)), strict=True):
            level.follow(statistics, self.config.decay, recent_decay)
        low = min(self.config.dead_below, DEAD_SHARE * share)
        for level, residual in zip(self._levels, residuals[:-1], strict=True):
            dead = (level.recent < low).nonzero().flatten()
            if len(dead):
                level.revive(dead, rows(residual, draw(rng, n_tokens, len(dead), dead.device)), low)


class CodeUse:
    """How evenly codes are used, level by level.

    Parameters
    ----------
    codebook_size : int
        Codes of a level.
    """

    def __init__(self, codebook_size: int) -> None:
        self.codebook_size = codebook_size
        self.counts = torch.zeros(0, codebook_size, dtype=torch.int64)

    def add(self, codes: Tensor) -> None:
        """Count codes (..., K) int64."""
        each = codes.detach().cpu().flatten(0, -2).T  # (K, N)
        counts = torch.stack([torch.bincount(level, minlength=self.codebook_size) for level in each])
        self.counts = counts if not len(self.counts) else self.counts + counts

    @property
    def used(self) -> list[float]:
        """Share of the codes that occurred, per level."""
        return [float(share) for share in (self.counts > 0).double().mean(dim=-1)]

    @property
    def perplexity(self) -> list[float]:
        """Exponential of the entropy, per level: 1 for a single code, ``codebook_size`` for even use."""
        share = self.counts / self.counts.sum(dim=-1, keepdim=True)
        return [float(value) for value in torch.special.entr(share.double()).sum(dim=-1).exp()]


def _float32(z: Tensor) -> AbstractContextManager[object]:
    """Return a context without automatic mixed precision."""
    device = z.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
