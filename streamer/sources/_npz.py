"""The project's prepared recordings: one npz with samples, scale, names and events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from streamer.errors import RecordingError
from streamer.sources._content import Content
from streamer.sources._grid import Grid, from_index, regular
from streamer.types import Marker

_NEEDED = ("data", "sfreq", "ch_names", "units")
_OPTIONAL = ("scale", "offset", "ch_types", "events", "event_codes")
_EPOCHS = ("epoch_onset_s", "labels")


def read(path: Path) -> Content:
    """Read an npz of ``data`` (n_chans, n_times), ``scale`` and ``offset`` per channel, and ``events``.

    One that is not continuous is read where it tells when each piece began: ``data`` (n_epochs, n_times) of
    one channel, ``epoch_onset_s``, and ``labels``, each of which becomes a marker as long as its epoch.
    Time jumps wherever an epoch does not follow the last.

    Samples are taken as they are: the 1-kHz rows of the UCI Myo recordings are a sample-and-hold of 200 Hz
    and stay so.
    """
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        meta = json.loads(str(file["meta"])) if "meta" in file.files else {}
        missing = [key for key in _NEEDED if key not in file.files]
        epoched = not missing and all(key in file.files for key in _EPOCHS)
        if missing or not (meta.get("continuous", True) or epoched):
            raise RecordingError(
                f"{path.name} is not a continuous recording "
                + (f"(it has no {', '.join(missing)})" if missing else "(it says so itself)")
                + ": nothing can be replayed from it; read its arrays with numpy.load"
            )
        wanted = (*_NEEDED, *_OPTIONAL, *(_EPOCHS if epoched else ()))
        arrays = {key: file[key] for key in wanted if key in file.files}
    names = [str(name) for name in arrays["ch_names"]]
    sfreq = float(arrays["sfreq"])
    data, grid, markers = (_epochs if epoched else _continuous)(arrays, sfreq, meta)
    scale = np.broadcast_to(arrays.get("scale", 1.0), len(names))
    offset = np.broadcast_to(arrays.get("offset", 0.0), len(names))
    if data.ndim != 2 or len(data) != len(names):
        raise ValueError(f"{len(names)} channel names for data of shape {arrays['data'].shape}")
    return Content(
        labels=names,
        types=[str(kind) for kind in arrays.get("ch_types", np.array([""] * len(names)))],
        units=[str(arrays["units"])] * len(names),
        column=lambda i: data[i] * float(scale[i]) + float(offset[i]),
        grid=grid,
        markers=markers,
        meta={"format": "npz", "file": meta},
    )


def _continuous(
    arrays: dict[str, Any], sfreq: float, _meta: dict[str, Any]
) -> tuple[Any, Grid, list[Marker]]:
    """Return the samples (n_chans, n_times), their times, and the events under their names."""
    names = json.loads(str(arrays.get("event_codes", "{}")))
    markers = [
        Marker(int(onset) / sfreq, names.get(str(code), str(code)), int(duration) / sfreq)
        for onset, duration, code in arrays.get("events", np.zeros((0, 3), int)).tolist()
    ]
    return arrays["data"], regular(arrays["data"].shape[-1], sfreq), markers


def _epochs(arrays: dict[str, Any], sfreq: float, meta: dict[str, Any]) -> tuple[Any, Grid, list[Marker]]:
    """Return the samples (1, n_times) of all epochs, their times, and a marker for each epoch."""
    data, labels = arrays["data"], arrays["labels"].tolist()
    starts = np.rint(arrays["epoch_onset_s"].astype(np.float64) * sfreq).astype(np.int64)
    if data.ndim != 2 or data.shape[1] < 1 or starts.shape != data.shape[:1] or len(labels) != len(data):
        raise ValueError(f"{starts.shape} onsets and {len(labels)} labels for epochs of shape {data.shape}")
    n_times = data.shape[1]
    if np.any(np.diff(starts) < n_times):
        place = int(np.argmax(np.diff(starts) < n_times)) + 1
        raise ValueError(f"epoch {place} begins before the last one's {n_times} samples are over")
    stages = meta.get("stages", {})
    markers = [
        Marker(start / sfreq, stages.get(str(label), str(label)), n_times / sfreq)
        for start, label in zip((starts - starts[:1]).tolist(), labels, strict=True)
    ]
    grid = from_index((starts[:, None] + np.arange(n_times)).reshape(-1), sfreq)
    return data.reshape(1, -1), grid, markers
