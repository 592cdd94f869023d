"""Arrays of numbers from files of any origin: NumPy's, or text by rows; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.errors import BciError, RecordingError

DELIMITERS = {".csv": ",", ".tsv": "\t", ".1d": None}  # None: any white space
SUFFIXES = (".npy", ".npz", *DELIMITERS)
T = TypeVar("T")


def read(path: Path, key: str = "data") -> NDArray[Any]:
    """Return the array that a file holds, as its suffix says.

    Text has one row per line; lines that begin with ``#`` are comments, and a first line that is not
    numbers, or that counts the columns, is a header.

    Parameters
    ----------
    key : str
        Name of the array in an npz; one that holds a single array needs no such name.

    Raises
    ------
    RecordingError
        The file is not there, is damaged, or is none of `SUFFIXES`.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return damaged_is_said(path, lambda: _npy(path))
    if suffix == ".npz":
        arrays = read_npz(path)
        if key not in arrays and len(arrays) != 1:
            raise RecordingError(f"{path} has no array {key!r}; it holds {', '.join(arrays) or 'none'}.")
        return arrays.get(key, next(iter(arrays.values())))
    if suffix not in DELIMITERS:
        raise RecordingError(f"{path} is none of {', '.join(SUFFIXES)}: convert it to one of them.")
    return damaged_is_said(path, lambda: _text(path, DELIMITERS[suffix]))


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return every array of an npz, by name; `RecordingError` where it is not there or damaged."""

    def load() -> dict[str, NDArray[Any]]:
        # Opened here: a damaged file is left open by NumPy.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    return damaged_is_said(path, load)


def damaged_is_said(path: Path, load: Callable[[], T]) -> T:
    """Return what ``load`` reads of the file; whatever it stumbles over is one `RecordingError`."""
    try:
        if not path.is_file():
            raise RecordingError(f"No file {path}.")
        return load()
    except BciError:
        raise
    except Exception as error:  # NumPy, nibabel and nilearn raise of damaged files whatever they like
        raise RecordingError(f"{path} cannot be read: {error}") from error


def words(values: NDArray[Any]) -> list[str]:
    """Return the entries of an array (n,) as text; bytes are taken for UTF-8."""
    entries = values.tolist()
    return [entry.decode(errors="replace") if isinstance(entry, bytes) else str(entry) for entry in entries]


def _npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as stream:
        return np.asarray(np.load(stream, allow_pickle=False))


def _text(path: Path, delimiter: str | None) -> NDArray[np.float64]:
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    rows = [line for line in lines if not line.lstrip().startswith("#")]
    if rows and _is_header(*(line.split(delimiter) for line in rows[:2])):
        rows = rows[1:]
    if not rows:
        raise ValueError("no row of numbers in it")
    return np.loadtxt(rows, delimiter=delimiter, dtype=np.float64, ndmin=2)


def _is_header(first: list[str], second: Sequence[str] = ()) -> bool:
    """Return whether a line names the columns: not numbers, or whole ones that count up over others.

    So pandas writes columns without names, and so regions are called by their numbers in an atlas.
    """
    if not _are_numbers(first):
        return True
    if len(first) < 3 or not _are_whole(first) or _are_whole(second):
        return False
    return all(int(a) < int(b) for a, b in pairwise(first))


def _are_whole(cells: Sequence[str]) -> bool:
    return all(cell.strip().isdecimal() for cell in cells)


def _are_numbers(cells: list[str]) -> bool:
    try:
        [float(cell) for cell in cells]
    except ValueError:
        return False
    return True
