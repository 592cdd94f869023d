"""GDF, FIF and BrainVision files, read by MNE-Python.

Each is checked first for numbers that MNE would believe: a count of a billion channels, a tag that points
back to itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import MissingDependency, RecordingError
from streamer.sources._content import Content
from streamer.sources._grid import Grid
from streamer.types import Marker, Samples

_BLOCK = 65536  # rows read at a time: MNE hands out float64
_FIFF_UNIT_V = 107
_MAX_SKIPPED = 100  # a FIF file may leave out stretches, which read as zeros: samples per byte of file
# Annotations that stand where recordings were paused or joined; how long the pause was is not known.
_JOINS = ("New Segment", "BAD boundary", "EDGE boundary")
_GDF_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 8, 8: 8, 16: 4, 17: 8}  # by type of sample
# Unit of what MNE returns by GDF 2's code: µV, mV and V are brought to V, others are left as they are.
_GDF_UNITS = {4275: "V", 4274: "V", 4256: "V", 4276: "nV"}


def read_gdf(path: Path) -> Content:
    """Read a GDF file, version 1 or 2."""
    units, notes = _check_gdf(path)
    content = _read(path, "GDF", lambda io: io.read_raw_gdf(path), units)
    content.notes += notes
    return content


def read_fif(path: Path) -> Content:
    """Read a raw FIF file; MEG channels are left out."""
    _check_fif(path)
    return _read(path, "FIF", lambda io: io.read_raw_fif(path, allow_maxshield="yes"), None, _MAX_SKIPPED)


def read_brainvision(path: Path) -> Content:
    """Read a BrainVision header, and the data and marker files that it names."""
    _check_brainvision(path)
    return _read(path, "BrainVision", lambda io: io.read_raw_brainvision(path), None)


def refuse_part(path: Path) -> Content:
    """Refuse the data or marker file of a BrainVision recording: the header says what is in it."""
    raise RecordingError(f"{path.name} is a part of a BrainVision recording: open {path.stem}.vhdr instead")


def _read(
    path: Path,
    name: str,
    open_raw: Callable[[Any], Any],
    units: Sequence[str] | None,
    samples_per_byte: float = 1,
) -> Content:
    """Open the file with MNE and take what is needed from its ``Raw``."""
    try:
        import mne
    except ImportError as error:
        raise MissingDependency(f"{path.name} needs MNE-Python to be read: pip install mne") from error
    with mne.use_log_level("WARNING"), _named_faults():
        raw = open_raw(mne.io)
        units = units or ["V" if ch["unit"] == _FIFF_UNIT_V else "" for ch in raw.info["chs"]]
        total = sum(Path(file).stat().st_size for file in raw.filenames)
        if raw.n_times * len(raw.ch_names) > samples_per_byte * total:
            raise ValueError(f"{raw.n_times} samples cannot lie in {total} bytes")
        types = raw.get_channel_types()
        units = ["" if kind == "stim" else unit for kind, unit in zip(types, units, strict=True)]
        data = _read_blocks(raw, np.array([1e6 if unit == "V" else 1.0 for unit in units]))
    sfreq = float(raw.info["sfreq"])
    origin = raw.first_samp / sfreq  # FIF counts from the start of acquisition
    markers = [
        Marker(float(onset) - origin, str(label), float(duration))
        for onset, duration, label in zip(
            raw.annotations.onset, raw.annotations.duration, raw.annotations.description, strict=True
        )
    ]
    return Content(
        labels=list(raw.ch_names),
        types=types,
        units=["uV" if unit == "V" else unit for unit in units],
        column=lambda i: data[:, i],
        grid=_grid(markers, len(data), sfreq),
        markers=markers,
        meta={"format": name},
    )


@contextmanager
def _named_faults() -> Iterator[None]:
    """Give a name to MNE's exceptions of the bare class (an unknown FIF type, for one)."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise ValueError(str(error)) from error


def _read_blocks(raw: Any, factors: NDArray[np.float64]) -> Samples:
    """Return all samples times their channel's factor, shape (n_times, n_chans), float32."""
    data = np.empty((raw.n_times, len(raw.ch_names)), dtype=np.float32)
    for start in range(0, raw.n_times, _BLOCK):
        stop = min(start + _BLOCK, raw.n_times)
        data[start:stop] = raw.get_data(start=start, stop=stop).T * factors
    return data


def _grid(markers: Sequence[Marker], n_times: int, sfreq: float) -> Grid:
    """Return the time axis, with a break where parts were joined: how long it was is not known."""
    joins = {round(marker.time * sfreq) for marker in markers if marker.label.startswith(_JOINS)}
    breaks = sorted(row for row in joins if 0 < row < n_times)
    return Grid(np.arange(n_times) / sfreq, tuple(breaks), sfreq)


def _check_gdf(path: Path) -> tuple[list[str], list[str]]:
    """Check the counts in the header; return the units of what MNE returns, and notes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        fixed = file.read(256)
        version = float(fixed[4:8])
        n_chans = int(np.frombuffer(fixed, "<u4" if version < 1.9 else "<u2", 1, 252)[0])
        if n_chans < 1 or 256 * (n_chans + 1) > size:
            raise ValueError(f"the header of {n_chans} channels does not lie within the file")
        block = file.read(256 * n_chans)
        counts, kinds = np.frombuffer(block, "<i4", 2 * n_chans, 216 * n_chans).reshape(2, -1).tolist()
        record_bytes = sum(_GDF_BYTES[kind] * count for kind, count in zip(kinds, counts, strict=True))
        claimed = int(np.frombuffer(fixed, "<i8", 1, 236)[0]) * record_bytes
        left = size - file.tell() - claimed
        file.seek(min(file.tell() + claimed, size))
        events = file.read(8)
    if left < 0:
        raise RecordingError(
            f"{path.name} is cut: its header claims {claimed} bytes of samples; copy it again"
        )
    n_events = int.from_bytes(events[4:8] if version < 1.94 else events[1:4], "little")
    if n_events * 6 > left:  # position and type; the longer form adds channel and duration
        raise ValueError(f"a table of {n_events} events does not lie within the file")
    slower = len(set(counts)) > 1
    notes = ["slower channels were resampled to the rate of the fastest"] if slower else []
    return _gdf_units(block, n_chans, version), notes


def _gdf_units(block: bytes, n_chans: int, version: float) -> list[str]:
    """Return the unit of what MNE returns, by channel; version 2 writes a code, version 1 text."""
    if version >= 1.9:  # after label (16 bytes), transducer (80) and an obsolete field (6)
        return [_GDF_UNITS.get(code, "") for code in np.frombuffer(block, "<u2", n_chans, 102 * n_chans)]
    start = 96 * n_chans
    texts = [block[start + 8 * i :][:8].decode("latin-1").strip("\x00 ") for i in range(n_chans)]
    return ["V" if text.startswith("uV") else text for text in texts]  # MNE does not know "µV" here


def _check_fif(path: Path) -> None:
    """Follow the chain of tags; one that comes back to a tag would be followed for ever."""
    size, at, seen = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while 0 <= at <= size - 16:
            if at in seen:
                raise ValueError(f"the tag at byte {at} is its own successor")
            seen.add(at)
            file.seek(at)
            _, _, length, following = struct.unpack(">iIii", file.read(16))
            at = at + 16 + length if following == 0 else following


def _check_brainvision(path: Path) -> None:
    """Check that the header describes as many channels as it claims, and that the data file is there."""
    text = path.read_bytes().decode("utf-8", "replace")
    claimed = re.search(r"^NumberOfChannels=(\d+)", text, re.MULTILINE)
    described = len(re.findall(r"^Ch\d+=", text, re.MULTILINE))
    if claimed is None or int(claimed[1]) > described:
        count = claimed[1] if claimed else "an unknown number of"
        raise RecordingError(f"{path.name} claims {count} channels, describes {described}: export it again")
    data_file = re.search(r"^DataFile=(.+?)\s*$", text, re.MULTILINE)
    if data_file and not (path.parent / data_file[1]).is_file():
        raise RecordingError(
            f"{path.name} says its samples are in {data_file[1]}, which is not next to it: "
            "copy that file too, or correct the line DataFile= if it was renamed"
        )
