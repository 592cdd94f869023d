"""What tables of people are made of: subject tables as CSV or TSV, and folders of a file per person."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from offline.data.sources import subject_of
from streamer.errors import RecordingError

NOT_KNOWN = "n/a"  # of BIDS; as good as an empty cell


def read_rows(path: Path, needs: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV or TSV by the names in its first line, white space around cells removed.

    Rows without an entry in the first column that is needed are left out.

    Raises
    ------
    RecordingError
        No such file, not text, or a column that is needed is not there.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), delimiter=delimiter)
        columns = [name.strip() for name in reader.fieldnames or ()]
        rows = [{str(k).strip(): _cell(v) for k, v in row.items() if k is not None} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"Table {path} cannot be read: {error}") from error
    missing = [name for name in needs if name not in columns]
    if missing:
        raise RecordingError(
            f"Table {path} has no column {', '.join(missing)}; it has {', '.join(columns) or 'none'}."
        )
    return [row for row in rows if row[needs[0]]]


def read_labels(path: Path | None) -> dict[str, tuple[str, str]]:
    """Return label and site by subject, of a table with columns subject, label and perhaps site."""
    rows = [] if path is None else read_rows(path, needs=("subject", "label"))
    return {row["subject"]: (row["label"], row.get("site", "")) for row in rows}


def files_below(folder: Path, suffixes: Sequence[str], pattern: str | None) -> Iterator[tuple[str, Path]]:
    """Yield subject and path of the files of a folder, at any depth, sorted.

    Parameters
    ----------
    pattern : str or None
        Regular expression on a file's path below the folder, see `offline.data.sources.Folder`.

    Raises
    ------
    RecordingError
        No such folder, or no such file in it.
    """
    known = ", ".join(suffixes)
    if not folder.is_dir():
        what = f"{folder} is a single file" if folder.is_file() else f"No file or folder {folder}"
        raise RecordingError(f"{what}: expected an .npz of many people, or a folder of {known}.")
    found = False
    for path in sorted(p for p in folder.rglob("*") if p.name.lower().endswith(tuple(suffixes))):
        below = path.relative_to(folder)
        name = subject_of(below.with_suffix("") if below.suffix == ".gz" else below, pattern)
        if name is not None:
            found = True
            yield name, path
    if not found:
        fits = f" that fits subject: {pattern}" if pattern else ""
        raise RecordingError(f"{folder} holds no file{fits} among {known}.")


def _cell(value: object) -> str:
    text = str(value or "").strip()
    return "" if text.lower() == NOT_KNOWN else text
