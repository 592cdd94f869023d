"""A folder of continuous recordings: one sub-folder per subject, ``.npz`` files in it.

Each file holds ``data`` (n_chans, n_times), ``scale`` and ``offset`` (n_chans,) that bring it to ``units``,
``sfreq``, ``ch_names``, ``ch_types``, ``events`` (n, 3: onset and duration in samples, code),
``event_codes`` (JSON, code to label) and ``meta`` (JSON).  Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import RecordingError
from streamer.types import Marker, Samples, StreamInfo
from streamer.units import PER_VOLT

KEYS = ("data", "scale", "offset", "sfreq", "units", "ch_names", "ch_types", "events", "event_codes", "meta")


@dataclass(frozen=True, slots=True)
class Recording:
    """One continuous recording, in memory.

    Attributes
    ----------
    subject, name : str
        Folder and file name without suffix.
    info : StreamInfo
    data : ndarray, shape (n_times, n_chans), float32, µV
    markers : tuple of Marker
        On the recording's own clock: the first sample is at 0 s.
    meta : dict
        What the file says about itself.
    fingerprint : str
        Of the stored samples, whatever the file or the subject are called.
    """

    subject: str
    name: str
    info: StreamInfo
    data: Samples
    markers: tuple[Marker, ...]
    meta: dict[str, Any]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.data)

    def cues(self, labels: Collection[str]) -> list[Marker]:
        """Return the markers that carry one of these labels, in time order."""
        return [marker for marker in self.markers if marker.label in labels]


class Corpus:
    """The recordings of a folder.

    Attributes
    ----------
    folder : Path
    subjects : tuple of str
        Names of the sub-folders that hold recordings, sorted.

    Raises
    ------
    RecordingError
        No such folder, or no recording in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise RecordingError(
                f"No folder {self.folder}: expected one sub-folder per subject with .npz files."
            )
        self._files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.glob("*/*.npz")):
            self._files.setdefault(path.parent.name, []).append(path)
        self.subjects = tuple(self._files)
        if not self.subjects:
            raise RecordingError(
                f"{self.folder} holds no recording: expected one sub-folder per subject with .npz files."
            )

    def select(self, subjects: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return these subjects' names; a name may be a range, ``S001-S056``.  None means all.

        Raises
        ------
        RecordingError
            A subject that is not there.
        """
        if subjects is None:
            return self.subjects
        chosen: list[str] = []
        for name in subjects:
            found = [name] if name in self.subjects else self._between(*name.partition("-"))
            if not found:
                raise RecordingError(
                    f"{self.folder} has no subject {name!r}; it has {len(self.subjects)}, from "
                    f"{self.subjects[0]} to {self.subjects[-1]}."
                )
            chosen += [subject for subject in found if subject not in chosen]
        return tuple(chosen)

    def _between(self, first: str, dash: str, last: str) -> list[str]:
        """Return the subjects from the first name to the last; none without a dash between them."""
        return [subject for subject in self.subjects if dash and first <= subject <= last]

    def files(self, subject: str) -> tuple[Path, ...]:
        """Return a subject's files, in run order."""
        return tuple(self._files[subject])

    def recordings(self, subject: str) -> list[Recording]:
        """Read a subject's recordings."""
        return [read(path) for path in self.files(subject)]


def read(path: Path) -> Recording:
    """Read one recording.

    Raises
    ------
    RecordingError
        Not an ``.npz`` of this layout, or damaged.
    """
    try:
        # numpy leaves the file open when it turns out not to be an archive
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            content = {key: file[key] for key in KEYS if key in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RecordingError(f"{path} cannot be read as a recording: {error}.") from error
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise RecordingError(f"{path} lacks {', '.join(missing)}: expected the layout of {', '.join(KEYS)}.")
    try:
        return _recording(path, content)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise RecordingError(f"{path} is not a recording of the expected layout: {error}.") from error


def _recording(path: Path, content: dict[str, NDArray[Any]]) -> Recording:
    stored, unit, sfreq = content["data"], str(content["units"]), float(content["sfreq"])
    if stored.ndim != 2 or unit not in PER_VOLT:
        raise ValueError(
            f"data of shape {stored.shape} in {unit!r}; expected (n_chans, n_times) in V, mV or uV"
        )
    physical = stored * content["scale"][:, None] + content["offset"][:, None]
    microvolts = physical.T * (PER_VOLT["uV"] / PER_VOLT[unit])  # (n_times, n_chans)
    name = path.stem
    info = StreamInfo(
        name=name,
        source_id=f"{path.parent.name}/{name}",
        stype="EEG",
        sfreq=sfreq,
        ch_names=tuple(str(channel) for channel in content["ch_names"]),
        ch_types=tuple(str(kind).lower() for kind in content["ch_types"]),
        unit="uV",
    )
    if microvolts.shape[1] != info.n_chans:
        raise ValueError(f"{microvolts.shape[1]} rows of data but {info.n_chans} channel names")
    return Recording(
        subject=path.parent.name,
        name=name,
        info=info,
        data=np.ascontiguousarray(microvolts, dtype=np.float32),
        markers=_markers(content, sfreq),
        meta=dict(json.loads(str(content["meta"]))),
        fingerprint=fingerprint(stored),
    )


def _markers(content: dict[str, NDArray[Any]], sfreq: float) -> tuple[Marker, ...]:
    labels = json.loads(str(content["event_codes"]))
    events = content["events"].reshape(-1, 3)
    markers = [
        Marker(float(onset) / sfreq, str(labels[str(int(code))]), float(duration) / sfreq)
        for onset, duration, code in events
    ]
    return tuple(sorted(markers, key=lambda marker: marker.time))


def fingerprint(stored: NDArray[Any]) -> str:
    """Return 16 hex digits that identify these samples as they are stored, (n_chans, n_times)."""
    head = f"{stored.dtype.str}{stored.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(stored).tobytes()).hexdigest()[:16]
