"""Decisions in a file, one JSON object a line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

from streamer.errors import ConfigError
from streamer.lines import JsonLines
from streamer.sinks import SinkConfig
from streamer.types import Decision, DecisionInfo


class Config(SinkConfig):
    """Append decisions to a file.

    Attributes
    ----------
    path : Path
        The file; an existing one of decisions is appended to, any other is refused.
    """

    kind: Literal["jsonl"] = "jsonl"
    path: Path

    def open(self, info: DecisionInfo) -> JsonlSink:
        """Open the file; `ConfigError` when it cannot be written."""
        return JsonlSink(info, self.path)

    def of_stream(self, name: str) -> Self:
        """Return the settings with the stream's name in that of the file; `ConfigError` where it has none."""
        if not self.path.name:
            raise ConfigError(f"{str(self.path)!r} is no file for decisions: give a path such as said.jsonl.")
        return self.model_copy(update={"path": self.path.with_stem(f"{self.path.stem}-{name}")})


class JsonlSink(JsonLines):
    """One line per run, ``{"run", "bundle", "classes", "source"}``, then its decisions.

    Those are lines of ``{"index", "time", "probabilities": {class: p}, "label", "confidence", "valid"}``.

    Floats are written in full, so reading them back gives the same bits; what is not finite becomes null.

    Attributes
    ----------
    lost : int
        Decisions that are not in the file.
    """

    def __init__(self, info: DecisionInfo, path: Path) -> None:
        self._classes = info.classes
        header = {
            "run": info.name,
            "bundle": info.meta.get("bundle"),
            "classes": list(info.classes),
            "source": info.source.name,
        }
        super().__init__(path, header, "decisions", "Choose another 'path' for the jsonl sink.")

    def write(self, decision: Decision) -> None:
        """Append one line."""
        self.append(self._document(decision))

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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
