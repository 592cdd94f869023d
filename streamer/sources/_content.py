"""What a file reader hands over, and how it becomes a recording: the rules that all formats share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import RecordingError
from streamer.sources._grid import CONTIGUOUS, Grid, open_pauses
from streamer.sources._names import channel_type, tidy_name, to_microvolts, unique_names
from streamer.types import Marker, Samples, StreamInfo

# A stimulus channel that changes more often than this carries no codes (an open input in one BDF at hand
# changes on 95 % of its rows).
_MAX_CODE_CHANGES = 0.1


@dataclass(frozen=True)
class Recording:
    """A continuous recording in memory.

    Attributes
    ----------
    info : StreamInfo
        Voltages are in ``"uV"``; the unit is ``"unknown"`` where the file names none.
    data : ndarray, shape (n_times, n_chans), float32
        In the unit of ``info``.
    times : ndarray, shape (n_times,), float64
        Seconds, 0 at the first row, equidistant between breaks.
    breaks : tuple of int
        Rows before which time jumps, samples being missing: pauses, clock resets, lost packets.
    markers : tuple of Marker
        On the axis of ``times``, in time order; before 0 where they were sent before the first sample.
    meta : mapping
        ``format``, ``path``, ``original_names`` (where the name was changed), ``left_out`` (channel and
        reason), ``notes`` (what was found or decided), and what else the file says of itself.
    """

    info: StreamInfo
    data: Samples
    times: NDArray[np.float64]
    breaks: tuple[int, ...] = ()
    markers: tuple[Marker, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        n_times = len(self.times)
        if self.data.shape != (n_times, self.info.n_chans) or self.data.dtype != np.float32:
            raise ValueError(
                f"a recording of {n_times} times and {self.info.n_chans} channels needs float32 data of "
                f"that shape, got {self.data.dtype} {self.data.shape}"
            )
        if any(not 0 < row < n_times for row in self.breaks) or list(self.breaks) != sorted(set(self.breaks)):
            raise ValueError(f"breaks must be increasing rows between 1 and {n_times - 1}, got {self.breaks}")
        jumps = np.diff(self.times)[[row - 1 for row in self.breaks]] * self.info.sfreq
        if np.any(jumps < CONTIGUOUS):
            raise ValueError(f"breaks must be rows before which samples are missing, got {self.breaks}")

    @property
    def index(self) -> NDArray[np.int64]:
        """Return the place of each row on the sample grid, shape (n_times,); it jumps at the breaks."""
        advance = np.ones(len(self.times), dtype=np.int64)
        advance[:1] = 0
        rows = list(self.breaks)
        jump = np.diff(self.times)[[row - 1 for row in rows]] * self.info.sfreq
        advance[rows] = np.maximum(np.rint(jump), 1)
        return np.cumsum(advance)


@dataclass
class Content:
    """What a reader found in a file; samples are fetched column by column, so that none is read in vain.

    Attributes
    ----------
    labels, types, units : sequence of str
        One per column, as the file writes them; ``""`` where it says nothing.
    column : callable
        Column number → its samples, shape (n_times,), any real dtype, in the column's unit.
    grid : Grid
        The time axis, shared by all columns.
    markers : list of Marker
        On the axis of ``grid.times``.
    name, source_id, stype : str
        Empty where the file does not say: made from the file name and the channel types.
    """

    labels: Sequence[str]
    types: Sequence[str]
    units: Sequence[str]
    column: Callable[[int], NDArray[Any]]
    grid: Grid
    markers: list[Marker] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    name: str = ""
    source_id: str = ""
    stype: str = ""


def assemble(content: Content, path: Path) -> Recording:
    """Choose the data channels, bring names, types and units to the project's words, fetch the samples.

    Raises
    ------
    RecordingError
        Nothing to replay is left.
    """
    types = [channel_type(label, said) for label, said in zip(content.labels, content.types, strict=True)]
    if not len(content.grid.times):
        raise RecordingError(f"{path.name} holds no samples: there is nothing to replay")
    markers = [*content.markers, *_code_markers(content, types)]
    grid, moved = open_pauses(content.grid)
    columns = _data_columns(content, types)
    if not columns:
        raise RecordingError(f"{path.name} holds no signal channel, only {_listed(content.labels)}")
    columns, factors = _common_unit(content, columns)
    names = unique_names([tidy_name(content.labels[i]) for i in columns])
    _tell_names(content, columns, names)
    ch_types = tuple("misc" if types[i] in ("other", "stim") else types[i] for i in columns)
    info = StreamInfo(
        name=content.name or path.stem,
        source_id=content.source_id or f"recording:{path.name}",
        stype=content.stype.upper() or _stream_type(ch_types),
        sfreq=grid.sfreq,
        ch_names=tuple(names),
        ch_types=ch_types,
        unit="unknown" if factors is None else "uV",
    )
    return Recording(
        info=info,
        data=_fetch(content, columns, factors),
        times=grid.times,
        breaks=grid.breaks,
        markers=tuple(sorted((replace(m, time=moved(m.time)) for m in markers), key=lambda m: m.time)),
        meta=MappingProxyType(_meta(content, grid, columns, names, path)),
    )


def code_markers(codes: NDArray[Any], times: NDArray[np.float64]) -> list[Marker]:
    """Return a marker wherever a code channel changes to another value than 0."""
    onsets = np.flatnonzero(np.diff(codes) != 0) + 1
    return [Marker(float(times[row]), code_label(codes[row])) for row in onsets if codes[row] != 0]


def code_label(code: float) -> str:
    """Return a code as a marker's label: 769.0 → ``"769"``."""
    return str(int(code)) if float(code).is_integer() else f"{code:g}"


def _code_markers(content: Content, types: Sequence[str]) -> list[Marker]:
    """Return the markers of all stimulus channels; one that carries no codes is left out aloud."""
    markers: list[Marker] = []
    for i in (i for i, ch_type in enumerate(types) if ch_type == "stim"):
        codes = content.column(i)
        if np.count_nonzero(np.diff(codes)) > max(1, _MAX_CODE_CHANGES * len(codes)):
            content.left_out[content.labels[i]] = "named like a stimulus channel, but carries no codes"
            continue
        content.left_out[content.labels[i]] = "stimulus channel: its codes are markers"
        markers += code_markers(codes, content.grid.times)
    return markers


def _data_columns(content: Content, types: Sequence[str]) -> list[int]:
    """Return the columns of electrodes; of a stream without any (an accelerometer's) all but stimuli."""
    signals = [i for i, ch_type in enumerate(types) if ch_type != "stim"]
    electrodes = [i for i in signals if types[i] != "other"]
    for i in set(signals) - set(electrodes) if electrodes else ():
        content.left_out[content.labels[i]] = "not an electrode"
    return electrodes or signals


def _common_unit(content: Content, columns: list[int]) -> tuple[list[int], list[float] | None]:
    """Return the columns that share a unit and their factors to µV; None of it where no unit is known."""
    factors = {i: to_microvolts(content.units[i]) for i in columns}
    volts = {i: factor for i, factor in factors.items() if factor is not None}
    if not volts:
        units = sorted({content.units[i].strip() for i in columns} - {""})
        content.notes.append(f"unit unknown: {f'the file says {_listed(units)}' if units else 'none given'}")
        return columns, None
    for i in (i for i in columns if i not in volts):
        unit = content.units[i].strip()
        content.left_out[content.labels[i]] = f"unit {unit!r} is no voltage" if unit else "no unit given"
    return list(volts), list(volts.values())


def _fetch(content: Content, columns: Sequence[int], factors: Sequence[float] | None) -> Samples:
    """Return the chosen columns, shape (n_times, n_chans), float32."""
    data = np.empty((len(content.grid.times), len(columns)), dtype=np.float32)
    for k, i in enumerate(columns):
        column = content.column(i)
        data[:, k] = column if factors is None or factors[k] == 1 else column * np.float64(factors[k])
    return data


def _tell_names(content: Content, columns: Sequence[int], names: Sequence[str]) -> None:
    """Note the names that had to be numbered because they were there twice."""
    cleaned = [tidy_name(content.labels[i]) for i in columns]
    numbered = [name for name, wanted in zip(names, cleaned, strict=True) if name != wanted]
    if numbered:
        content.notes.append(f"channel names that occur twice were numbered: {_listed(numbered)}")


def _stream_type(ch_types: Sequence[str]) -> str:
    """Return EEG where a channel is EEG, otherwise the commonest type in upper case."""
    return "EEG" if "eeg" in ch_types else Counter(ch_types).most_common(1)[0][0].upper()


def _meta(
    content: Content, grid: Grid, columns: Sequence[int], names: Sequence[str], path: Path
) -> dict[str, Any]:
    """Return the recording's ``meta``."""
    originals = {
        name: content.labels[i] for name, i in zip(names, columns, strict=True) if name != content.labels[i]
    }
    notes = (*content.notes, *grid.notes, *_holes(grid))
    told = {"path": str(path), "original_names": originals, "left_out": content.left_out, "notes": notes}
    return {**content.meta, **told}


def _holes(grid: Grid) -> list[str]:
    """Return notes on the breaks, if there are any."""
    rows = np.array(grid.breaks, dtype=np.int64)
    missing_s = grid.times[rows] - grid.times[rows - 1] - 1 / grid.sfreq
    return [f"samples are missing at {len(rows)} rows, {missing_s.sum():.3f} s in all"] * bool(len(rows))


def _listed(names: Sequence[str]) -> str:
    """Return up to eight names for a message."""
    shown = ", ".join(names[:8]) or "nothing"
    return f"{shown}, … ({len(names)} in all)" if len(names) > 8 else shown
