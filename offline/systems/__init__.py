"""Pretraining systems: one module per kind, each a model with its losses on unlabelled segments.

`offline.pretrain` drives any of them; `offline.export` writes their parts as step graphs.  What a system
draws at random comes from ``batch.keys`` (per row) or from ``at`` (per step) and from nothing else, so a
resumed run, or one spread over several processes, draws the same.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor, nn

from streamer.components import Config
from streamer.errors import ConfigError

if TYPE_CHECKING:
    from offline.data.subjects import SubjectSet


class Group(NamedTuple):
    """Rows of one modality over one set of nodes, that stand beside a batch of segments.

    Attributes
    ----------
    modality : str
        ``eeg`` or ``fmri``.
    nodes : str
        Name of the set of nodes: an atlas (``desikan68``), whose regions are told apart by their place in it.
    signal : Tensor, shape (B, N, T), float32, or None
        One time series per node.
    edges : Tensor, shape (B, E, N, N), float32, or None
        Connectivity in E bands; symmetric, zero on the diagonal.
    subjects : Tensor, shape (B,), int64
        Who: the same number in two groups is the same person.
    keys : Tensor, shape (B,), int64
        As in `Segments`.
    """

    modality: str
    nodes: str
    signal: Tensor | None
    edges: Tensor | None
    subjects: Tensor
    keys: Tensor


class Segments(NamedTuple):
    """A batch of unlabelled signal, all rows of one montage.

    Attributes
    ----------
    x : Tensor, shape (B, C, T), float32, µV
        Behind the DSP list of the corpus.
    positions : Tensor, shape (B, C, 3), float32
        Electrode coordinates on a head of radius 1 (x right, y front, z up); NaN where unknown.
    keys : Tensor, shape (B,), int64
        One seed per row: what is random about a row is drawn from it.
    subjects : Tensor, shape (B,), int64, or None
        Whose row it is, where that is known.
    groups : tuple of Group
        What else the step learns from, where a recipe names subject tables.
    """

    x: Tensor
    positions: Tensor
    keys: Tensor
    subjects: Tensor | None = None
    groups: tuple[Group, ...] = ()

    def rng(self, row: int) -> np.random.Generator:
        """Return the generator of one row, freshly seeded."""
        return np.random.default_rng(int(self.keys[row]))


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a training stands: ``step`` of ``steps``; ``seed`` is the recipe's."""

    step: int
    steps: int
    seed: int

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        return self.step / max(self.steps, 1)

    def rng(self) -> np.random.Generator:
        """Return the generator of this step: the same on every process."""
        return np.random.default_rng((self.seed, self.step))


class System(nn.Module, ABC):
    """A model under pretraining."""

    @abstractmethod
    def loss(self, batch: Segments, at: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss to minimise (scalar: the mean over rows of one loss per row) and figures to log."""

    @abstractmethod
    def begin_validation(self) -> None:
        """Forget the figures collected so far."""

    @abstractmethod
    def validate(self, batch: Segments) -> None:
        """Collect figures from one batch, in eval mode, without gradients."""

    @abstractmethod
    def end_validation(self) -> dict[str, float]:
        """Return the figures over every batch since `begin_validation`; lower-case names, one is ``loss``."""

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """Return what can be exported, by name (``tokenizer``, ``decoder``, ``backbone``).

        Each is a model on the state contract of `offline.models`, in eval mode.
        """


class SystemConfig(Config, ABC):
    """Base of the blocks under ``system:`` of a pretraining recipe."""

    kind: str

    @abstractmethod
    def build(self, sfreq: float) -> System:
        """Return the system, freshly initialised from torch's global generator, for segments at this rate."""

    def check_people(self, people: SubjectSet | None) -> None:
        """Raise `ConfigError` where the people of ``data.tables`` (None: no tables) are of no use to it."""
        if people is not None:
            raise ConfigError(
                f"The system {self.kind} learns from shards alone: leave out data.tables, or take another."
            )

    def inherited(self) -> dict[str, tuple[str, ...]]:
        """Return fingerprints, by group, of the recordings behind trained weights it builds on."""
        return {}


def kinds() -> dict[str, ModuleType]:
    """Return the modules that hold a system (they have a ``Config``), by kind."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in found.items() if hasattr(module, "Config")}
