"""Connectomes: how strongly each pair of an atlas's regions is connected, in one band or several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offline.data import array_file
from streamer.errors import RecordingError

SUFFIXES = (".npy", ".npz", ".csv", ".tsv")
ASYMMETRY = 1e-4  # of the largest edge: what rounding to a few digits leaves
LARGEST = float(np.finfo(np.float32).max)

Modality = Literal["eeg", "fmri"]
MODALITIES: tuple[Modality, ...] = ("eeg", "fmri")
Edges = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Connectome:
    """One person's, as read.

    Attributes
    ----------
    edges : ndarray, shape (E, N, N), float32
        One matrix per band, symmetric with a diagonal of zeros.
    """

    subject: str
    modality: Modality
    edges: Edges
    label: str
    site: str


def read_matrix(path: Path) -> Edges:
    """Return the connectome of a file that holds one: (N, N), or one such matrix per band, (E, N, N).

    Returns
    -------
    ndarray, shape (E, N, N), float32
        Symmetric; whatever was on the diagonal is zero.

    Raises
    ------
    RecordingError
        The file is not there or damaged, or its matrix is not square, symmetric and finite.
    """
    return checked(array_file.read(path, key="edges"), path.name)


def read_npz(path: Path) -> list[Connectome]:
    """Return the connectomes of an npz of many people.

    It holds ``subject`` (n,), and ``eeg`` (n, E, P) or ``fmri`` (n, P) or both: the P = N (N - 1) / 2 entries
    above the diagonal, row by row as `numpy.triu_indices` has them; ``label`` and ``site`` (n,) where known.

    Raises
    ------
    RecordingError
        The file is not there or damaged, or its arrays do not fit each other.
    """
    arrays = array_file.read_npz(path)
    present = [modality for modality in MODALITIES if modality in arrays]
    if "subject" not in arrays or arrays["subject"].ndim != 1 or not present:
        raise RecordingError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; expected subject (n,), and eeg (n, bands, "
            "pairs) or fmri (n, pairs) or both: what lies above the diagonals, row by row."
        )
    subjects = array_file.words(arrays["subject"])
    labels, sites = (_column(arrays, name, len(subjects), path) for name in ("label", "site"))
    found = []
    for modality in present:
        triangles = arrays[modality]
        if triangles.ndim not in (2, 3) or len(triangles) != len(subjects):
            raise RecordingError(
                f"{path} has {modality} of shape {triangles.shape} for {len(subjects)} subjects; expected "
                "(subjects, pairs) or (subjects, bands, pairs)."
            )
        for i, subject in enumerate(subjects):
            square = from_triangles(np.atleast_2d(triangles[i]), f"{path.name}, {modality} of {subject}")
            edges = checked(square, f"{path.name}, {modality} of {subject}")
            found.append(Connectome(subject, modality, edges, labels[i], sites[i]))
    return found


def from_triangles(triangles: NDArray[Any], name: str) -> NDArray[Any]:
    """Return (E, N, N) symmetric matrices from what is above their diagonals, (E, P), row by row."""
    n_pairs = triangles.shape[-1]
    n = (1 + math.isqrt(1 + 8 * n_pairs)) // 2
    if n * (n - 1) // 2 != n_pairs or n < 2:
        raise RecordingError(f"{name} has {n_pairs} pairs, which no number of regions makes.")
    rows, columns = np.triu_indices(n, k=1)
    edges = np.zeros((len(triangles), n, n), dtype=triangles.dtype)
    edges[:, rows, columns] = edges[:, columns, rows] = triangles
    return edges


def to_triangles(edges: NDArray[Any]) -> NDArray[Any]:
    """Return what is above the diagonals, row by row: (..., N, N) -> (..., N (N - 1) / 2)."""
    rows, columns = np.triu_indices(edges.shape[-1], k=1)
    return np.asarray(edges[..., rows, columns])


def checked(matrix: NDArray[Any], name: str) -> Edges:
    """Return a connectome as (E, N, N) float32 with a diagonal of zeros, or raise `RecordingError`."""
    edges = matrix[None] if matrix.ndim == 2 else matrix
    if (
        edges.ndim != 3
        or edges.shape[1] != edges.shape[2]
        or min(edges.shape) < 1
        or edges.shape[1] < 2
        or edges.dtype.kind not in "fiu"
    ):
        raise RecordingError(
            f"{name} is {matrix.dtype} of shape {matrix.shape}; expected a square matrix, or one per band."
        )
    edges = edges.astype(np.float64)
    diagonal = np.arange(edges.shape[1])
    edges[:, diagonal, diagonal] = 0.0  # whatever a region is said to have with itself: 1, NaN, infinity
    bad = int((~(np.abs(edges) <= LARGEST)).sum())
    if bad:
        raise RecordingError(f"{name} has {bad} entries that are not finite: repair it or leave it out.")
    apart = float(np.abs(edges - edges.swapaxes(1, 2)).max())
    if apart > ASYMMETRY * max(float(np.abs(edges).max()), 1e-12):
        raise RecordingError(
            f"{name} is not symmetric (entries differ by up to {apart:.3g}): expected a connectome without "
            "direction; average it with its transpose if that is meant."
        )
    if not edges.any():
        raise RecordingError(f"{name} is zero everywhere: leave it out.")
    return np.asarray((edges + edges.swapaxes(1, 2)) / 2, dtype=np.float32)


def _column(arrays: dict[str, NDArray[Any]], name: str, n: int, path: Path) -> list[str]:
    if name not in arrays:
        return [""] * n
    if arrays[name].shape != (n,):
        raise RecordingError(f"{path} has {n} subjects, but {name!r} of shape {arrays[name].shape}.")
    return array_file.words(arrays[name])
