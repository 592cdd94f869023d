"""What a table of people holds, before anybody says how it is to be read: `entries`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from offline.data import array_file, connectomes, roi
from offline.data.table_files import read_rows
from streamer.errors import RecordingError

SUFFIXES = (".npz", ".csv", ".tsv")


def entries(path: Path) -> list[dict[str, Any]]:
    """Return a row per person and modality of an npz of many people, or the rows of a subject table.

    Raises
    ------
    RecordingError
        The file is not there, damaged, or none of these.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RecordingError(f"{path} is no table of people: expected {', '.join(SUFFIXES)}.")
    if suffix != ".npz":
        return [dict(row) for row in read_rows(path, needs=("subject",))]
    arrays = array_file.read_npz(path)
    if "n_volumes" in arrays:
        return list(_series(path))
    if "subject" in arrays:
        return list(_connectomes(path))
    raise RecordingError(
        f"{path} holds {', '.join(arrays) or 'nothing'}; a table of connectomes has `subject`, one of time "
        "series `n_volumes`."
    )


def _connectomes(path: Path) -> Iterator[dict[str, Any]]:
    for one in connectomes.read_npz(path):
        yield {
            "subject": one.subject,
            "modality": one.modality,
            "regions": one.edges.shape[1],
            "bands": len(one.edges),
            "label": one.label,
            "site": one.site,
        }


def _series(path: Path) -> Iterator[dict[str, Any]]:
    for i, run in enumerate(roi.read_runs(path)):
        if run.data.ndim != 2:
            raise RecordingError(f"{run.name} has shape {run.data.shape}; expected volumes by regions.")
        yield {
            "subject": run.subject or f"{path.stem}_{i:03d}",
            "modality": "fmri",
            "regions": run.data.shape[1],
            "volumes": len(run.data),
            "tr_s": run.tr_s,
            "label": run.label,
            "site": run.site,
        }
