"""What commands print: people's lines on standard error, one JSON document or a table on standard output."""

from __future__ import annotations

import json as jsonlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamer.errors import BciError

BORDER = 3  # of a table's column: a line and a space on either side
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class Output:
    """Where a command's words go.

    Parameters
    ----------
    json : bool
        Print exactly one JSON document on standard output, errors included.
    """

    def __init__(self, json: bool) -> None:
        self.json = json
        self._out = Console(highlight=False)

    def say(self, line: str) -> None:
        """Print a line for the person at the screen; a screen that is gone stops nothing.

        Not through rich, which would write past the console sink's live display instead of above it.
        """
        with suppress(OSError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def document(self, content: Mapping[str, Any]) -> None:
        """Print the one JSON document."""
        with _printed():
            sys.stdout.write(jsonlib.dumps(_finite(content), indent=2) + "\n")
            sys.stdout.flush()

    def results(self, named: Mapping[str, Mapping[str, Any]]) -> None:
        """Print several results of the same kind below each other, each behind its name; not for scripts."""
        for name, content in named.items():
            self.result({"name": name, **content})

    def result(self, content: Mapping[str, Any]) -> None:
        """Print a command's result: the document, or its entries line by line."""
        if self.json:
            self.document(content)
            return
        with _printed():
            for key, value in content.items():
                self._out.print(f"{key:>22}  {_words(value)}", markup=False, soft_wrap=True)

    def table(self, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print rows as a table with their keys as its columns: as several where it is too wide."""
        names = dict.fromkeys(key for row in rows for key in row)
        columns = [[str(name), *(_words(row.get(name, "")) for row in rows)] for name in names]
        columns = columns or [["nothing found"]]
        width = self._out.width
        if sum(_least(columns, width)) >= width:
            columns = [[name.replace("_", "_\n"), *column] for name, *column in columns]
        with _printed():
            for part in _parts(columns, width):
                # Above the table, not of it: a narrow one would break it.
                self._out.print(title, style="italic", markup=False, soft_wrap=True)
                self._out.print(_table(part, width))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the project's and the system's errors into one message and exit code 2; never a traceback."""
        try:
            yield
        except BciError as error:
            self._refuse(type(error).__name__, str(error))
            raise SystemExit(EXIT_ERROR) from None
        except OSError as error:  # a folder that cannot be written to, a disk that is full
            where = f"{error.filename}: " if error.filename is not None else ""
            self._refuse(type(error).__name__, f"{where}{error.strerror or error}")
            raise SystemExit(EXIT_ERROR) from None
        except KeyboardInterrupt:
            self._refuse("Interrupted", "interrupted; nothing is kept. The same command begins anew")
            raise SystemExit(EXIT_INTERRUPTED) from None

    def _refuse(self, kind: str, message: str) -> None:
        if self.json:
            self.document({"error": {"type": kind, "message": message}})
        else:
            self.say(f"error: {message}")


def _table(columns: Sequence[Sequence[str]], width: int) -> Table:
    """Return a table of columns, a name and then cells each; texts wrap, a single word only where it must."""
    table = Table()
    narrow = sum(_takes(column, str.splitlines) for column in columns) >= width
    for (name, *cells), least in zip(columns, _least(columns, width), strict=True):
        fixed = narrow and not any(" " in cell for cell in cells)
        table.add_column(Text(name), overflow="fold", width=max(1, least - BORDER) if fixed else None)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*map(Text, row))
    return table


def _parts(columns: Sequence[list[str]], width: int) -> Iterator[list[list[str]]]:
    """Yield columns that fit side by side, the first before each part: a figure that is cut is another."""
    (first, *others), (begin, *least) = columns, _least(columns, width)
    part, used = [first], begin
    for column, needed in zip(others, least, strict=True):
        if len(part) > 1 and used + needed >= width:
            yield part
            part, used = [first], begin
        part.append(column)
        used += needed
    yield part


def _least(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return how much of a line each column takes: so much that no word breaks, where there is room for it.

    Room is what the first column leaves, and of that no more than half where others follow.
    """
    first, *others = (_takes(column, str.split) for column in columns)
    first = min(first, width // 2 if others else width - 1)
    return [first, *(min(least, width - 1 - first) for least in others)]


def _takes(column: Sequence[str], parted: Callable[[str], list[str]]) -> int:
    """Return how much of a line a column takes whose cells are broken into such parts."""
    return BORDER + max(cell_len(part) for cell in column for part in parted(cell) or [""])


@contextmanager
def _printed() -> Iterator[None]:
    """Say in one line when standard output takes nothing: disk full, or a pipe that nobody reads."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            sys.stderr.write(f"error: the result cannot be printed: {error.strerror}\n")
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - else the interpreter fails on it once more
        raise SystemExit(EXIT_ERROR) from None


def _finite(value: Any) -> Any:
    """Replace NaN and infinities by null: they are not JSON."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "  ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(item) for item in value) or "none"
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
