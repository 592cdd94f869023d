"""Where electrodes are: 10-05 names, their aliases, and interpolation between them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.errors import StreamMismatch

OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}  # 10-20 of 1958 -> 10-10
_PREFIX = re.compile(r"^(?:EEG|POL)[\s_:-]+", re.IGNORECASE)
_REFERENCE = re.compile(r"[\s_:-]+(?:REF|LE|LER|AR|CAR|AVG|AVE|A1|A2|A1A2|AA|M1|M2|M1M2)$", re.IGNORECASE)

REFERENCES = {"A1", "A2", "M1", "M2"}


def clean_name(name: str) -> str:
    """Return the 10-05 name behind a recorder's channel name, or the name stripped where there is none.

    Case, an ``EEG`` in front, the reference behind and padding dots are looked through, and the old
    names T3, T4, T5, T6 become T7, T8, P7, P8: ``"EEG Fp1-Ref"`` is ``"Fp1"``, ``"Fc5."`` is ``"FC5"``.  A
    bipolar derivation (``"Fpz-Cz"``, ``"A2-A1"``) is no electrode and stays what it is.
    """
    stripped = name.strip().strip(".").strip()
    electrode = _PREFIX.sub("", stripped)
    bare = _REFERENCE.sub("", electrode)
    if bare != electrode and bare.upper() in REFERENCES:
        return stripped  # "A2-A1": one reference against the other
    return _spelling().get(bare.lower()) or stripped


def located(name: str) -> bool:
    """Say whether the electrode of that name (any alias) has a known place."""
    return clean_name(name) in _table()


def positions(names: Sequence[str]) -> NDArray[np.float64]:
    """Return where electrodes are, as directions from the centre of the head.

    From MNE's template montage ``standard_1005`` (now ``colin27_1005``), in MNE's head frame, seen from
    the centre of the sphere that fits it best.

    Parameters
    ----------
    names : sequence of str
        10-05 names or aliases.

    Returns
    -------
    ndarray, shape (n_names, 3), float64
        Unit vectors: x to the right ear, y to the nose, z up.

    Raises
    ------
    StreamMismatch
        A name that has no known place.
    """
    unknown = [name for name in names if not located(name)]
    if unknown:
        raise StreamMismatch(
            f"no place on the scalp is known for {', '.join(unknown)}: expected names of the 10-05 system "
            "(Fp1, C3, CPz, ...). Rename the channels or leave them out."
        )
    table = _table()
    return np.array([table[clean_name(name)] for name in names]).reshape(-1, 3)


def interpolation_matrix(available: Sequence[str], missing: Sequence[str]) -> NDArray[np.float64]:
    """Return the spherical splines that estimate missing electrodes from those that are there.

    Perrin et al. 1989 (doi:10.1016/0013-4694(89)90180-6) with MNE's constants: order 4, 50 Legendre terms,
    1e-5 on the diagonal.

    Parameters
    ----------
    available, missing : sequence of str
        10-05 names or aliases.

    Returns
    -------
    ndarray, shape (n_available, n_missing), float64
        ``samples @ matrix`` are the missing channels; every column sums to 1.

    Raises
    ------
    StreamMismatch
        A name that has no known place, or nothing to interpolate from.
    """
    if not available:
        raise StreamMismatch(f"{', '.join(missing)}: no EEG channel of known place to interpolate from.")
    here, there = positions(available), positions(missing)
    n_here = len(here)
    system = np.ones((n_here + 1, n_here + 1))
    system[:n_here, :n_here] = _spline(here @ here.T) + 1e-5 * np.eye(n_here)
    system[n_here, n_here] = 0.0
    wanted = np.ones((n_here + 1, len(there)))
    wanted[:n_here] = _spline(here @ there.T)
    return np.ascontiguousarray(np.linalg.solve(system, wanted)[:n_here])


def _spline(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Perrin's g: what an electrode says about another at an angle of that cosine."""
    n = np.arange(1, 51)
    weights = (2 * n + 1) / ((n * (n + 1.0)) ** 4 * 4 * np.pi)
    return np.asarray(np.polynomial.legendre.legval(cosine, np.r_[0.0, weights]), dtype=np.float64)


@cache
def _table() -> dict[str, list[float]]:
    text = Path(__file__).with_name("positions.json").read_text(encoding="utf-8")
    table: dict[str, list[float]] = json.loads(text)
    return table


@cache
def _spelling() -> dict[str, str]:
    """Lower case -> the 10-05 spelling, old names included."""
    known = {name.lower(): name for name in _table()}
    return known | {old.lower(): new for old, new in OLD_NAMES.items()}
