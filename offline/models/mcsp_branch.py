"""MCSP's encoders of one modality, with three views (after arXiv:2409.19130; only its abstract is known).

A `Branch` works on any set of nodes: electrodes by their coordinates, regions by the learned table of their
atlas.  What it sees of a recording is a *view* per domain, made without weights, which training may alter;
what it makes of a view is an embedding.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from offline.blocks.bands import Band
from offline.blocks.cross_spectrum import Connectivity, CrossSpectrum, correlation
from offline.blocks.domains import SpectralEncoder, TemporalEncoder
from offline.blocks.electrodes import ElectrodeEmbedding
from offline.blocks.graph import GraphEncoder
from offline.blocks.node_conv import NodeConv
from streamer.components import Config as BaseConfig
from streamer.errors import ConfigError

Domain = Literal["spatial", "temporal", "spectral"]
DOMAINS: tuple[Domain, ...] = ("spatial", "temporal", "spectral")
Views = dict[Domain, Tensor]


class BranchConfig(BaseConfig):
    """Settings of one modality's encoders; the defaults are for EEG at 200 Hz, `FMRI` for series of regions.

    Attributes
    ----------
    sfreq : float
        Hz; of regions, one over the repetition time.
    bands : tuple of (low, high)
        Hz.
    hop, window : int
        Samples per frame, and of the windows that are transformed.
    forget_s : float
        Time constant of what is remembered: connectivity, spectrum and the temporal embedding.
    connectivity : str
        ``imaginary`` (coherence) or ``correlation``, see `offline.blocks.cross_spectrum`.
    edges : str
        ``per_band``; or ``full``, the correlation over a whole segment, which does not stream.
    scale : float
        What the signal is divided by, in its unit.
    nodes : mapping of str to int
        Atlases: how many regions each has.
    dim, layers : int
        Width of places and embeddings; rounds of messages of the graph encoder.
    filters, width : int
        Of the convolutions: at the signal's rate and at frame rate.
    kernel : int
        Samples of the first convolution.
    strides : tuple of int
        Steps of the first two convolutions, whose product is the hop.
    dilations : tuple of int
        Of the convolutions over frames.
    dropout : float
    """

    sfreq: PositiveFloat = 200.0
    bands: Annotated[tuple[Band, ...], Field(min_length=1)] = ((1, 4), (4, 8), (8, 13), (13, 30), (30, 45))
    hop: PositiveInt = 40
    window: PositiveInt = 200
    forget_s: PositiveFloat = 10.0
    connectivity: Connectivity = "imaginary"
    edges: Literal["per_band", "full"] = "per_band"
    scale: PositiveFloat = 10.0
    nodes: dict[str, PositiveInt] = Field(default_factory=lambda: {"desikan68": 68})
    dim: PositiveInt = 64
    layers: PositiveInt = 2
    filters: PositiveInt = 16
    width: PositiveInt = 32
    kernel: PositiveInt = 25
    strides: tuple[PositiveInt, PositiveInt] = (5, 8)
    dilations: tuple[PositiveInt, ...] = (1, 2, 4)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _fits(self) -> BranchConfig:
        if math.prod(self.strides) != self.hop:
            raise ValueError(f"the product of strides {self.strides} must be the hop, {self.hop}")
        if self.window < self.hop or self.kernel < self.strides[0]:
            raise ValueError(
                f"no sample may be skipped: window ({self.window}) must be at least the hop ({self.hop}), "
                f"kernel ({self.kernel}) at least the first stride ({self.strides[0]})"
            )
        if self.edges == "full" and self.connectivity != "correlation":
            raise ValueError("edges: full are correlations; set connectivity: correlation")
        return self

    @property
    def n_bands(self) -> int:
        """Values per edge, E."""
        return len(self.bands) if self.edges == "per_band" else 1

    def build(self) -> Branch:
        """Return the encoders, freshly initialised from torch's global generator."""
        return Branch(self)


EEG = BranchConfig()
FMRI = BranchConfig(
    sfreq=0.5,
    bands=((0.01, 0.027), (0.027, 0.073), (0.073, 0.2)),  # slow-5, slow-4, and what is above
    hop=4,
    window=32,
    forget_s=300.0,
    connectivity="correlation",
    edges="full",
    scale=1.0,
    nodes={"desikan68": 68, "aal116": 116},
    kernel=5,
    strides=(2, 2),
)


class Branch(nn.Module):
    """The encoders of one modality, for any set of nodes.

    Attributes
    ----------
    frequencies : tuple of float
        Hz, of the columns of a signal's spectral view: those of the remembered spectrum, then the centres of
        the bands of the newest window.
    """

    def __init__(self, config: BranchConfig) -> None:
        super().__init__()
        c = self.config = config
        self.spectra = CrossSpectrum(c.bands, c.sfreq, c.hop, c.window, c.forget_s, c.connectivity)
        self.frequencies = (*self.spectra.frequencies, *(sum(band) / 2 for band in c.bands))
        self.electrodes = ElectrodeEmbedding(c.dim)
        self.regions = nn.ModuleDict({name: nn.Embedding(n, c.dim) for name, n in c.nodes.items()})
        self.place_norm = nn.LayerNorm(c.dim)
        self.spatial = GraphEncoder(c.dim, c.n_bands, c.layers, c.dropout)
        convs = NodeConv(c.filters, c.width, c.kernel, c.strides, c.dilations)
        self.temporal = TemporalEncoder(convs, c.dim, c.forget_s * c.sfreq / c.hop, c.dropout)
        self.spectral = SpectralEncoder(c.dim, len(self.frequencies), c.n_bands, c.dropout)

    def places(self, positions: Tensor | None = None, nodes: str = "") -> Tensor:
        """Return the place of each node, (B or 1, N, dim).

        Parameters
        ----------
        positions : Tensor, shape (B or 1, N, 3), optional
            Of electrodes; looked at where ``nodes`` names no atlas.
        nodes : str
        """
        if nodes in self.regions:
            return self.place_norm(self.regions[nodes].weight)[None]  # type: ignore[no-any-return]
        if positions is None:
            raise ConfigError(
                f"No places for the nodes {nodes!r}: the branch knows {sorted(self.regions)}, and electrodes "
                "by their coordinates. Add the atlas and its number of regions to the branch's `nodes`."
            )
        return self.place_norm(self.electrodes(positions))  # type: ignore[no-any-return]

    @torch.no_grad()
    def views_of_signal(self, x: Tensor) -> Views:
        """Return what a stream that has run through ``x`` (B, N, T) knows at its last frame, per domain.

        Samples at the start that do not fill a hop are left out.  Nothing is learned here and nothing needs
        gradients; always float32.

        Returns
        -------
        dict
            ``spatial`` (B, E, N, N), connectivity; ``temporal`` (B, N, T), the signal itself; ``spectral``
            (B, N, K), log10 powers at `frequencies`.
        """
        c = self.config
        if x.shape[-1] < c.hop:
            raise ConfigError(
                f"A segment of {x.shape[-1]} samples is shorter than the branch's hop of {c.hop}: make "
                "segments longer."
            )
        x = x[..., x.shape[-1] % c.hop :].float()
        with torch.autocast(x.device.type, enabled=False):
            spectra = self.spectra.last(x / c.scale)
        edges = correlation(x) if c.edges == "full" else spectra.edges[:, 0]
        spectral = torch.cat([spectra.power, spectra.newest], dim=-1)[:, 0]
        return {"spatial": edges, "temporal": x, "spectral": spectral}

    def views_of_edges(self, edges: Tensor) -> Views:
        """Return the views of a recording of which only the connectivity (B, E, N, N) is known.

        Beside it stands, for more than one band, its profile over bands: the strength (B, N, E) of each node.
        """
        if edges.shape[1] != self.config.n_bands:
            raise ConfigError(
                f"Connectivity in {edges.shape[1]} bands came to a branch of {self.config.n_bands}: set its "
                "`bands` (or `edges: full` for one) to those of the data."
            )
        if edges.shape[1] == 1:
            return {"spatial": edges}
        return {"spatial": edges, "spectral": edges.mean(dim=-1).transpose(1, 2)}

    def encode(self, domain: Domain, view: Tensor, places: Tensor) -> Tensor:
        """Return the embedding (B, dim) of one view, of a signal or of edges, of nodes at ``places``."""
        if domain == "spatial":
            return self.spatial(view, places)  # type: ignore[no-any-return]
        if domain == "spectral":
            return self.spectral(view, places)  # type: ignore[no-any-return]
        latents, _ = self.temporal(
            view / self.config.scale, places, self.temporal.init_state(*view.shape[:2])
        )
        return latents[:, -1]  # type: ignore[no-any-return]
