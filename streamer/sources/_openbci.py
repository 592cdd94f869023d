"""Text files of the OpenBCI GUI: Cyton, Daisy and Ganglion, from version 5 on (named columns) and before.

Values are in µV.  The sample index wraps and shows dropped packets; time stamps, where there are any, show
longer pauses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.errors import RecordingError
from streamer.sources._content import Content
from streamer.sources._grid import from_counter
from streamer.sources._table import read_columns, read_lines

_CLOCK_TIME = re.compile(r"\s*(\d+):(\d+):(\d+(?:[.:]\d*)?)\s*")
_DAY_S = 86400.0
_EPOCH_S, _EPOCH_MS = 1e9, 1e11  # a number above this is a date in seconds, in milliseconds
_N_ACCELERATION = 3


@dataclass(frozen=True)
class _Layout:
    """Which column holds what."""

    channels: dict[str, int]
    counter: int = 0
    stamp: int | None = None
    marker: int | None = None


def read(path: Path) -> Content:
    """Read a text file of the OpenBCI GUI."""
    lines, notes = read_lines(path)
    header = "\n".join(line for line in lines if line.startswith("%"))
    rows = [line for line in lines if not line.startswith("%")]
    named = bool(rows) and rows[0].lower().startswith("sample index")
    layout = _named_layout(rows.pop(0)) if named else _old_layout(rows, header)
    optional = [number for number in (layout.stamp, layout.marker) if number is not None]
    numbers = [layout.counter, *layout.channels.values(), *optional]
    seconds: dict[int | str, Callable[[str], float]] = {number: _seconds for number in optional[:1]}
    columns = read_columns(path, rows, ",", numbers, seconds)
    used = {c: i for c, i in layout.channels.items() if named or "dummy" not in header or np.any(columns[i])}
    marker = {} if layout.marker is None else {"Marker Channel": layout.marker}
    signals = [*used.values(), *marker.values()]
    stamps = None if layout.stamp is None else _past_midnight(columns[layout.stamp])
    return Content(
        labels=[*used, *marker],
        types=["eeg"] * len(used) + ["stim"] * len(marker),
        units=["uV"] * len(signals),
        column=lambda i: columns[signals[i]],
        grid=from_counter(columns[layout.counter], _sfreq(header, path), stamps),
        meta={"format": "OpenBCI", "header": header},
        notes=notes,
        left_out={label: "a dummy column of zeros" for label in layout.channels if label not in used},
    )


def _named_layout(line: str) -> _Layout:
    """Return the layout from the row of column names (GUI version 5 on)."""
    names = [name.strip() for name in line.split(",")]
    place = {name: number for number, name in enumerate(names)}
    channels = {name: number for name, number in place.items() if name.startswith("EXG Channel")}
    return _Layout(channels, place["Sample Index"], place.get("Timestamp"), place.get("Marker Channel"))


def _old_layout(rows: Sequence[str], header: str) -> _Layout:
    """Return the layout of a file without column names: index, channels, acceleration, perhaps a time."""
    fields = rows[0].split(",") if rows else []
    stamp = next((i for i in reversed(range(len(fields))) if _is_stamp(fields[i])), None)
    stated = re.search(r"Number of channels = (\d+)", header)
    n_clocks = sum(_is_stamp(field) for field in fields)
    n_chans = int(stated[1]) if stated else len(fields) - 1 - _N_ACCELERATION - n_clocks
    if not 0 < n_chans < len(fields):
        raise ValueError(f"{n_chans} channels cannot lie in rows of {len(fields)} fields")
    return _Layout({f"EXG Channel {i}": i + 1 for i in range(n_chans)}, 0, stamp)


def _is_stamp(field: str) -> bool:
    """Say whether a field of the first row is a time of day or a date."""
    if _CLOCK_TIME.fullmatch(field):
        return True
    try:
        return float(field) > _EPOCH_S
    except ValueError:
        return False


def _seconds(field: str) -> float:
    """Return a time of day, a date in s or a date in ms, in seconds."""
    clock = _CLOCK_TIME.fullmatch(field)
    if clock:
        hours, minutes, seconds = clock.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds.replace(":", "."))
    value = float(field)
    return value / 1000 if value > _EPOCH_MS else value


def _past_midnight(stamps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return stamps that grow over midnight where they are times of day."""
    return stamps if stamps[0] > _EPOCH_S else np.unwrap(stamps, period=_DAY_S)


def _sfreq(header: str, path: Path) -> float:
    """Return the rate in the header, Hz."""
    stated = re.search(r"Sample Rate = ([\d.]+)", header)
    if stated is None:
        raise RecordingError(f"{path.name} has no line '%Sample Rate = … Hz' in its header: add it")
    return float(stated[1])
