"""A file of JSON lines that a full disk does not take down with it."""

from __future__ import annotations

import errno
import json
import logging
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, Self

from streamer.errors import ConfigError

log = logging.getLogger(__name__)

MAX_HEADER = 1_000_000  # bytes: a file without lines is not read whole


class JsonLines:
    """Appends one JSON object per line; a context manager.

    Each line goes to the operating system at once (8 us): a killed session loses none, a power cut the last
    second.

    When the file cannot be written any more (disk full), the session goes on: this says so once on the log,
    takes back the half line, counts everything from then on in ``lost`` and says at the end how much it was.

    Parameters
    ----------
    path : Path
        An existing file that begins with such a header is appended to.
    header : dict
        The first line; by its keys a file of the same kind is known.
    what : str
        What the lines are, for people.
    advice : str
        What to do when the file cannot be opened.

    Attributes
    ----------
    lost : int
        Lines that are not in the file.
    """

    def __init__(self, path: Path, header: dict[str, Any], what: str, advice: str) -> None:
        self.path = path
        self.lost = 0
        self._what = what
        self._told = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not _begins_like(path, header):
                raise ConfigError(
                    f"{path} is there already and does not begin as a file of {what} does, so nothing is "
                    f"appended to it. {advice}"
                )
            self._file: FileIO | None = path.open("ab", buffering=0)
            if _ends_inside_a_line(path):
                self._file.write(b"\n")
            self._size = self._file.tell()
        except OSError as error:
            raise ConfigError(
                f"{what.capitalize()} cannot be written to {path}: {error.strerror}. {advice}"
            ) from error
        self._append(self._file, header)

    def append(self, document: dict[str, Any]) -> None:
        """Append one line."""
        if self._file is None or not self._append(self._file, document):
            self.lost += 1

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self.lost and not self._told:
            self._told = True
            log.error("%d %s are not in %s", self.lost, self._what, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _append(self, file: FileIO, document: dict[str, object]) -> bool:
        """Write one line; say whether it is in the file."""
        line = (json.dumps(document) + "\n").encode()
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._give_up(file, error)
            return False
        self._size += len(line)
        return True

    def _give_up(self, file: FileIO, error: OSError) -> None:
        why = error.strerror
        log.error(
            "%s can no longer be written to %s (%s): the session goes on without",
            self._what, self.path, why,
        )  # fmt: skip
        self._file = None
        with suppress(OSError):  # a device such as /dev/full has no size
            file.truncate(self._size)
        file.close()


def _ends_inside_a_line(path: Path) -> bool:
    """Say whether somebody was killed while writing: what follows begins a line of its own."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _begins_like(path: Path, header: dict[str, Any]) -> bool:
    """Say whether what is there may be appended to: nothing, a device, or lines behind such a header."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        first = file.readline(MAX_HEADER)
    try:
        found = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() == header.keys()
