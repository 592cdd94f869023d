"""Recordings as the model meets them: preprocessed as live, with what was asked for when."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.errors import RecordingError
from streamer.types import Samples

IGNORE = -100  # hops that teach nothing: torch's own default for cross-entropy
Span = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A preprocessed recording.

    Attributes
    ----------
    subject : str
    data : ndarray, shape (n_times, n_chans), float32
        About unit variance.
    spans : tuple of (int, int, int)
        What was asked for, rest included: first sample, sample after the last, class.
    start_s : float
        Time of the first sample on the recording's own clock.
    """

    subject: str
    data: Samples
    spans: tuple[Span, ...]
    start_s: float = 0.0


def population(covs: Iterable[NDArray[np.float64]], groups: int = 1) -> tuple[tuple[float, ...], ...]:
    """Return the covariance to start from: the mean of the shapes at trace 1, times the median trace.

    Parameters
    ----------
    covs : iterable of ndarray, shape (n_chans, n_chans), float64
        One per recording.
    groups : int
        Groups of channels that know nothing of each other: each has a block of its own, zeros beside it.
    """
    each = np.array(list(covs))  # (n, n_chans, n_chans)
    prior = np.zeros(each.shape[1:])
    for columns in np.array_split(np.arange(len(prior)), groups):
        block = each[:, columns[:, None], columns]
        traces = np.trace(block, axis1=1, axis2=2)
        shapes = block / traces[:, None, None]
        prior[np.ix_(columns, columns)] = shapes.mean(axis=0) * np.median(traces)
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in (prior + prior.T) / 2)


def mirror(ch_names: Sequence[str]) -> list[int]:
    """Return the order of channels that swaps the hemispheres: 10-20 numbers are odd left, even right.

    Raises
    ------
    RecordingError
        A channel has no counterpart.
    """
    order = []
    for name in ch_names:
        twin = re.sub(r"\d+$", lambda m: str(int(m[0]) + (1 if int(m[0]) % 2 else -1)), name)
        if twin not in ch_names:
            raise RecordingError(f"Channel {name} has no counterpart {twin} to mirror with; set mirror to 0.")
        order.append(list(ch_names).index(twin))
    return order
