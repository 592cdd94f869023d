"""CSV files of muse-lsl: time stamps, the channels of a Muse headband, perhaps markers."""

from __future__ import annotations

from pathlib import Path

from streamer.sources._content import Content
from streamer.sources._grid import from_stamps
from streamer.sources._table import read_columns, read_lines

_EEG_SFREQ, _PPG_SFREQ, _MOTION_SFREQ = 256.0, 64.0, 52.0  # Hz; the file does not say


def read(path: Path) -> Content:
    """Read a CSV of muse-lsl; EEG is in µV, optics and motion in the device's units."""
    (names, *rows), notes = read_lines(path)
    labels = [name.strip() for name in names.split(",")][1:]
    columns = read_columns(path, rows, ",", range(len(labels) + 1))
    is_eeg = "TP9" in labels
    is_ppg = any(label.startswith("PPG") for label in labels)
    sfreq = _EEG_SFREQ if is_eeg else _PPG_SFREQ if is_ppg else _MOTION_SFREQ
    kind = "EEG" if is_eeg else "PPG" if is_ppg else "motion"
    return Content(
        labels=labels,
        types=[kind] * len(labels),
        units=["uV" if is_eeg else ""] * len(labels),
        column=lambda i: columns[i + 1],
        grid=from_stamps(columns[0], sfreq),
        meta={"format": "muse-lsl"},
        notes=notes,
        stype=kind,
    )
