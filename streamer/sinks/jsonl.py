"""Decisions in a file, one JSON object a line."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Literal, Self

from streamer.errors import ConfigError
from streamer.sinks import SinkConfig
from streamer.types import Decision, DecisionInfo

log = logging.getLogger(__name__)


class Config(SinkConfig):
    """Append decisions to a file.

    Attributes
    ----------
    path : Path
        The file; an existing one is appended to.
    """

    kind: Literal["jsonl"] = "jsonl"
    path: Path

    def open(self, info: DecisionInfo) -> JsonlSink:
        """Open the file; `ConfigError` when it cannot be written."""
        return JsonlSink(info, self.path)


class JsonlSink:
    """One line per run, ``{"run", "bundle", "classes", "source"}``, then its decisions.

    Those are lines of ``{"index", "time", "probabilities": {class: p}, "label", "confidence", "valid"}``.

    Floats are written in full, so reading them back gives the same bits; what is not finite becomes null.
    Each line goes to the operating system at once (8 us): a killed session loses none, a power cut the last
    second.

    When the file cannot be written any more (disk full), the session goes on: the sink says so once on the
    log, takes back the half line, counts every decision from then on in ``lost`` and says at the end how
    many they were.

    Attributes
    ----------
    lost : int
        Decisions that are not in the file.
    """

    def __init__(self, info: DecisionInfo, path: Path) -> None:
        self.path = path
        self.lost = 0
        self._told = False
        self._classes = info.classes
        header = {
            "run": info.name,
            "bundle": info.meta.get("bundle"),
            "classes": list(info.classes),
            "source": info.source.name,
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: FileIO | None = path.open("ab", buffering=0)
            self._size = self._file.tell()
        except OSError as error:
            raise ConfigError(
                f"Decisions cannot be written to {path}: {error.strerror}. "
                "Choose another 'path' for the jsonl sink."
            ) from error
        self._append(self._file, header)

    def write(self, decision: Decision) -> None:
        """Append one line."""
        if self._file is None or not self._append(self._file, self._document(decision)):
            self.lost += 1

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self.lost and not self._told:
            self._told = True
            log.error("%d decisions are not in %s", self.lost, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _document(self, decision: Decision) -> dict[str, object]:
        shares = zip(self._classes, map(_finite, decision.probabilities), strict=True)
        return {
            "index": decision.index,
            "time": _finite(decision.time),
            "probabilities": dict(shares),
            "label": decision.label,
            "confidence": _finite(decision.confidence),
            "valid": decision.valid,
        }

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
            "decisions can no longer be written to %s (%s): the session goes on without", self.path, why
        )
        self._file = None
        with suppress(OSError):  # a device such as /dev/full has no size
            file.truncate(self._size)
        file.close()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
