"""What a read-out without a net gets to see of people in a cross-validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline.crossval.folds import People
from offline.crossval.recipe import Baseline, Edges, Modality, Site, Strengths
from offline.data.connectomes import to_triangles
from streamer.errors import ConfigError

TINY = 1e-6  # of a connectivity, which is at most 1

Features = NDArray[np.float32]


def features(model: Baseline, people: People) -> Features:
    """Return what a baseline sees of everybody, (n, p).

    Raises
    ------
    ConfigError
        Not everybody has connectomes of its modality.
    """
    if isinstance(model, Site):
        return _one_of(people.sites)
    edges = _edges(people, model.modality, model.name)  # (n, E, N, N)
    if isinstance(model, Edges):
        found = to_triangles(edges)
    elif isinstance(model, Strengths):
        found = edges.mean(axis=-1)
    else:
        triangles = to_triangles(edges)  # (n, E, P)
        found = np.stack([triangles.mean(axis=-1), np.log10(triangles.std(axis=-1) + TINY)], axis=-1)
    return found.reshape(len(found), -1)


def _edges(people: People, modality: Modality, name: str) -> NDArray[np.float32]:
    if modality not in people.edges:
        raise ConfigError(f"{name} needs connectomes of {modality} of everybody in the table: leave it out.")
    return people.edges[modality]


def _one_of(sites: tuple[str, ...]) -> Features:
    names = np.unique(sites)
    return np.asarray(np.array(sites)[:, None] == names, dtype=np.float32)
