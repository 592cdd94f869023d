"""Results on disk, kept as they come, so that an interrupted comparison goes on: `Results`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Results:
    """One JSON document per line, by what decides it.

    Parameters
    ----------
    path : Path
        Read where it is there; appended to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        content = path.read_text() if path.is_file() else ""
        self._cut = bool(content) and not content.endswith("\n")
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                self._known[entry.pop("key")] = entry
            except (ValueError, KeyError):
                continue  # the line that an interruption cut

    def get(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the scores under this key, made and kept where they are not there yet."""
        if key not in self._known:
            self._known[key] = make()
            with self._path.open("a") as stream:
                stream.write("\n" * self._cut)  # what comes next is no part of the line that was cut
                self._cut = False
                stream.write(json.dumps({"key": key, **self._known[key]}) + "\n")
        return self._known[key]
