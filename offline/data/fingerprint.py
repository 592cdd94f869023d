"""What tells that two files hold the same recording, whatever they and their subjects are called."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def fingerprint(stored: NDArray[Any]) -> str:
    """Return 16 hex digits that identify these samples as they are stored, (n_chans, n_times)."""
    head = f"{stored.dtype.str}{stored.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(stored).tobytes()).hexdigest()[:16]


def fingerprint_of_file(path: Path) -> str:
    """Return what identifies the recording: of an npz its samples, else the bytes of the file."""
    if path.suffix.lower() == ".npz":
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return fingerprint(file["data"])
    digest = hashlib.sha256()
    samples = path.with_suffix(".eeg")  # of BrainVision the header alone identifies nothing
    for part in (path, samples) if path.suffix.lower() == ".vhdr" and samples.is_file() else (path,):
        with part.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
