"""The nets that the imagery model averages: `Front`, what each begins with, `Net` and `Course`.

Each takes ``groups`` for as many of them side by side, which see the same signal and not each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offline.blocks.conv import CausalConv1d, CausalPool1d, ResidualConv

if TYPE_CHECKING:
    from offline.models.motor_imagery import Config

NetState = tuple[Any, ...]
Said = tuple[Tensor, Tensor, NetState]
POWER_FLOOR = 1e-3  # of a unit-variance signal: keeps the log finite in silence


class Front(nn.Module):
    """Log power, mean and slow potentials of learned topographies, mixed; (B, C, T) -> (B, D, T / hop)."""

    def __init__(self, config: Config, pool: int, dropout: float, groups: int) -> None:
        super().__init__()
        c, self.groups = config, groups
        filters, slow = groups * c.filters, groups * c.slow
        self.sources = nn.Conv1d(c.n_chans, filters, 1, bias=False)
        self.filters = CausalConv1d(filters, filters, c.kernel, stride=c.stride, groups=filters, bias=False)
        self.filters_norm = nn.BatchNorm1d(filters)
        self.pool = CausalPool1d(2 * filters, pool // c.stride, c.hop // c.stride)
        self.topography = nn.Conv1d(c.n_chans, slow, 1, bias=False)
        self.slow = CausalConv1d(slow, slow, c.slow_kernel, stride=c.hop, groups=slow, bias=False)
        self.features_norm = nn.BatchNorm1d(2 * filters + slow)
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Conv1d(2 * filters + slow, groups * c.dim, 1, groups=groups, bias=False)
        self.mix_norm = nn.BatchNorm1d(groups * c.dim)

    @property
    def left_context(self) -> int:
        """Samples before a hop that its output depends on."""
        fast = self.filters.left + self.pool.left * self.filters.stride[0]
        return max(fast, self.slow.left)

    def init_state(self, batch: int) -> NetState:
        """Return zeros: filters, pool, slow path."""
        layers: list[Any] = [self.filters, self.pool, self.slow]
        return tuple(layer.init_state(batch) for layer in layers)

    def forward(self, x: Tensor, state: NetState) -> tuple[Tensor, NetState]:
        """Return the mixed features and the new state."""
        z, filters = self.filters(self.sources(x), state[0])
        z = self.filters_norm(z)  # (B, F, T / stride)
        # The pool holds squares and ELUs, both zero in silence, so a zero state is the silent past.
        pooled, pool = self.pool(torch.cat([z.square(), F.elu(z)], dim=1), state[1])
        power, mean = pooled.chunk(2, dim=1)
        slow, past = self.slow(self.topography(x), state[2])  # (B, S, T / hop)
        each = [part.unflatten(1, (self.groups, -1)) for part in (torch.log(power + POWER_FLOOR), mean, slow)]
        features = self.features_norm(torch.cat(each, dim=2).flatten(1, 2))
        return self.mix_norm(self.mix(self.dropout(features))), (filters, pool, past)


class Net(nn.Module):
    """A stack of dilated convolutions over frames: what is going on."""

    def __init__(self, config: Config, groups: int = 1) -> None:
        super().__init__()
        c, self.groups, dim = config, groups, groups * config.dim
        self.front = Front(c, c.pool, c.dropout, groups)
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
        return self.front.left_context + sum(block.left for block in self._blocks) * self.front.slow.stride[0]

    def init_state(self, batch: int) -> NetState:
        """Return zeros: of the front, then one per block."""
        return (*self.front.init_state(batch), *(block.init_state(batch) for block in self._blocks))

    def forward(self, x: Tensor, state: NetState) -> Said:
        """Return logits (groups, B, T / hop, K), latent (B, T / hop, groups dim) and the new state."""
        y, new = self.front(x, state[:3])
        y = self.dropout(F.elu(y))  # (B, dim, T / hop)
        for block, past in zip(self._blocks, state[3:], strict=True):
            y, past = block(y, past)
            new = (*new, past)
        logits = self.head(y).unflatten(1, (self.groups, -1)).permute(1, 0, 3, 2)
        return logits, y.transpose(1, 2), new


class _Reader(nn.Module, ABC):
    """What `Course` and `Courses` share: a front, and what is read from its frames."""

    def __init__(self, config: Config, groups: int) -> None:
        super().__init__()
        self.config, self.groups = config, groups
        self.front = Front(config, config.course_pool, 0.0, groups)
        self.dropout = nn.Dropout(config.course_dropout)

    @property
    def left_context(self) -> int:
        """Samples before a hop that its output depends on."""
        return self.front.left_context + (max(self.config.course) - 1) * self.config.hop

    def init_state(self, batch: int) -> NetState:
        """Return zeros: of the front, then the frames that are read again."""
        frames = self.front.mix.weight.new_zeros(
            batch, self.groups * self.config.dim, max(self.config.course) - 1
        )
        return (*self.front.init_state(batch), frames)

    def forward(self, x: Tensor, state: NetState) -> Said:
        """Return logits (groups, B, T / hop, K), latent (B, T / hop, groups lengths K) and the new state.

        The latent is what each length says, weighted; the logits are their sum.
        """
        y, new = self.front(x, state[:3])
        read, past = self._read(self.dropout(y), state[3])
        lengths = self.groups * len(self.config.course)
        read = read.reshape(x.shape[0], lengths, -1, read.shape[-1])  # (B, lengths, K + 1, T / hop)
        each = F.softplus(read[:, :, -1:]) * read[:, :, :-1]
        logits = torch.stack(each.chunk(self.groups, dim=1)).sum(dim=2).transpose(-1, -2)
        return logits, each.flatten(1, 2).transpose(1, 2), (*new, past)

    @abstractmethod
    def _read(self, y: Tensor, past: Tensor) -> tuple[Tensor, Any]:
        """Return what the lengths say of frames (B, groups dim, T / hop), and the frames to read again."""


class Course(_Reader):
    """The last frames, read at once by linear layers: how it came to this.

    There is a layer per length of ``course``.  Beside each, another tells how much is to be given to it now:
    what is right at one time after a cue is confidently wrong at the next.  Between a layer and the classes
    lie ``course_dim`` numbers, with nothing but linear maps on either side: more of them than classes change
    nothing in what can be said, but how it is learned.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, 1)
        c = config
        self.readers = nn.ModuleList([CausalConv1d(c.dim, c.course_dim, frames) for frames in c.course])
        self.weights = nn.ModuleList([CausalConv1d(c.dim, 1, frames) for frames in c.course])
        self.head = nn.Conv1d(len(c.course) * (c.course_dim + 1), c.n_classes, 1, bias=False)

    def composed(self) -> tuple[Tensor, Tensor]:
        """Return all its linear maps as one, weight (lengths (K + 1), dim, frames) and bias.

        Of each length, what it says of each class and how much is to be given to that.
        """
        weights, biases = [], []
        heads = torch.split(self.head.weight[..., 0], self.config.course_dim + 1, dim=1)
        for reader, weigher, head in zip(self.readers, self.weights, heads, strict=True):
            w, b = reader.get_parameter("weight"), reader.get_parameter("bias")
            both = torch.cat([torch.einsum("kc,cdn->kdn", head[:, :-1], w), weigher.get_parameter("weight")])
            weights.append(F.pad(both, (max(self.config.course) - both.shape[-1], 0)))
            biases += [head[:, :-1] @ b + head[:, -1], weigher.get_parameter("bias")]
        return torch.cat(weights), torch.cat(biases)

    def _read(self, y: Tensor, past: Tensor) -> tuple[Tensor, Any]:
        whole = torch.cat([past, y], dim=-1)
        weight, bias = self.composed()
        return F.conv1d(whole, weight, bias), whole[..., whole.shape[-1] - past.shape[-1] :]


class Courses(_Reader):
    """Several `Course` side by side, each with its maps in one: for export."""

    def __init__(self, config: Config, groups: int) -> None:
        super().__init__(config, groups)
        width = groups * len(config.course) * (config.n_classes + 1)
        self.maps = CausalConv1d(groups * config.dim, width, max(config.course), groups=groups)

    def _read(self, y: Tensor, past: Tensor) -> tuple[Tensor, Any]:
        read: tuple[Tensor, Any] = self.maps(y, past)
        return read
