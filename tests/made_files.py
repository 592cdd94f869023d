"""Small files in the formats that recorders write, made up for tests."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def write_edf(
    path: Path,
    codes: Sequence[Array],
    labels: Sequence[str],
    *,
    onsets: Sequence[float] | None = None,
    notes: Sequence[tuple[float, float, str]] = (),
    unit: str = "uV",
) -> Path:
    """Write EDF+ of 1-s records, digital values as they are; ``onsets`` of the records make it EDF+D."""
    n_records, size = len(codes[0]), 60
    tals = [f"+{onset:g}\x14\x14\x00" for onset in (onsets or range(n_records))]
    tals[0] += "".join(f"+{at:g}\x15{lasts:g}\x14{text}\x14\x00" for at, lasts, text in notes)
    counts = [block.shape[1] for block in codes] + [size]
    names = [*labels, "EDF Annotations"]
    n_chans = len(names)
    fixed = (
        f"{'0':8}{'X X X X':80}{'Startdate X X X X':80}{'01.01.00':8}{'00.00.00':8}{256 * (n_chans + 1):<8}"
    )
    fixed += f"{'EDF+D' if onsets else 'EDF+C':44}{n_records:<8}{1:<8}{n_chans:<4}"
    fields = [(names, 16), ([""] * n_chans, 80), ([unit] * n_chans, 8)]
    for value in (-32768, 32767, -32768, 32767):
        fields.append(([str(value)] * n_chans, 8))
    fields += [([""] * n_chans, 80), ([str(count) for count in counts], 8), ([""] * n_chans, 32)]
    header = fixed + "".join(f"{value:{width}}" for values, width in fields for value in values)
    blob = header.encode("latin-1")
    for i in range(n_records):
        blob += b"".join(block[i].astype("<i2").tobytes() for block in codes)
        blob += tals[i].encode().ljust(2 * size, b"\x00")
    path.write_bytes(blob)
    return path


def write_xdf(path: Path, streams: Sequence[dict[str, Any]]) -> Path:
    """Write XDF; each stream has name, type, rate, stamps, values (text or float32), labels and unit."""
    blob = b"XDF:" + _chunk(1, b"<?xml version='1.0'?><info><version>1.0</version></info>")
    for number, stream in enumerate(streams, 1):
        values, identity = stream["values"], struct.pack("<I", number)
        text = isinstance(values, list)
        channels = "".join(
            f"<channel><label>{label}</label><type>EEG</type><unit>{stream.get('unit', '')}</unit></channel>"
            for label in stream.get("labels", ())
        )
        tags = {
            "name": stream["name"],
            "type": stream["type"],
            "channel_count": 1 if text else values.shape[1],
            "nominal_srate": stream["rate"],
            "channel_format": "string" if text else "float32",
            "source_id": f"source-{number}",
            "desc": f"<channels>{channels}</channels>",
        }
        info = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags.items())
        blob += _chunk(2, identity + f"<info>{info}</info>".encode())
        for stamp, value in zip(stream["stamps"], values, strict=True):
            body = b"\x01" + bytes([len(value)]) + value.encode() if text else value.astype("<f4").tobytes()
            blob += _chunk(3, identity + b"\x01\x01\x08" + struct.pack("<d", stamp) + body)
    path.write_bytes(blob)
    return path


def write_openbci(path: Path, counter: Array, data: Array, last: Sequence[str] | None, *, old: bool) -> Path:
    """Write a text file of the OpenBCI GUI; ``last`` is the time column."""
    n_chans = data.shape[1]
    lines = ["%OpenBCI Raw EXG Data", f"%Number of channels = {n_chans}", "%Sample Rate = 250 Hz"]
    if not old:
        names = [f"EXG Channel {i}" for i in range(n_chans)]
        lines.append(", ".join(["Sample Index", *names, "Accel Channel 0", *["Timestamp"] * bool(last)]))
    for i, (number, row) in enumerate(zip(counter, data, strict=True)):
        fields = [f"{number}", *(f"{value:.2f}" for value in row), "0.0"]
        lines.append(", ".join([*fields, *([last[i]] if last else [])]))
    path.write_text("\r\n".join(lines) + "\r\n")
    return path


def write_rows(path: Path, rows: Array) -> Path:
    """Write rows as BrainFlow's ``DataFilter.write_file`` does."""
    np.savetxt(path, rows, fmt="%.6f", delimiter="\t")
    return path


def write_muse(path: Path, stamps: Array, data: Array, codes: Array) -> Path:
    """Write a CSV as muse-lsl does."""
    lines = ["timestamps,TP9,AF7,AF8,TP10,Right AUX,Marker0"]
    for stamp, row, code in zip(stamps, data, codes, strict=True):
        lines.append(",".join([f"{stamp:.3f}", *(f"{value:.3f}" for value in row), f"{code}"]))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_npz(path: Path, data: Array, **others: Any) -> Path:
    """Write a prepared recording at 100 Hz; ``others`` replace or add arrays."""
    arrays: dict[str, Any] = {
        "data": data,
        "scale": np.full(len(data), 2.0),
        "offset": np.zeros(len(data)),
        "sfreq": 100.0,
        "units": "uV",
        "ch_names": [f"EMG{i}" for i in range(1, len(data) + 1)],
        "ch_types": ["emg"] * len(data),
        "events": np.array([[50, 25, 1], [100, 0, 7]], dtype=np.int32),
        "event_codes": json.dumps({"1": "fist"}),
        "meta": json.dumps({"continuous": True}),
    }
    np.savez(path, **{key: value for key, value in (arrays | others).items() if value is not None})
    return path


def write_epochs(
    path: Path,
    data: Array,
    onsets: Sequence[float],
    labels: Sequence[int],
    stages: Sequence[str],
    **others: Any,
) -> Path:
    """Write an npz of epochs (n_epochs, n_times) of one channel at 100 Hz, 0.5 µV and 1 µV off."""
    arrays: dict[str, Any] = {
        "data": data,
        "scale": 0.5,
        "offset": 1.0,
        "sfreq": 100.0,
        "units": "uV",
        "ch_names": ["EEG Fpz-Cz"],
        "labels": np.array(labels, dtype=np.int8),
        "epoch_onset_s": np.array(onsets, dtype=np.float32),
        "meta": json.dumps({"continuous": False, "stages": {str(i): name for i, name in enumerate(stages)}}),
    }
    np.savez(path, **{key: value for key, value in (arrays | others).items() if value is not None})
    return path


def write_brainvision(path: Path, codes: Array) -> Path:
    """Write a BrainVision header with data of int16 codes, shape (n_times, 2), 0.5 µV each, at 250 Hz."""
    text = f"""Brain Vision Data Exchange Header File Version 1.0
[Common Infos]
DataFile={path.stem}.eeg
MarkerFile={path.stem}.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels=2
SamplingInterval=4000
[Binary Infos]
BinaryFormat=INT_16
[Channel Infos]
Ch1=Fz,,0.5,µV
Ch2=Cz,,0.5,µV
"""
    markers = """Brain Vision Data Exchange Marker File Version 1.0
[Common Infos]
[Marker Infos]
Mk1=New Segment,,1,1,0,20200101000000000000
Mk2=Stimulus,S  1,51,1,0
Mk3=New Segment,,101,1,0,20200101000100000000
"""
    path.write_text(text, encoding="utf-8")
    path.with_suffix(".vmrk").write_text(markers)
    path.with_suffix(".eeg").write_bytes(codes.astype("<i2").tobytes())
    return path


def _chunk(tag: int, body: bytes) -> bytes:
    return struct.pack("<BIH", 4, len(body) + 2, tag) + body


def spoil(path: Path, member: str) -> None:
    """Flip bits of a compressed member, so that it cannot be unpacked."""
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(member).header_offset + 30 + len(member)
    content = bytearray(path.read_bytes())
    for place in range(start, len(content)):
        spoiled = content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        path.write_bytes(spoiled)
        try:
            with np.load(path) as file:
                file[member.removesuffix(".npy")]
        except zlib.error:
            return
        except (OSError, ValueError, zipfile.BadZipFile):
            continue
    raise AssertionError(f"no bit of {member} matters")


class Killed(Exception):
    """What an interruption in the middle of a file raises."""


def half_written(path: Path, content: bytes) -> int:
    """Write half of a file and be interrupted; in place of `Path.write_bytes`."""
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
    raise Killed
