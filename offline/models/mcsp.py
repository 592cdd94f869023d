"""MCSP's EEG branch as a streaming model (after arXiv:2409.19130; only its abstract is known).

::

    x (B, N, T) ─┬─ cross-spectra, remembered ─ edges (E, N, N) ─ graph encoder ──────────┐
                 ├─ causal convolutions per node ─ pool over nodes ─ now and remembered ──┤ latent (3 dim)
                 └─ log spectrum, remembered and newest, per node ─ pool over nodes ──────┘
                              every encoder is told the nodes' places

`Net` is a `offline.models.mcsp_branch.Branch` at one montage on the state contract: it carries the views
from hop to hop and embeds them at each, so that the newest latent is what the views of the whole recording
would give.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from offline.blocks.tower import Placed
from offline.models.brainrvq import BCI_IV_2A
from offline.models.mcsp_branch import DOMAINS, EEG, Branch, BranchConfig
from streamer.components import Config as BaseConfig

State = tuple[Any, ...]


class Config(BaseConfig):
    """Settings of the exported step.

    Attributes
    ----------
    ch_names : tuple of str
        Montage; training takes any, from the coordinates in its batches.
    stype : str
        ``EEG`` or ``EMG``: how names become places.
    branch : BranchConfig
    """

    kind: Literal["mcsp"] = "mcsp"
    ch_names: Annotated[tuple[str, ...], Field(min_length=1)] = BCI_IV_2A
    stype: Literal["EEG", "EMG"] = "EEG"
    branch: BranchConfig = EEG

    @model_validator(mode="after")
    def _streams(self) -> Config:
        if self.branch.edges != "per_band":
            raise ValueError("edges: full look at a whole segment and do not stream; use edges: per_band")
        return self

    @property
    def n_chans(self) -> int:
        """Channels of the exported step."""
        return len(self.ch_names)

    def build(self) -> Net:
        """Return the step for ``ch_names``, freshly initialised from torch's global generator."""
        return Net(self, self.branch.build())


SMALL = Config(
    branch=BranchConfig(
        bands=((5, 20), (20, 45)),
        hop=8,
        window=40,
        forget_s=0.2,
        nodes={},
        dim=16,
        layers=1,
        filters=4,
        width=8,
        kernel=5,
        strides=(2, 4),
        dilations=(1, 2),
    )
)


class Net(Placed):
    """A branch at one montage, on the state contract: (B, C, T) µV -> latent (B, T / hop, 3 dim).

    Attributes
    ----------
    hop, left_context, delay : int
        Samples; the memory reaches further back than ``left_context``.
    n_chans, n_latent : int
        C, and 3 dim: spatial, temporal, spectral.
    bounded, per_channel : bool
        It never quite forgets; its rows are montages.
    """

    bounded = False

    def __init__(self, config: Config, branch: Branch) -> None:
        super().__init__(config.ch_names, config.stype)
        self.config, self.branch = config, branch
        self.hop, self.n_latent = config.branch.hop, len(DOMAINS) * config.branch.dim
        self.left_context = max(branch.spectra.left, branch.temporal.convs.left)

    def with_channels(self, ch_names: tuple[str, ...], stype: str) -> Net:
        """Return this net for another montage; the weights are shared."""
        settings = self.config.model_dump() | {"ch_names": ch_names, "stype": stype}
        return Net(Config.model_validate(settings), self.branch).train(self.training)

    def init_state(self, batch: int) -> State:
        """Return the state before the first sample: zeros."""
        branch, n = self.branch, self.n_chans
        return branch.spectra.init_state(batch, n), branch.temporal.init_state(batch, n)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the latents of every completed hop of ``x`` and the new state."""
        branch = self.branch
        places = branch.places(self.get_buffer("positions")[None])  # (1, C, dim)
        x = x / self.config.branch.scale
        spectra, remembered = branch.spectra(x, state[0])
        profile = torch.cat([spectra.power, spectra.newest], dim=-1)  # (B, F, C, K)
        spatial = branch.spatial(spectra.edges.flatten(0, 1), places)  # (B F, dim)
        spectral = branch.spectral(profile.flatten(0, 1), places)
        temporal, course = branch.temporal(x, places, state[1])  # (B, F, dim)
        shape = temporal.shape
        latent = torch.cat([spatial.view(shape), temporal, spectral.view(shape)], dim=-1)
        return {"latent": latent}, (remembered, course)
