"""EDF, EDF+ and BDF files.

Read here rather than through MNE, which places the records of an interrupted EDF+D one after the other and
resamples slower channels to the fastest one.  On continuous files of one rate the values are MNE's.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.errors import RecordingError
from streamer.sources._content import Content
from streamer.sources._grid import Grid, from_index, regular
from streamer.sources._names import channel_type
from streamer.types import Marker

_FIELDS = (16, 80, 8, 8, 8, 8, 8, 80, 8)  # bytes: label, transducer, unit, four ranges, filter, samples
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_TRIGGER_BITS = 0xFFFF  # of a BioSemi status word; those above tell the amplifier's state
# onset, duration and texts of one time-stamped annotation list
_TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14([^\x00]*)\x14\x00")


@dataclass(frozen=True)
class _Channel:
    """A channel's header; ``start`` is its first byte in a record, ``gain`` is nan where none is given."""

    label: str
    unit: str
    gain: float
    offset: float
    n_samples: int
    start: int


@dataclass(frozen=True)
class _Header:
    """The file's header; ``width`` is the bytes of a sample, 2 for EDF and 3 for BDF."""

    channels: tuple[_Channel, ...]
    interrupted: bool
    n_records: int
    record_s: float
    width: int
    n_bytes: int


def read(path: Path) -> Content:
    """Read an EDF or BDF file."""
    header = _read_header(path)
    signals = [channel for channel in header.channels if channel.label not in _ANNOTATIONS]
    if not signals:
        raise RecordingError(
            f"{path.name} holds annotations only and no signal: open the recording that it belongs to"
        )
    n_records, notes = _n_records(path, header)
    record_bytes = sum(channel.n_samples for channel in header.channels) * header.width
    records = np.memmap(path, np.uint8, "r", header.n_bytes, (n_records, record_bytes))
    markers, onsets = _annotations(header, records)
    channels, left_out = _of_one_rate(signals, header.record_s)
    if not channels:
        raise RecordingError(f"{path.name} gives no channel a scale: export it again")
    return Content(
        labels=[channel.label for channel in channels],
        types=[""] * len(channels),
        units=[channel.unit for channel in channels],
        column=lambda i: _physical(channels[i], records, header.width),
        grid=_grid(header, onsets, n_records, channels[0].n_samples),
        markers=markers,
        meta={"format": "BDF" if header.width == 3 else "EDF"},
        notes=notes,
        left_out=left_out,
    )


def _read_header(path: Path) -> _Header:
    """Read the header; a number that is none raises ValueError."""
    with path.open("rb") as file:
        fixed = file.read(256)
        n_chans = int(fixed[252:256])
        block = file.read(256 * n_chans)
    if n_chans < 1 or len(block) < 256 * n_chans:
        raise RecordingError(f"{path.name} ends within its header of {n_chans} channels: copy it again")
    width = 3 if fixed[:1] == b"\xff" else 2
    record_s = float(fixed[244:252])
    channels = _read_channels(block, n_chans, width)
    if not record_s > 0 and any(channel.label not in _ANNOTATIONS for channel in channels):
        raise ValueError(f"a data record lasts {record_s} s")
    interrupted = fixed[195:197] == b"+D"
    return _Header(channels, interrupted, int(fixed[236:244]), record_s, width, 256 * (n_chans + 1))


def _read_channels(block: bytes, n_chans: int, width: int) -> tuple[_Channel, ...]:
    """Return the channels from the second part of the header, which goes field by field."""
    fields, at = [], 0
    for size in _FIELDS:
        text = block[at : at + n_chans * size].decode("latin-1")
        fields.append([text[i * size : (i + 1) * size].strip("\x00 ") for i in range(n_chans)])
        at += n_chans * size
    labels, _, units, *ranges, _, counts = fields
    numbers = np.array([[float(value.replace(",", ".") or "nan") for value in row] for row in ranges])
    low, high, digital_low, digital_high = numbers
    span = np.where(digital_high == digital_low, np.nan, digital_high - digital_low)
    gains = np.where(high == low, np.nan, (high - low) / span)
    n_samples = [int(count) for count in counts]
    if min(n_samples) < 0 or sum(n_samples) == 0:
        raise ValueError(f"samples per record are {n_samples}")
    starts = np.cumsum([0, *n_samples[:-1]]) * width
    offsets = low - digital_low * gains
    rows = zip(labels, units, gains.tolist(), offsets.tolist(), n_samples, starts.tolist(), strict=True)
    return tuple(_Channel(*row) for row in rows)


def _n_records(path: Path, header: _Header) -> tuple[int, list[str]]:
    """Return the number of whole records in the file, and a note where the header says another."""
    record_bytes = sum(channel.n_samples for channel in header.channels) * header.width
    found = (path.stat().st_size - header.n_bytes) // record_bytes
    if found < 1:
        raise RecordingError(
            f"{path.name} ends within its first data record of {header.record_s:g} s: copy it again"
        )
    if found == header.n_records:
        return found, []
    return found, [f"the header says {header.n_records} data records, the file holds {found}: those are read"]


def _of_one_rate(signals: list[_Channel], record_s: float) -> tuple[list[_Channel], dict[str, str]]:
    """Return the channels that share the rate of most electrodes (of two, the faster), and the others."""
    electrodes = [c for c in signals if channel_type(c.label) not in ("stim", "other")] or signals
    counts = Counter(channel.n_samples for channel in electrodes)
    n_samples = max(counts, key=lambda count: (counts[count], count))
    kept, left_out = [], {}
    for channel in signals:
        if channel.n_samples != n_samples:
            rates = f"{channel.n_samples / record_s:g} Hz, the recording's {n_samples / record_s:g} Hz"
            left_out[channel.label] = f"its rate is {rates}"
        elif not np.isfinite(channel.gain):
            left_out[channel.label] = "the header gives no scale"
        else:
            kept.append(channel)
    return kept, left_out


def _physical(channel: _Channel, records: NDArray[np.uint8], width: int) -> NDArray[np.float64]:
    """Return a channel's samples in its own unit, shape (n_times,)."""
    raw = np.ascontiguousarray(records[:, channel.start : _stop(channel, width)])
    if width == 2:
        return np.asarray(raw.view("<i2").ravel(), np.float64) * channel.gain + channel.offset
    low, middle, high = raw.reshape(-1, 3).T.astype(np.int32)
    codes = low | middle << 8 | (high ^ 0x80) - 0x80 << 16  # two's complement of 24 bits
    if channel_type(channel.label) == "stim":
        return (codes & _TRIGGER_BITS).astype(np.float64)
    return np.asarray(codes, np.float64) * channel.gain + channel.offset


def _annotations(header: _Header, records: NDArray[np.uint8]) -> tuple[list[Marker], list[float]]:
    """Return the annotations, and the onsets of the records in seconds (none where the file keeps none)."""
    found: list[tuple[float, float, bytes]] = []
    onsets: list[float] = []
    lists = [channel for channel in header.channels if channel.label in _ANNOTATIONS]
    for channel in lists:
        for text in np.ascontiguousarray(records[:, channel.start : _stop(channel, header.width)]):
            tals = _TAL.findall(text.tobytes())
            told = [(float(at), float(lasts or 0), labels) for at, lasts, labels in tals]
            found += told
            if channel is lists[0] and told:
                onsets.append(told[0][0])
    origin = onsets[0] if onsets else 0.0
    return [
        Marker(at - origin, label, lasts)
        for at, lasts, labels in found
        for label in labels.decode("utf-8", "replace").split("\x14")
        if label
    ], onsets


def _grid(header: _Header, onsets: list[float], n_records: int, n_samples: int) -> Grid:
    """Return the time axis; the records of an interrupted file start where their annotations say."""
    sfreq = n_samples / header.record_s
    if not header.interrupted:
        return regular(n_records * n_samples, sfreq)
    if len(onsets) != n_records:
        raise ValueError(f"{len(onsets)} of {n_records} interrupted records say when they start")
    missing = np.rint((np.diff(onsets) - header.record_s) * sfreq).astype(np.int64)
    if np.any(missing < 0):
        raise ValueError("interrupted records overlap in time")
    starts = np.concatenate([[0], np.cumsum(n_samples + missing)])
    return from_index((starts[:, np.newaxis] + np.arange(n_samples)).ravel(), sfreq)


def _stop(channel: _Channel, width: int) -> int:
    """Return the byte of a record at which the channel ends."""
    return channel.start + channel.n_samples * width
