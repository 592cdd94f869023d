"""The YAML of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from engine.backends import BackendConfig
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.decision import DecisionConfig
from engine.faults import did_you_mean, faults
from streamer.components import Config, union
from streamer.dsp.quality import Config as Quality
from streamer.errors import ConfigError
from streamer.sinks import SinkConfig
from streamer.sources import SourceConfig

if TYPE_CHECKING:
    AnySource = SourceConfig
    AnySink = SinkConfig
    AnyBackend = BackendConfig
else:
    AnySource = union("streamer.sources")
    AnySink = union("streamer.sinks")
    AnyBackend = union("engine.backends")


class RunConfig(Config):
    """One live run: where samples come from, what decodes them, where decisions go.

    Attributes
    ----------
    max_gap_s : float
        Longest hole that is filled by interpolation (and marked invalid), s; a longer one resets the model.
    late : "catch_up" or "skip"
        When the computation falls behind a live stream: compute everything, late, or jump to the newest
        sample, which is counted and resets the model.
    stall_s, give_up_s : float
        After so many seconds without a sample say so; after so many more end the run.
    quality : Quality or None
        Signal checks before anything else; null switches them off.
    decision : DecisionConfig or None
        Overrides the bundle's own decision settings.
    """

    name: Annotated[str, Field(min_length=1)] = "bcistream"
    source: AnySource
    bundle: str
    backend: AnyBackend = OnnxRuntime()
    quality: Quality | None = Quality()
    decision: DecisionConfig | None = None
    max_gap_s: Annotated[float, Field(ge=0, le=1)] = 0.1
    late: Literal["catch_up", "skip"] = "catch_up"
    stall_s: Annotated[float, Field(gt=0)] = 2.0
    give_up_s: Annotated[float, Field(gt=0)] = 30.0
    sinks: tuple[AnySink, ...] = ()


def read(path: str | Path) -> RunConfig:
    """Read and check a run's YAML.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or has faults: all of them are listed with their paths.
    """
    return parse(_read_yaml(Path(path)), str(path))


def parse(raw: Any, where: str) -> RunConfig:
    """Check a run's settings; ``where`` names them in messages."""
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{where}: expected keys such as 'source:' and 'bundle:', got {type(raw).__name__}."
        )
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        hints = [
            did_you_mean(str(key), RunConfig.model_fields) for key in raw if key not in RunConfig.model_fields
        ]
        raise ConfigError(f"{where} has faults:\n{faults(error)}{''.join(hints)}") from error


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file: byte {error.start} is not UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path} is not YAML: {where}{error.problem}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # the last: a date such as 2024-13-45
        raise ConfigError(f"{path} is not YAML: {error}") from error
