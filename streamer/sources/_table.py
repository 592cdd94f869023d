"""Rows of numbers in a text file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.errors import RecordingError


def read_lines(path: Path) -> tuple[list[str], list[str]]:
    """Return the file's lines without the empty ones, and notes.

    A last line as a crash leaves it, not ended and with less in it than the line before, is dropped.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or text.endswith("\n") or _size(lines[-1]) >= _size(lines[-2]):
        return lines, []
    return lines[:-1], ["the last line is cut and was left out"]


def _size(line: str) -> tuple[int, int]:
    """Return the number of fields and the length of the last one."""
    fields = line.replace("\t", ",").split(",")
    return len(fields), len(fields[-1])


def read_columns(
    path: Path,
    lines: Sequence[str],
    delimiter: str,
    columns: Sequence[int],
    converters: Mapping[int | str, Callable[[str], float]] | None = None,
) -> dict[int, NDArray[np.float64]]:
    """Return the chosen columns by number, each of shape (n_times,).

    Raises
    ------
    RecordingError
        No row.
    ValueError
        A field is no number; the message says which.
    """
    if not lines:
        raise RecordingError(f"{path.name} has a header but no rows: nothing was recorded")
    table = np.loadtxt(
        lines, delimiter=delimiter, usecols=columns, ndmin=2, comments=None, converters=converters
    )
    return {number: table[:, k] for k, number in enumerate(columns)}
