"""What tells that two files hold the same recording, whatever they and their subjects are called.

`fingerprint` is of the samples as they are stored: by it a recording is known that had a part in training.
`content_of` is of the recording as it was read, `asked_of` also of its markers: by them results are kept.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ConfigError, RecordingError
from streamer.sources.recording import Recording

# What NumPy raises on bytes that are no whole npz.
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


def fingerprint(stored: NDArray[Any]) -> str:
    """Return 16 hex digits that identify these samples as they are stored, (n_chans, n_times)."""
    head = f"{stored.dtype.str}{stored.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(stored).tobytes()).hexdigest()[:16]


def fingerprint_of_file(path: Path) -> str:
    """Return what identifies the recording: of an npz its samples, else the bytes of the file.

    `RecordingError` where an npz cannot be read.
    """
    if path.suffix.lower() == ".npz":
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return fingerprint(file["data"])
        except DAMAGED as error:
            raise RecordingError(f"{path} is damaged, or no recording: {error}") from error
    digest = hashlib.sha256()
    samples = path.with_suffix(".eeg")  # of BrainVision the header alone identifies nothing
    for part in (path, samples) if path.suffix.lower() == ".vhdr" and samples.is_file() else (path,):
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def refuse_copies(owned: Iterable[tuple[str, str, str]]) -> None:
    """Refuse the same samples under two people: who learned them would be tested on them, or count twice.

    Parameters
    ----------
    owned : iterable of (fingerprint, person, name)
        Of every recording.

    Raises
    ------
    ConfigError
        Names both recordings.
    """
    known: dict[str, tuple[str, str]] = {}
    for one, person, name in owned:
        whose, called = known.setdefault(one, (person, name))
        if whose != person:
            raise ConfigError(
                f"{person}/{name} holds the same samples as {whose}/{called}: leave one of them out, or name "
                "one person for both."
            )


def content_of(recording: Recording) -> str:
    """Return 16 hex digits of all that a decoder is fed: samples, times, rate, and names, types and unit."""
    info = recording.info
    told = [info.sfreq, info.ch_names, info.ch_types, info.unit, recording.data.shape]
    digest = hashlib.sha256(json.dumps(told).encode())
    for array in (recording.times, recording.data):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def asked_of(recording: Recording) -> str:
    """Return 16 hex digits of what a decoder is fed, and 16 of the markers: what it is asked and when."""
    marks = json.dumps([(one.time, one.label, one.duration) for one in recording.markers])
    return f"{content_of(recording)} {hashlib.sha256(marks.encode()).hexdigest()[:16]}"
