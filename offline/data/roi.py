"""Time series of brain regions (ROI): one per region of an atlas, from fMRI, whoever extracted them.

Such series are made offline from whole runs, so each is standardised over its run; nothing live sees them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from offline.data import array_file, nifti
from streamer.components import Config
from streamer.errors import RecordingError

SUFFIXES = (*array_file.SUFFIXES, *nifti.SUFFIXES)
CONSTANT = 1e-6  # SD of a region, over the median region's, below which nothing was measured there
TINY = 1e-30
LARGEST = float(np.finfo(np.float32).max)
MAX_RATIO = 1000  # of the fraction that brings one rate to another

Signal = NDArray[np.float32]


class RoiSettings(Config):
    """How series of regions are read.

    Attributes
    ----------
    nodes : str
        Name of the atlas (``aal116``): series of one atlas have one column per region, in its order.
    tr_s : float
        Seconds per volume that every run is resampled to.
    file_tr_s : float or None
        Seconds per volume of files that tell none themselves (.1D, .csv, .tsv, .npy).
    atlas : Path or None
        NIfTI image with a number per region, for runs that are NIfTI.
    uncovered : str
        What becomes of a run in which a region does not vary, mostly because the scanner's field of view
        ended above it: ``refuse`` it, ``zero`` its series, so that it is connected with nothing, or
        ``leave_out`` the run.
    min_s : float
        Runs that are shorter are refused.
    """

    nodes: str
    tr_s: PositiveFloat
    file_tr_s: PositiveFloat | None = None
    atlas: Path | None = None
    uncovered: Literal["refuse", "zero", "leave_out"] = "refuse"
    min_s: PositiveFloat = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its file has it.

    Attributes
    ----------
    name : str
        For messages.
    subject, label, site : str or None
        Where the file tells them.
    data : ndarray, shape (n_volumes, n_regions)
    tr_s : float or None
        Seconds per volume, where the file tells.
    """

    name: str
    data: NDArray[Any]
    tr_s: float | None = None
    subject: str | None = None
    label: str | None = None
    site: str | None = None


def read_runs(path: Path, atlas: Path | None = None, label: str = "label") -> list[Run]:
    """Return the runs of a file: one, or of an npz with ``n_volumes`` one per subject.

    Parameters
    ----------
    atlas : Path, optional
        See `RoiSettings`; needed for NIfTI.
    label : str
        Name of the array of an npz that holds the diagnoses.

    Raises
    ------
    RecordingError
        The file is not there, damaged, or nothing that is known.
    MissingDependency
        NIfTI without nilearn.
    """
    if path.name.lower().endswith(nifti.SUFFIXES):
        return [Run(path.name, *nifti.read_regions(path, atlas))]
    if path.suffix.lower() != ".npz":
        return [Run(path.name, array_file.read(path))]
    return _from_npz(path, array_file.read_npz(path), label)


def to_signal(run: Run, settings: RoiSettings) -> Signal | None:
    """Return a run at the common rate, each region with mean 0 and SD 1 over it.

    Returns
    -------
    ndarray, shape (n_regions, n_times), float32, contiguous; None
        None for a run that is to be left out.

    Raises
    ------
    RecordingError
        The run is no table of finite numbers, too short, tells no rate, or does not vary in a region.
    """
    data = _checked(run)
    tr_s = _tr(run, settings)
    seconds = len(data) * tr_s
    if seconds < settings.min_s:
        raise RecordingError(
            f"{run.name} lasts {seconds:g} s ({len(data)} volumes of {tr_s:g} s); expected "
            f"{settings.min_s:g} s or more. Rows are volumes: transpose it if they are regions; else leave "
            "the run out or lower `min_s`."
        )
    sd: NDArray[np.float64] = data.std(axis=0)
    flat = sd <= CONSTANT * max(float(np.median(sd)), TINY)
    if flat.any() and settings.uncovered == "leave_out":
        return None
    if flat.any() and (settings.uncovered == "refuse" or flat.all()):
        raise RecordingError(_flat_words(run, np.flatnonzero(flat)))
    z = (data - data.mean(axis=0)) / np.where(flat, np.inf, sd)
    z = _resampled(z, tr_s / settings.tr_s)
    spread: NDArray[np.float64] = np.maximum(z.std(axis=0), TINY)
    z = (z - z.mean(axis=0)) / np.where(flat, np.inf, spread)
    return np.ascontiguousarray(z.T, dtype=np.float32)


def _checked(run: Run) -> NDArray[np.float64]:
    if run.data.ndim != 2 or run.data.dtype.kind not in "fiu" or run.data.shape[1] < 2:
        raise RecordingError(
            f"{run.name} is {run.data.dtype} of shape {run.data.shape}; expected numbers, one row per volume "
            "and one column per region."
        )
    data = run.data.astype(np.float64)
    broken = np.flatnonzero(~(np.abs(data) <= LARGEST).all(axis=0))
    if len(broken):
        raise RecordingError(
            f"{run.name} is not finite in {_regions(broken)}: repair the volumes or leave the run out."
        )
    if len(data) > 1 and (np.diff(data[:, 0]) == 1).all():
        raise RecordingError(
            f"{run.name} counts its rows in the first column, which is no region: leave that column out."
        )
    return data


def _tr(run: Run, settings: RoiSettings) -> float:
    tr_s = run.tr_s if run.tr_s is not None else settings.file_tr_s
    if tr_s is None:
        raise RecordingError(
            f"{run.name} does not tell how long a volume takes: give it, in seconds, as `file_tr_s`."
        )
    if not 0 < tr_s < 60:
        raise RecordingError(f"{run.name} says that a volume takes {tr_s:g} s: expected 0.1 to 10.")
    return tr_s


def _flat_words(run: Run, regions: NDArray[np.intp]) -> str:
    return (
        f"{run.name} does not vary in {_regions(regions)}, mostly a sign that the scanner did not reach "
        "them: leave the run out (`uncovered: leave_out`) or set them to zero (`uncovered: zero`)."
    )


def _regions(numbers: NDArray[np.intp]) -> str:
    shown = ", ".join(str(number) for number in numbers[:12]) + (", ..." if len(numbers) > 12 else "")
    return f"{len(numbers)} region{'s' if len(numbers) > 1 else ''} (counted from 0: {shown})"


def _resampled(z: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Return (n_times, n_regions) with ``ratio`` times the samples; z has mean 0, as the filter's padding."""
    from scipy.signal import resample_poly

    fraction = Fraction(ratio).limit_denominator(MAX_RATIO)
    if fraction == 1:
        return z
    return np.asarray(resample_poly(z, fraction.numerator, fraction.denominator, axis=0))


def _from_npz(path: Path, arrays: dict[str, NDArray[Any]], label: str) -> list[Run]:
    data = arrays.get("data", next(iter(arrays.values())) if len(arrays) == 1 else None)
    if data is None:
        raise RecordingError(f"{path} has no array 'data'; it holds {', '.join(arrays) or 'none'}.")
    if "n_volumes" not in arrays:
        return [Run(path.name, data, _rates(path, arrays, 1)[0])]
    pieces = np.split(data, np.cumsum(_lengths(path, data, arrays["n_volumes"]))[:-1])
    about = {
        "subject": _words(path, arrays, "subject_id" if "subject_id" in arrays else "subject", len(pieces)),
        "label": _words(path, arrays, label, len(pieces)),
        "site": _words(path, arrays, "site", len(pieces)),
    }
    rates = _rates(path, arrays, len(pieces))
    return [
        Run(
            f"{path.name}, {about['subject'][i] or i}",
            piece,
            rates[i],
            **{name: words[i] for name, words in about.items()},
        )
        for i, piece in enumerate(pieces)
    ]


def _lengths(path: Path, data: NDArray[Any], n_volumes: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many rows of ``data`` are of each subject."""
    if data.ndim == 0 or n_volumes.ndim != 1 or n_volumes.dtype.kind not in "iu" or len(n_volumes) == 0:
        raise RecordingError(
            f"{path} has data of shape {data.shape} and n_volumes of {n_volumes.dtype} and shape "
            f"{n_volumes.shape}; expected (volumes, regions), and a whole number of volumes per subject."
        )
    if n_volumes.min() < 1 or n_volumes.sum() != len(data):
        raise RecordingError(
            f"{path} has {len(data)} rows of data, but n_volumes adds up to {n_volumes.sum()}: it was cut or "
            "put together wrongly."
        )
    return n_volumes.astype(np.int64)


def _rates(path: Path, arrays: dict[str, NDArray[Any]], n: int) -> list[float | None]:
    """Return the seconds per volume of each subject; one number is that of all."""
    found = arrays.get("tr_s", np.empty(0))
    if found.size == 0:
        return [None] * n
    if found.dtype.kind not in "fiu" or found.size not in (1, n):
        raise RecordingError(
            f"{path} has 'tr_s' of {found.dtype} and shape {found.shape}; expected the seconds per volume of "
            f"{n} subjects, or one number."
        )
    return [float(value) for value in np.broadcast_to(found.ravel(), n)]


def _words(path: Path, arrays: dict[str, NDArray[Any]], name: str, n: int) -> list[Any]:
    """Return an entry per subject, codes spelt out as ``meta`` does; None each where it is not there."""
    if name not in arrays:
        return [None] * n
    if arrays[name].shape != (n,):
        raise RecordingError(f"{path} has {n} subjects, but {name!r} of shape {arrays[name].shape}.")
    words = array_file.words(arrays[name])
    codes = _meta(arrays).get(name)
    return [str(codes.get(word, word)) for word in words] if isinstance(codes, dict) else words


def _meta(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what the file says about itself; nothing where that is not JSON."""
    try:
        meta = json.loads(str(arrays.get("meta", "")))
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}
