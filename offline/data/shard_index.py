"""The files beside the tars: what the shards of a corpus are, and which subject is done."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.faults import faults
from streamer.components import Config
from streamer.errors import RecordingError

INDEX = "index.json"
SUBJECTS = "subjects"  # folder of the sidecars
FORMAT = 1
NPY_HEADER = 128  # bytes in front of the samples; NumPy pads to a multiple of 64
Position = tuple[float, float, float] | None


class Shard(Config):
    """A tar of segments of one subject and one montage, each ``<key>.json`` and ``<key>.x.npy``.

    Attributes
    ----------
    file : str
        Beside the index.
    n, bytes : int
        Segments; size of the file.
    offset, stride : int
        Where the first segment's samples lie, and how far apart the segments are, bytes.
    """

    file: str
    montage: str
    subject: str
    n: int
    bytes: int
    offset: int
    stride: int


class Place(Config):
    """A montage: channel names, and unit vectors (x right, y front, z up) or null where unknown."""

    ch_names: tuple[str, ...]
    positions: tuple[Position, ...]


class Sidecar(Config):
    """What became of one subject; its being there says that the subject is done.

    Attributes
    ----------
    settings : dict
        All that decided the content.
    files : dict of str to int
        Recordings and their bytes.
    signal_s, kept_s, short_s, seconds : float
        Signal read; signal in the shards; signal that filled no segment; time it took.
    """

    subject: str
    settings: dict[str, Any]
    files: dict[str, int]
    unit: str
    shards: tuple[Shard, ...]
    montages: dict[str, Place]
    fingerprints: tuple[str, ...]
    rejected: dict[str, int]
    failed: dict[str, str]
    notes: dict[str, int]
    signal_s: float
    kept_s: float
    short_s: float
    seconds: float


class Index(Config):
    """A corpus of shards.

    Attributes
    ----------
    settings : str
        Digest of all that decided the content.
    dsp : tuple of dict
        The DSP list behind which the samples are.
    n_times : int
        Samples of a segment; ``dtype`` and (n_chans, n_times), little-endian, in C order.
    subjects : dict of str to tuple of str
        Fingerprints of each one's recordings.
    hours : float
        Signal in the shards.
    """

    format: int = FORMAT
    settings: str
    stype: str
    sfreq: float
    unit: str
    dsp: tuple[dict[str, Any], ...]
    segment_s: float
    n_times: int
    dtype: str = "float16"
    montages: dict[str, Place]
    shards: tuple[Shard, ...]
    subjects: dict[str, tuple[str, ...]]
    hours: float
    rejected: dict[str, int]
    failed: dict[str, str]


def parse_index(text: str | bytes, where: str) -> Index:
    """Read an index.

    Raises
    ------
    RecordingError
        Not an index, or one of another format.
    """
    try:
        index = Index.model_validate_json(text)
    except ValidationError as error:
        raise RecordingError(f"{where} is no index of shards:\n{faults(error)}") from error
    if index.format != FORMAT:
        raise RecordingError(f"{where} has format {index.format}; this version reads {FORMAT}.")
    return index


def read_sidecar(path: Path) -> Sidecar | None:
    """Return a subject's sidecar, or None where it is not there or cannot be read."""
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write(path: Path, content: Config) -> None:
    """Write as JSON, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def slug(subject: str) -> str:
    """Return a file name for a subject: unlike for unlike names."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", subject)[:60]
    return plain if plain == subject else f"{plain}_{digest(subject)[:6]}"


def tars_of(output: Path, name: str) -> list[Path]:
    """Return a subject's tars, by the slug of its name, in order."""
    return sorted(output.glob(f"{name}-[0-9][0-9][0-9][0-9].tar"))


def montage_id(ch_names: Sequence[str]) -> str:
    """Return a name for these channels in this order."""
    return f"{len(ch_names)}ch-{digest(list(ch_names))[:8]}"


def digest(content: Any) -> str:
    """Return 16 hex digits of what can be JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def describe(path: Path, montage: str, subject: str) -> Shard:
    """Return the entry of a finished tar; its segments lie at equal distances, being of one shape."""
    with tarfile.open(path) as tar:
        starts = [member.offset_data for member in tar if member.name.endswith(".x.npy")]
    steps = {b - a for a, b in pairwise(starts)}
    assert len(steps) <= 1, f"{path}: segments of unequal size"
    size = path.stat().st_size
    return Shard(
        file=path.name,
        montage=montage,
        subject=subject,
        n=len(starts),
        bytes=size,
        offset=starts[0] + NPY_HEADER,
        stride=steps.pop() if steps else size,
    )
