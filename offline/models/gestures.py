"""Gestures from an armband of electrodes round the forearm, whoever wears it and however it is turned.

::

    x (B, C, T) µV ─ short filters, the same for every electrode ─ power over 200 ms ─┐
                   └ products of neighbours over 250 ms: how alike they are ──────────┤  on a ring, per hop
    running means of those: what is usual for this person ────────────────────────────┤
                                            │                                         │
         orientation: which electrode is where, from what is usual alone              │
                                            └──── the ring turned upright ────────────┘
                         circular convolutions over electrodes ─ latent ─ logits ─┐
    each electrode over its own running mean and SD ─ two layers ─ latent ─ logits ─ weighted mean

Decisions are made from the last 250 ms, set against a slow running mean of the same person's signal, which
takes the place of a calibration: it begins with the first hop, live as in training.

People wear the same armband turned by an electrode or two, and on the other arm, which mirrors it; a turn by
one electrode costs a net that does not know of it a third of its answers.  Which way it sits shows in what is
usual for a person, without any label: a small net scores all 2 C orientations of those running means, and the
ring is turned by the mean of the orientations, weighted by their scores.  It is learned from the loss of the
gestures alone, on armbands turned at random.

What serves everybody serves those less whose armband sits as it should: for them two layers on standardised
features, learned from armbands as they sit, are better.  Nets of this second kind are weighted by how sure
the first are that the armband sits as usual (``bcitrain benchmark configs/benchmark_gestures_cote.yaml``).

Features: Hudgins, Parker and Scott, IEEE Trans. Biomed. Eng. 40(1), 1993, as filters that are learned on from
amplitude, slope and curvature.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from offline.blocks.running import RunningStandard
from offline.models.armband import LAGS, POWER_FLOOR, TURNS, Orientation, Ring, Signal, Trunk
from streamer.components import Config as BaseConfig

NetState = tuple[Any, ...]
State = tuple[NetState, ...]

Share = Annotated[float, Field(ge=0, le=1)]


class Config(BaseConfig):
    """Settings; lengths in samples at the model's rate unless said otherwise.

    Attributes
    ----------
    n_chans, n_classes : int
        Electrodes, in the order in which they lie round the arm.
    hop : int
        Samples per decision.
    members : int
        Nets that search for the orientation and are averaged; each learns as if it were alone.
    upright : int
        Nets beside them that take it for granted.
    upright_share : float
        Of the mean of all, where the orientation is surely the usual one; less where it is less sure.
    turned : float
        Share of crops that sit turned by any number of electrodes while the searching nets learn.
    other_arm : float
        Share of crops that lie on the other arm for them.
    unit_uv : float
        µV that are one unit inside the net.
    filters, taps : int
        Temporal filters, the same for every electrode, and their length.
    pool, products : int
        Hops over which power, and products of neighbours, are averaged.
    memory, scale_memory : int
        Hops after which what is usual for a person has forgotten most of what was: for the search, and for
        the mean and the SD that the upright nets divide by.
    dim : int
        Width over the ring.
    latent : int
        What a member's head reads.
    dropout : float
    """

    kind: Literal["gestures"] = "gestures"
    n_chans: PositiveInt = 8
    n_classes: Annotated[int, Field(ge=2)] = 6
    hop: PositiveInt = 10
    members: PositiveInt = 1
    upright: NonNegativeInt = 0
    upright_share: Share = 0.5
    turned: Share = 0.0
    other_arm: Share = 0.0
    unit_uv: PositiveFloat = 100.0
    filters: Annotated[int, Field(ge=2)] = 4
    taps: PositiveInt = 11
    pool: PositiveInt = 4
    products: PositiveInt = 5
    memory: PositiveInt = 1200
    scale_memory: PositiveInt = 400
    dim: PositiveInt = 32
    latent: PositiveInt = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3

    @model_validator(mode="after")
    def _is_a_ring(self) -> Self:
        if self.n_chans <= max(TURNS):
            raise ValueError(f"n_chans {self.n_chans} is no ring: at least {max(TURNS) + 1} electrodes")
        return self

    def build(self) -> Gestures:
        """Return the net, freshly initialised from torch's global generator."""
        return Gestures(self)


class Gestures(nn.Module):
    """The mean of ``members`` nets; x (B, C, T) µV -> logits (B, T / hop, K), latent (B, T / hop, D).

    Attributes
    ----------
    hop, left_context, delay : int
        Samples; of the fast path.  Beside it there is a memory: the model is not ``bounded``.
    n_latent : int
        D.
    """

    bounded = False
    delay = 0
    # Of parity with the exported step: what is usual is divided by its spread, and a softmax picks the
    # orientation: 1e-5 of the latent on signals, 6e-4 where all electrodes are all but silent (1 µV).
    tolerance = 1e-3

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.hop = config, config.hop
        self.members = nn.ModuleList([_Net(config) for _ in range(config.members)])
        self.upright = nn.ModuleList([_Upright(config) for _ in range(config.upright)])
        reach = (max((config.pool * config.hop) + config.taps - 1, config.products * config.hop)) - config.hop
        self.left_context = reach
        self.n_latent = (config.members + config.upright) * config.latent + bool(config.upright)

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: zeros."""
        nets: list[_Net | _Upright] = [*self._nets, *self._plain]
        return tuple(net.init_state(batch) for net in nets)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the outputs for every hop of ``x`` (B, C, T) and the new state."""
        searched = [net(x, past) for net, past in zip(self._nets, state, strict=False)]
        each, latents, new, sure = zip(*searched, strict=True)
        logits = torch.stack(each).mean(dim=0)
        if not self._plain:
            return {"logits": logits, "latent": torch.cat(latents, dim=-1)}, new
        taken = [net(x, past) for net, past in zip(self._plain, state[len(searched) :], strict=True)]
        others, more, after = zip(*taken, strict=True)
        share = self.config.upright_share * torch.stack(sure).mean(dim=0)[..., None]  # (B, F, 1)
        logits = (1 - share) * logits + share * torch.stack(others).mean(dim=0)
        # Weighted, and with the weight itself, so that the logits are linear in them.
        weighted = [*((1 - share) * one for one in latents), *(share * one for one in more), share]
        return {"logits": logits, "latent": torch.cat(weighted, dim=-1)}, (*new, *after)

    def forward_members(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the logits of each net (M, B, F, K), as it learns from them, and the new state."""
        turned = self._turned(x)
        results = [net(turned, past) for net, past in zip(self._nets, state, strict=False)]
        taken = [net(x, past) for net, past in zip(self._plain, state[len(results) :], strict=True)]
        every = [*(result[0] for result in results), *(result[0] for result in taken)]
        return torch.stack(every), tuple(result[2] for result in [*results, *taken])

    def _turned(self, x: Tensor) -> Tensor:
        """Return the crops, some as of armbands that sit otherwise."""
        c, n = self.config, len(x)
        turns = torch.randint(c.n_chans, (n,)) * (torch.rand(n) < c.turned)
        places = (torch.arange(c.n_chans) - turns[:, None]) % c.n_chans  # (B, C)
        mirrored = (torch.rand(n) < c.other_arm)[:, None]
        places = torch.where(mirrored, c.n_chans - 1 - places, places).to(x.device)
        return x.gather(1, places[..., None].expand_as(x))

    @property
    def _nets(self) -> list[_Net]:
        return [net for net in self.members if isinstance(net, _Net)]

    @property
    def _plain(self) -> list[_Upright]:
        return [net for net in self.upright if isinstance(net, _Upright)]


class _Net(nn.Module):
    """One member."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ring = Ring(config)
        self.orientation = Orientation(config, self.ring.n_usual)
        self.trunk = Trunk(config, self.ring.n_now)
        self.head = nn.Linear(config.latent, config.n_classes)

    def init_state(self, batch: int) -> NetState:
        """Return zeros."""
        return self.ring.init_state(batch)

    def forward(self, x: Tensor, state: NetState) -> tuple[Tensor, Tensor, NetState, Tensor]:
        """Return logits (B, F, K), latent (B, F, D), the new state and how sure it sits as usual (B, F)."""
        now, usual, state = self.ring(x, state)
        batch, frames = now.shape[:2]
        now, usual = now.flatten(0, 1), usual.flatten(0, 1)  # (B F, ., C)
        upright, sure = self.orientation(now, usual)
        latent = self.trunk(upright).view(batch, frames, -1)
        return self.head(latent), latent, state, sure.view(batch, frames)


class _Upright(nn.Module):
    """A net for an armband that sits as usual: each electrode against its own running mean and SD."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.signal = Signal(config)
        rows = c.n_chans * (c.filters + len(LAGS))
        self.scale = RunningStandard(rows, c.scale_memory)
        self.first, self.second = nn.Linear(rows, 96), nn.Linear(96, c.latent)
        self.first_norm, self.second_norm = nn.BatchNorm1d(96), nn.BatchNorm1d(c.latent)
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(c.latent, c.n_classes)

    def init_state(self, batch: int) -> NetState:
        """Return zeros."""
        return (*self.signal.init_state(batch), self.scale.init_state(batch))

    def forward(self, x: Tensor, state: NetState) -> tuple[Tensor, Tensor, NetState]:
        """Return logits (B, F, K), latent (B, F, D) and the new state."""
        energy, alike, new = self.signal(x, state[:3])
        level = torch.log(energy + POWER_FLOOR)
        z, memory = self.scale(torch.cat([level, alike], dim=1).flatten(1, 2), state[3])
        batch, _, frames = z.shape
        y = z.transpose(1, 2).flatten(0, 1)  # (B F, D)
        y = self.dropout(F.elu(self.first_norm(self.first(y))))
        y = self.dropout(F.elu(self.second_norm(self.second(y))))
        latent = y.view(batch, frames, -1)
        return self.head(latent), latent, (*new, memory)


SMALL = Config(
    n_chans=5, n_classes=3, hop=4, unit_uv=1.0, filters=2, taps=5, pool=2, products=3, members=2, upright=1,
    dim=4, latent=6,
)  # fmt: skip
