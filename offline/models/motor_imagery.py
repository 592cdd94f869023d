"""A compact causal net for imagined movement: where, which rhythm, how strong, since when.

::

    x (B, C, T) at 160 Hz
     ├─ spatio-temporal filters ─ power over the last pool_s, log ─┐
     │                          └ ELU, mean over the same time ────┤   (B, F, T / hop)
     └─ spatial filters, low-passed: the slow potentials ──────────┘
                 mix ─ dilated residual convolutions over frames ─ latent ─ logits

A filter is a topography and a band-pass of its own, both learned, so log power is what common spatial
patterns look at; filters free over channels and time alike overfit (validation subjects: .796 against .806).
The slow path keeps the sign that power throws away.  Several such nets, independent but for the batches
they are trained on, are averaged: cheaper than one larger net, and better on new people.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from offline.blocks.conv import CausalConv1d, CausalPool1d, ResidualConv
from streamer.components import Config as BaseConfig

NetState = tuple[Tensor, ...]
State = tuple[NetState, ...]
POWER_FLOOR = 1e-3  # of a unit-variance signal: keeps the log finite in silence

Count = Annotated[int, Field(ge=1)]


class Config(BaseConfig):
    """Settings of the net; lengths in samples at the model's rate unless said otherwise.

    Attributes
    ----------
    n_chans, n_classes : int
    hop : int
        Samples per decision.
    members : int
        Nets that are averaged.
    filters, kernel : int
        Topographies, each with a temporal filter of this length.
    stride : int
        Step of the filters; ``hop`` and ``pool`` are multiples of it.
    pool : int
        Length of the power estimate.
    slow, slow_kernel : int
        Slow spatial filters and the length of their low-pass.
    dim : int
        Width over frames; the latents of all members side by side are ``members * dim`` wide.
    frame_kernel : int
        Taps of each convolution over frames.
    dilations : tuple of int
        One residual convolution each, frames.
    dropout : float
    """

    kind: Literal["motor_imagery"] = "motor_imagery"
    n_chans: Count = 22
    n_classes: Annotated[int, Field(ge=2)] = 3
    hop: Count = 10
    members: Count = 1
    filters: Count = 32
    kernel: Count = 64
    stride: Count = 2
    pool: Count = 60
    slow: Count = 16
    slow_kernel: Count = 20
    dim: Count = 48
    frame_kernel: Count = 4
    dilations: tuple[Count, ...] = (1, 2, 4)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4

    def build(self) -> MotorImagery:
        """Return the net, freshly initialised from torch's global generator."""
        return MotorImagery(self)


class MotorImagery(nn.Module):
    """The mean of ``members`` nets; (B, C, T) -> logits (B, T / hop, n_classes), latent (B, T / hop, D).

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.
    n_latent : int
        D.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.members = nn.ModuleList([_Net(config) for _ in range(config.members)])
        self.hop = config.hop
        self.left_context = self._nets[0].left_context
        self.delay = 0
        self.n_latent = config.members * config.dim

    @property
    def _nets(self) -> list[_Net]:
        return [net for net in self.members if isinstance(net, _Net)]

    def fused(self) -> MotorImagery:
        """Return the same model with its members side by side in every layer, for export.

        A fourth of the operations: at the pace of a live session, whose caches are cold, a step of four
        members takes 0.6 ms instead of 0.87.
        """
        model = MotorImagery(self.config.model_copy(update={"members": 1}))
        whole = _Net(self.config, self.config.members)
        parts = [net.state_dict() for net in self._nets]
        whole.load_state_dict(
            {
                name: torch.cat([part[name] for part in parts]) if value.ndim else value
                for name, value in parts[0].items()
            }
        )
        model.config, model.members, model.n_latent = self.config, nn.ModuleList([whole]), self.n_latent
        return model.train(self.training)

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: zeros."""
        return tuple(net.init_state(batch) for net in self._nets)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the outputs for every completed hop of ``x`` (B, C, T) and the new state."""
        each, latent, state = self.forward_members(x, state)
        return {"logits": each.mean(dim=0), "latent": latent}, state

    def forward_members(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return the logits of each member (M, B, T / hop, n_classes), the latents and the new state."""
        results = [net(x, past) for net, past in zip(self._nets, state, strict=True)]
        logits = torch.cat([result[0] for result in results])
        latent = torch.cat([result[1] for result in results], dim=-1)  # (B, T / hop, D)
        return logits, latent, tuple(result[2] for result in results)


class _Net(nn.Module):
    """One member, or ``groups`` of them side by side, which see the same signal and not each other."""

    def __init__(self, config: Config, groups: int = 1) -> None:
        super().__init__()
        c, self.groups = config, groups
        if c.hop % c.stride or c.pool % c.stride or c.pool < c.hop or c.slow_kernel < c.hop:
            raise ValueError("hop and pool must be multiples of stride; pool and slow_kernel at least hop")
        filters, slow, dim = groups * c.filters, groups * c.slow, groups * c.dim
        self.sources = nn.Conv1d(c.n_chans, filters, 1, bias=False)
        self.filters = CausalConv1d(filters, filters, c.kernel, stride=c.stride, groups=filters, bias=False)
        self.filters_norm = nn.BatchNorm1d(filters)
        self.pool = CausalPool1d(2 * filters, c.pool // c.stride, c.hop // c.stride)
        self.topography = nn.Conv1d(c.n_chans, slow, 1, bias=False)
        self.slow = CausalConv1d(slow, slow, c.slow_kernel, stride=c.hop, groups=slow, bias=False)
        self.features_norm = nn.BatchNorm1d(2 * filters + slow)
        self.mix = nn.Conv1d(2 * filters + slow, dim, 1, groups=groups, bias=False)
        self.mix_norm = nn.BatchNorm1d(dim)
        self.blocks = nn.ModuleList(
            [ResidualConv(dim, c.frame_kernel, dilation, c.dropout, groups) for dilation in c.dilations]
        )
        self.head = nn.Conv1d(dim, groups * c.n_classes, 1, groups=groups)
        self.dropout = nn.Dropout(c.dropout)

    @property
    def _blocks(self) -> list[ResidualConv]:
        return [block for block in self.blocks if isinstance(block, ResidualConv)]

    @property
    def left_context(self) -> int:
        """Samples before a hop that its output depends on."""
        stride = self.filters.stride[0]
        fast = self.filters.left + self.pool.left * stride
        frames = sum(block.left for block in self._blocks)
        return max(fast, self.slow.left) + frames * self.slow.stride[0]

    def init_state(self, batch: int) -> NetState:
        """Return zeros: filters, pool, slow path, then one per block."""
        layers: list[Any] = [self.filters, self.pool, self.slow, *self._blocks]
        return tuple(layer.init_state(batch) for layer in layers)

    def forward(self, x: Tensor, state: NetState) -> tuple[Tensor, Tensor, NetState]:
        """Return logits (groups, B, T / hop, K), latent (B, T / hop, groups dim) and the new state."""
        features, new = self._features(x, state[:3])
        y = self.dropout(self.features_norm(features))
        y = self.dropout(F.elu(self.mix_norm(self.mix(y))))  # (B, dim, T / hop)
        for block, past in zip(self._blocks, state[3:], strict=True):
            y, past = block(y, past)
            new = (*new, past)
        logits = self.head(y).unflatten(1, (self.groups, -1)).permute(1, 0, 3, 2)
        return logits, y.transpose(1, 2), new

    def _features(self, x: Tensor, state: NetState) -> tuple[Tensor, NetState]:
        """Return each group's log power, mean and slow potentials, (B, groups (2 F + S), T / hop)."""
        z, filters = self.filters(self.sources(x), state[0])
        z = self.filters_norm(z)  # (B, F, T / stride)
        # The pool holds squares and ELUs, both zero in silence, so a zero state is the silent past.
        pooled, pool = self.pool(torch.cat([z.square(), F.elu(z)], dim=1), state[1])
        power, mean = pooled.chunk(2, dim=1)
        slow, past = self.slow(self.topography(x), state[2])  # (B, S, T / hop)
        each = [part.unflatten(1, (self.groups, -1)) for part in (torch.log(power + POWER_FLOOR), mean, slow)]
        return torch.cat(each, dim=2).flatten(1, 2), (filters, pool, past)
