"""Encoders over a set of nodes of any size and order: electrodes, or the regions of an atlas.

A node is known by its *place*, a vector (`electrodes.ElectrodeEmbedding`, or a learned table of an atlas),
and by nothing else: permuting nodes together with their places changes nothing, and one net serves any
montage.

`GraphEncoder` passes messages along edges that carry one signed weight per band,

    h_i <- h_i + gelu(W_0 n_i + sum_b W_b sum_j A_bij n_j / sqrt(N)),   n = norm(h),   h_i = place_i at first,

an edge-weighted relational graph net (Schlichtkrull et al. 2018, arXiv:1703.06103, with bands for
relations).  Beside it stands a read-out that is linear in the edges, ``sum_ij A_bij q_i p_j`` with vectors
``q, p`` of the places: with few subjects a linear read of each region's row by partner is what works, and
deep nets over mean-pooled nodes do not find it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

READS = 4  # linear reads per dimension: they are what is lost first when they are few
TINY = 1e-3  # of a connectivity, which is at most 1: below it, differences are rounding


class Pool(nn.Module):
    """Tokens (B, N, D) at places (B or 1, N, D) -> (B, ``size``), whatever N.

    A part is the mean over nodes of a non-linear map.  The larger part is linear in the tokens: sums over
    nodes, each weighed by a function of the place from which its mean over places is taken.  It says how
    nodes differ, which the first part averages out.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        reads = READS * dim
        self.size = dim + reads
        self.token, self.read, self.gate = nn.Linear(dim, dim), nn.Linear(dim, reads), nn.Linear(dim, reads)

    def forward(self, tokens: Tensor, places: Tensor, linear: Tensor | None = None) -> Tensor:
        """Return the pooled tokens; ``linear`` (B, N, D) takes their part in the linear reads."""
        mean = F.gelu(self.token(tokens + places)).mean(dim=1)
        gate = self.gate(places)
        gate = gate - gate.mean(dim=1, keepdim=True)
        read = self.read(tokens if linear is None else linear) * gate
        return torch.cat([mean, read.sum(dim=1) / read.shape[1] ** 0.5], dim=-1)


class Message(nn.Module):
    """One round of messages; (B, N, D) and edges (B, E, N, N) -> new tokens, and what was heard."""

    def __init__(self, dim: int, n_edges: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.own = nn.Linear(dim, dim)
        self.heard = nn.Linear(n_edges * dim, dim, bias=False)

    def forward(self, h: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens and the messages, both (B, N, D); the messages are linear in the edges."""
        n = self.norm(h)
        gathered = edges @ n[:, None] / edges.shape[-1] ** 0.5  # (B, E, N, D)
        heard = self.heard(gathered.transpose(1, 2).flatten(2))
        return h + F.gelu(self.own(n) + heard), heard


class GraphEncoder(nn.Module):
    """Connectivity of a set of nodes -> one vector.

    Parameters
    ----------
    dim, n_edges, layers : int
        Width D, bands per edge E, rounds of messages.
    dropout : float
        On what is read from the nodes.
    """

    def __init__(self, dim: int, n_edges: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.messages = nn.ModuleList([Message(dim, n_edges) for _ in range(layers)])
        self.pool = Pool(dim)
        self.norm, self.dropout = nn.LayerNorm(self.pool.size), nn.Dropout(dropout)
        self.out = nn.Linear(self.pool.size + 2 * n_edges, dim)

    def forward(self, edges: Tensor, places: Tensor) -> Tensor:
        """Return the embedding (B, D).

        Parameters
        ----------
        edges : Tensor, shape (B, E, N, N)
            Connectivity in any measure, 0 where there is no edge; the diagonal is not looked at.
        places : Tensor, shape (B or 1, N, D)
        """
        edges, levels = standardised(edges)
        h, first = places, None
        for message in self.messages:
            h, heard = message(h, edges)
            first = heard if first is None else first
        read = self.dropout(self.norm(self.pool(h, places, first)))
        out: Tensor = self.out(torch.cat([read, levels], dim=-1))
        return out


def standardised(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Put edges of any measure on one scale: imaginary coherence is near .04, a correlation near .3.

    An edge of 0 is none, as one that was dropped or that leads to a flat electrode; it stays 0.

    Parameters
    ----------
    edges : Tensor, shape (B, E, N, N)

    Returns
    -------
    edges : Tensor, shape (B, E, N, N)
        Mean 0 and deviation 1 over the edges of each row and band; 0 on the diagonal.
    levels : Tensor, shape (B, 2 E)
        What that took away: the logarithm of the deviation, and the mean in deviations, compressed.
    """
    others = 1 - torch.eye(edges.shape[-1], dtype=edges.dtype, device=edges.device)
    there = others * (edges != 0)
    count = there.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
    mean = (edges * there).sum(dim=(-2, -1), keepdim=True) / count
    centred = (edges - mean) * there
    spread = (centred.square().sum(dim=(-2, -1), keepdim=True) / count + TINY**2).sqrt()
    levels = torch.cat([spread.log10(), torch.asinh(mean / spread)], dim=1).flatten(1)
    return centred / spread, levels
