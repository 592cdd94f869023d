"""A probe's features on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from offline.probe.features import Features
from offline.probe.recipe import Task, digest
from offline.probe.tasks import Windows


class Cache:
    """Features on disk, by what decides them, so that a probe goes on where it was interrupted.

    The last ones asked for also stay in memory: they are needed once per fraction.
    """

    def __init__(self, folder: Path, windows: Windows, task: Task) -> None:
        self._folder = folder
        self._about = task.digest() + windows.digest()
        self._last: tuple[str, Features] | None = None

    def get(self, what: str, make: Callable[[], Features]) -> Features:
        """Return the features called ``what`` of these windows, made where they are not there yet."""
        name = digest(self._about + what)
        if self._last is None or self._last[0] != name:
            path = self._folder / f"{name}.npy"
            if not path.is_file():
                self._folder.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".part.npy")
                np.save(partial, make())
                partial.replace(path)
            self._last = name, np.load(path, allow_pickle=False)
        return self._last[1]
