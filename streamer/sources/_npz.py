"""The project's prepared recordings: one npz with samples, scale, names and events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from streamer.errors import RecordingError
from streamer.sources._content import Content
from streamer.sources._grid import regular
from streamer.types import Marker

_NEEDED = ("data", "sfreq", "ch_names", "units")
_OPTIONAL = ("scale", "offset", "ch_types", "events", "event_codes")


def read(path: Path) -> Content:
    """Read an npz of ``data`` (n_chans, n_times), ``scale`` and ``offset`` per channel, and ``events``.

    Samples are taken as they are: the 1-kHz rows of the UCI Myo recordings are a sample-and-hold of 200 Hz
    and stay so.
    """
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        meta = json.loads(str(file["meta"])) if "meta" in file.files else {}
        missing = [key for key in _NEEDED if key not in file.files]
        if missing or not meta.get("continuous", True):
            raise RecordingError(
                f"{path.name} is not a continuous recording "
                + (f"(it has no {', '.join(missing)})" if missing else "(it says so itself)")
                + ": nothing can be replayed from it; read its arrays with numpy.load"
            )
        arrays = {key: file[key] for key in (*_NEEDED, *_OPTIONAL) if key in file.files}
    data, sfreq = arrays["data"], float(arrays["sfreq"])
    names = [str(name) for name in arrays["ch_names"]]
    scale = np.broadcast_to(arrays.get("scale", 1.0), len(names))
    offset = np.broadcast_to(arrays.get("offset", 0.0), len(names))
    if data.ndim != 2 or len(data) != len(names):
        raise ValueError(f"{len(names)} channel names for data of shape {data.shape}")
    return Content(
        labels=names,
        types=[str(kind) for kind in arrays.get("ch_types", np.array([""] * len(names)))],
        units=[str(arrays["units"])] * len(names),
        column=lambda i: data[i] * float(scale[i]) + float(offset[i]),
        grid=regular(data.shape[1], sfreq),
        markers=_markers(arrays, sfreq),
        meta={"format": "npz", "file": meta},
    )


def _markers(arrays: dict[str, Any], sfreq: float) -> list[Marker]:
    """Return the events under their names."""
    names = json.loads(str(arrays.get("event_codes", "{}")))
    return [
        Marker(int(onset) / sfreq, names.get(str(code), str(code)), int(duration) / sfreq)
        for onset, duration, code in arrays.get("events", np.zeros((0, 3), int)).tolist()
    ]
