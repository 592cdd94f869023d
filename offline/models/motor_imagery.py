"""A compact causal net for imagined movement: where, which rhythm, how strong, since when.

::

    x (B, C, T) at 160 Hz
     ├─ spatio-temporal filters ─ power over the last pool_s, log ─┐
     │                          └ ELU, mean over the same time ────┤   (B, F, T / hop)
     └─ spatial filters, low-passed: the slow potentials ──────────┘
                 mix ─┬ dilated residual convolutions over frames ─ latent ─ logits    (members)
                      └ or linear layers over the last frames, weighted ─ latent ─ logits    (courses)

A filter is a topography and a band-pass of its own, both learned, so log power is what common spatial
patterns look at; filters free over channels and time alike overfit (validation subjects: .796 against .806).
The slow path keeps the sign that power throws away.  Several such nets, independent but for the batches
they are trained on, are averaged: cheaper than one larger net, and better on new people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, NonNegativeInt, model_validator
from torch import Tensor, nn

from offline.models.imagery_nets import Course, Courses, Net, NetState
from streamer.components import Config as BaseConfig

State = tuple[NetState, ...]

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Config(BaseConfig):
    """Settings of the net; lengths in samples at the model's rate unless said otherwise.

    Attributes
    ----------
    n_chans, n_classes : int
    hop : int
        Samples per decision.
    members : int
        Nets with convolutions over frames, which are averaged,
    courses : int
        and nets beside them that read the last frames at once.
    filters, kernel : int
        Topographies, each with a temporal filter of this length.
    stride : int
        Step of the filters; ``hop`` and ``pool`` are multiples of it.
    pool : int
        Length of the power estimate.
    slow, slow_kernel : int
        Slow spatial filters and the length of their low-pass.
    dim : int
        Width over frames.
    frame_kernel : int
        Taps of each convolution over frames.
    dilations : tuple of int
        One residual convolution each, frames.
    dropout : float
    course : tuple of int
        How many frames are read at once; a linear layer each.
    course_pool, course_dim : int
        Length of the power estimate there, and numbers between a layer and the classes.
    course_dropout : float
        Of the frames.
    """

    kind: Literal["motor_imagery"] = "motor_imagery"
    n_chans: Count = 22
    n_classes: Annotated[int, Field(ge=2)] = 3
    hop: Count = 10
    members: Count = 1
    courses: NonNegativeInt = 0
    filters: Count = 32
    kernel: Count = 64
    stride: Count = 2
    pool: Count = 60
    slow: Count = 16
    slow_kernel: Count = 20
    dim: Count = 48
    frame_kernel: Count = 4
    dilations: tuple[Count, ...] = (1, 2, 4)
    dropout: Share = 0.4
    course: Annotated[tuple[Count, ...], Field(min_length=1)] = (44, 28)
    course_pool: Count = 80
    course_dim: Count = 8
    course_dropout: Share = 0.5

    @model_validator(mode="after")
    def _fits(self) -> Self:
        pools = [self.pool, *([self.course_pool] if self.courses else [])]
        if any(length % self.stride for length in (self.hop, *pools)):
            raise ValueError(f"hop {self.hop} and pools {pools} must be multiples of stride {self.stride}")
        if min(*pools, self.slow_kernel) < self.hop:
            shortest = f"pools {pools} and slow_kernel {self.slow_kernel}"
            raise ValueError(f"{shortest} must be at least hop {self.hop}")
        return self

    def build(self) -> MotorImagery:
        """Return the net, freshly initialised from torch's global generator."""
        return MotorImagery(self)


class MotorImagery(nn.Module):
    """The mean of its nets; (B, C, T) -> logits (B, T / hop, n_classes), latent (B, T / hop, D).

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.
    n_latent : int
        D; the logits are linear in the latent.
    personal : tuple of str
        Names of the layers that differ between heads, for `offline.personal.filters`.
    """

    personal = ("sources", "topography")

    def __init__(self, config: Config) -> None:
        super().__init__()
        c, self.config, self.hop = config, config, config.hop
        self.members = nn.ModuleList([Net(c) for _ in range(c.members)])
        self.courses = nn.ModuleList([Course(c) for _ in range(c.courses)])
        self.left_context = max(net.left_context for net in self._nets)
        self.delay = 0
        self.n_latent = c.members * c.dim + c.courses * len(c.course) * c.n_classes

    @property
    def _nets(self) -> list[Net | Course | Courses]:
        return [net for net in (*self.members, *self.courses) if isinstance(net, Net | Course | Courses)]

    def fused(self) -> MotorImagery:
        """Return the same model with its nets of a kind side by side in every layer, for export.

        Fewer operations: at the pace of a live session, whose caches are cold, a step of four members took
        0.6 ms instead of 0.87.
        """
        c, model = self.config, MotorImagery(self.config)
        whole = Net(c, c.members)
        whole.load_state_dict(_joined([net.state_dict() for net in self.members]))
        model.members = nn.ModuleList([whole])
        if c.courses:
            courses = [net for net in self.courses if isinstance(net, Course)]
            side_by_side = Courses(c, c.courses)
            side_by_side.front.load_state_dict(_joined([net.front.state_dict() for net in courses]))
            composed = [dict(zip(("weight", "bias"), net.composed(), strict=True)) for net in courses]
            side_by_side.maps.load_state_dict(_joined(composed))
            model.courses = nn.ModuleList([side_by_side])
        return model.train(self.training)

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: zeros."""
        return tuple(net.init_state(batch) for net in self._nets)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the outputs for every completed hop of ``x`` (B, C, T) and the new state."""
        each, latent, state = self.forward_members(x, state)
        return {"logits": each.mean(dim=0), "latent": latent}, state

    def forward_members(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return each net's logits, members first, (M, B, T / hop, n_classes), the latents and the state."""
        results = [net(x, past) for net, past in zip(self._nets, state, strict=True)]
        logits = torch.cat([result[0] for result in results])
        latent = torch.cat([result[1] for result in results], dim=-1)  # (B, T / hop, D)
        return logits, latent, tuple(result[2] for result in results)


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the weights of grouped layers from those of each group's."""
    return {
        name: torch.cat([part[name] for part in parts]) if value.ndim else value
        for name, value in parts[0].items()
    }


SMALL = Config(
    n_chans=6, members=2, courses=2, filters=8, slow=4, dim=8, dilations=(1, 2), course=(7, 3), course_dim=4
)
