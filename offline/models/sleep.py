"""A small causal net that stages sleep: what the present epoch sounds like, and what the night was so far.

::

    x (B, C, T) µV, an epoch per hop
     └─ its first look_s ─ log power in bands of 2-s windows ─ standardise over people ─┬───────────────┐
                                                        └ standardise over this night ──┤ (B, F, 2 D)   │
                            latent = [present, memory] ─ logits      present = mix ─────┴─ GRU ─ memory ┘

A stage is named from its neighbours as much as from its epoch; of those only the past ones are there live.
The scale of a person's waves differs by a factor of two between people, so every feature is given twice, the
second time relative to what the night has shown up to now.  Several such memories, independent but for the
batches they are trained on, are averaged.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from offline.blocks.log_bands import LogBands
from offline.blocks.running_norm import RunningNorm
from streamer.components import Config as BaseConfig

State = tuple[Any, ...]

Count = Annotated[int, Field(ge=1)]
# Fine where sleep differs (slow waves, theta, alpha, spindles), coarse above; 0.5 Hz is the first bin of 2 s.
EDGES = (0.4, 1.1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 20, 24, 28, 33, 40)


class Config(BaseConfig):
    """Settings of the net.

    Attributes
    ----------
    n_chans, n_classes : int
    sfreq : float
        Hz.
    hop : int
        Samples per decision: an epoch of 30 s.
    look_s : float
        How much of an epoch is looked at, from its beginning, s.
    window_s, step_s : float
        Length of a window of the spectrum, and distance between two, s.
    edges : tuple of float
        Borders of the bands, Hz.
    prior : float
        Epochs that the population counts for beside those of the night.
    members : int
        Memories that are averaged.
    dim : int
        Width of one; the latents of all side by side are ``2 * members * dim`` wide.
    dropout, drop_features : float
        Of the memory's input and output; of the features.
    """

    kind: Literal["sleep"] = "sleep"
    n_chans: Count = 1
    n_classes: Annotated[int, Field(ge=2)] = 5
    sfreq: PositiveFloat = 100.0
    hop: Count = 3000
    look_s: PositiveFloat = 5.0
    window_s: PositiveFloat = 2.0
    step_s: PositiveFloat = 0.5
    edges: Annotated[tuple[PositiveFloat, ...], Field(min_length=2)] = EDGES
    prior: PositiveFloat = 20.0
    members: Count = 1
    dim: Count = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4
    drop_features: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def build(self) -> Sleep:
        """Return the net, freshly initialised from torch's global generator."""
        return Sleep(self)


class Sleep(nn.Module):
    """(B, C, T) µV -> logits (B, T / hop, n_classes), latent (B, T / hop, n_latent).

    Attributes
    ----------
    hop, left_context, delay : int
        Samples.  The context is that of the present epoch; what the night was before is in the state.
    bounded : bool
        False: no number of epochs is enough to reproduce the state.
    n_latent : int
        ``2 * members * dim``; the logits are linear in it.

    Raises
    ------
    ValueError
        An epoch is shorter than ``look_s``, or that shorter than two windows.
    """

    bounded = False
    left_context = 0
    delay = 0

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.config, self.hop = c, c.hop
        self.look, window, step = (round(s * c.sfreq) for s in (c.look_s, c.window_s, c.step_s))
        if self.look > c.hop or self.look < window + step:
            raise ValueError(
                f"look_s {c.look_s:g} must be at least {c.window_s + c.step_s:g} s, two windows, and at most "
                f"the {c.hop / c.sfreq:g} s of a hop"
            )
        self.bands = LogBands(c.n_chans, c.sfreq, window, step, c.edges)
        n = self.bands.n_features
        self.population = nn.BatchNorm1d(n, affine=False)
        self.night = RunningNorm(n, c.prior)
        self.members = nn.ModuleList([_Member(2 * n, c) for _ in range(c.members)])
        self.n_latent = 2 * c.members * c.dim

    @property
    def _nets(self) -> list[_Member]:
        return [net for net in self.members if isinstance(net, _Member)]

    def init_state(self, batch: int) -> State:
        """Return the state before the first epoch: zeros."""
        return self.night.init_state(batch), tuple(net.init_state(batch) for net in self._nets)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the outputs for every epoch of ``x`` (B, C, T) and the new state."""
        each, latent, state = self.forward_members(x, state)
        return {"logits": each.mean(dim=0), "latent": latent}, state

    def forward_members(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Return the logits of each member (M, B, T / hop, n_classes), the latents and the new state."""
        features, night = self._features(x, state[0])
        results = [net(features, past) for net, past in zip(self._nets, state[1], strict=True)]
        logits = torch.stack([result[0] for result in results])
        latent = torch.cat([result[1] for result in results], dim=-1)  # (B, F, n_latent)
        return logits, latent, (night, tuple(result[2] for result in results))

    def _features(self, x: Tensor, night: Any) -> tuple[Tensor, Any]:
        """Return each epoch's features relative to people and to this night, (B, F, 2 D)."""
        batch, n_chans, _ = x.shape
        looks = x.reshape(batch, n_chans, -1, self.hop)[..., : self.look]
        looks = looks.transpose(1, 2).flatten(0, 1)  # (B F, C, look)
        features = self.population(self.bands(looks)).reshape(batch, -1, self.bands.n_features)
        own, night = self.night(features, night)
        return torch.cat([features, own], dim=-1), night


class _Member(nn.Module):
    """One memory over epochs."""

    def __init__(self, n_features: int, config: Config) -> None:
        super().__init__()
        self.dim = config.dim
        self.drop_features = nn.Dropout(config.drop_features)
        self.mix = nn.Linear(n_features, config.dim)
        self.norm = nn.BatchNorm1d(config.dim)
        self.gru = nn.GRU(config.dim, config.dim, batch_first=True)
        self.head = nn.Linear(2 * config.dim, config.n_classes)
        self.dropout = nn.Dropout(config.dropout)

    def init_state(self, batch: int) -> Tensor:
        """Return an empty memory, (B, dim)."""
        return self.head.weight.new_zeros(batch, self.dim)

    def forward(self, features: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, F, n_classes), latent (B, F, 2 dim) and the new memory."""
        mixed = self.mix(self.drop_features(features)).transpose(1, 2)  # (B, dim, F)
        present = self.dropout(F.elu(self.norm(mixed))).transpose(1, 2)
        past, last = self.gru(present, memory[None].contiguous())
        latent = torch.cat([present, past], dim=-1)
        return self.head(self.dropout(latent)), latent, last[0]


SMALL = Config(
    hop=60, sfreq=20, look_s=3.0, window_s=1.0, edges=(1, 3, 6, 9), n_chans=2, n_classes=3, members=2, dim=8
)
