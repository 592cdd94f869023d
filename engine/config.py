"""The YAML of a session: a run, tokens, or listening to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, Field, NonNegativeInt, ValidationError, model_validator

from engine.backends import BackendConfig
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.faults import did_you_mean, faults
from engine.manifest import MAX_ROWS
from engine.operating import Override
from streamer.components import Config, union
from streamer.dsp.quality import Config as Quality
from streamer.errors import ConfigError
from streamer.sinks import SinkConfig
from streamer.sources import SourceConfig
from streamer.sources.lsl import Config as Lsl

if TYPE_CHECKING:
    AnySource = SourceConfig
    AnySink = SinkConfig
    AnyBackend = BackendConfig
else:
    AnySource = union("streamer.sources")
    AnySink = union("streamer.sinks")
    AnyBackend = union("engine.backends")

KEPT_AS = (".jsonl", ".npz")


def _kept(path: Path) -> Path:
    if path.suffix not in KEPT_AS:
        raise ValueError(
            f"codes are kept as {' or '.join(KEPT_AS)}, told by the ending; not as {path.name!r}"
        )
    return path


class SessionConfig(Config):
    """What every live session has.

    Attributes
    ----------
    name : str
        Of the session and of the stream that it publishes.
    late : "catch_up" or "skip"
        When the computation falls behind a live stream: compute everything, late, or jump to the newest
        sample, which is counted and resets the model.
    stall_s, give_up_s : float
        After so many seconds without a sample say so; after so many more end the session.
    realtime : bool
        Run before every ordinary process; Linux, where the system allows it.
    cores : tuple of int or None
        Run on these processor cores alone; Linux.
    """

    name: Annotated[str, Field(min_length=1)] = "bcistream"
    bundle: str
    backend: AnyBackend = OnnxRuntime()
    late: Literal["catch_up", "skip"] = "catch_up"
    stall_s: Annotated[float, Field(gt=0)] = 2.0
    give_up_s: Annotated[float, Field(gt=0)] = 30.0
    realtime: bool = False
    cores: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None


class AcceptConfig(SessionConfig):
    """A session on a biosignal: what of it is accepted.

    Attributes
    ----------
    max_gap_s : float
        Longest hole that is filled by interpolation (and marked invalid), s; a longer one resets the model.
        Also the longest glitch that is held: see `streamer.glitch`.
    quality : Quality or None
        Signal checks before anything else; null switches them off.
    """

    quality: Quality | None = Quality()
    max_gap_s: Annotated[float, Field(ge=0, le=1)] = 0.1


class SignalConfig(AcceptConfig):
    """A session on one biosignal: where its samples come from."""

    source: AnySource


class RunConfig(SignalConfig):
    """One live run: where samples come from, what decodes them, where decisions go.

    Attributes
    ----------
    decision : Override or None
        What is other than in the bundle's own decision settings: the keys that are given.
    calibration : Path or None
        File of `bcistream calibrate`: the head refitted to this person; relative to the working directory.
    """

    decision: Override | None = None
    calibration: Path | None = None
    sinks: tuple[AnySink, ...] = ()


class StreamConfig(Config):
    """One of several streams.

    Attributes
    ----------
    name : str or None
        What its decisions are called; its number, from 1, by default.
    calibration : Path or None
        As in a run of one stream.
    """

    source: AnySource
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    calibration: Path | None = None


class ManyConfig(AcceptConfig):
    """One live run of several streams, stepped together.

    Attributes
    ----------
    sources : tuple of StreamConfig
    patience_s : float or None
        How long a decision may wait for those of the other streams, s; a quarter of a hop by default.
    decision, sinks
        As in a run of one stream; each stream has sinks of its own.
    """

    sources: Annotated[tuple[StreamConfig, ...], Field(min_length=1, max_length=MAX_ROWS)]
    patience_s: Annotated[float, Field(ge=0, le=60)] | None = None
    decision: Override | None = None
    sinks: tuple[AnySink, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What the streams' decisions are called."""
        return tuple(one.name or str(number) for number, one in enumerate(self.sources, start=1))

    def alone(self) -> dict[str, RunConfig]:
        """Return for each stream the run of that one alone."""
        shared = {name: getattr(self, name) for name in RunConfig.model_fields if hasattr(self, name)}
        return {
            name: RunConfig.model_validate({**shared, "source": one.source, "calibration": one.calibration})
            for name, one in zip(self.names, self.sources, strict=True)
        }

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(
                f"two of the sources are called {', '.join(sorted(twice))}: each has its own name"
            )
        return self


class TokensConfig(SignalConfig):
    """A biosignal turned into a stream of codes, or of latents.

    Attributes
    ----------
    publish : "codes" or "latent"
        Codes, which `bcistream listen` turns back into a waveform, or the continuous latent before the
        quantiser, which classifiers prefer.
    lsl : bool
        Publish them as an LSL stream.
    file : Path or None
        Also keep them: ``.jsonl``, line by line as they come, or ``.npz``, written at the end.
    """

    publish: Literal["codes", "latent"] = "codes"
    lsl: bool = True
    file: Annotated[Path, AfterValidator(_kept)] | None = None


class ListenConfig(SessionConfig):
    """A stream of codes turned back into a waveform.

    Attributes
    ----------
    source : Lsl
        Which stream; one that `bcistream tokens` publishes.
    """

    source: Lsl


COMMANDS: dict[str, type[SessionConfig]] = {"run": RunConfig, "tokens": TokensConfig, "listen": ListenConfig}
Settings = TypeVar("Settings", bound=SessionConfig)


def read(path: str | Path) -> RunConfig:
    """Read and check a run's YAML; as `read_as`."""
    return read_as(RunConfig, path)


def parse(raw: Any, where: str) -> RunConfig:
    """Check a run's settings; as `parse_as`."""
    return parse_as(RunConfig, raw, where)


def read_run(path: str | Path) -> RunConfig | ManyConfig:
    """Read and check a run's YAML, of one stream or, where it has ``sources``, of several; as `read_as`."""
    raw = read_yaml(Path(path))
    several = isinstance(raw, dict) and "sources" in raw
    return parse_as(ManyConfig, raw, str(path)) if several else parse_as(RunConfig, raw, str(path))


def read_as(kind: type[Settings], path: str | Path) -> Settings:
    """Read and check the YAML of a session of this kind.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or has faults: all of them are listed with their paths.
    """
    return parse_as(kind, read_yaml(Path(path)), str(path))


def parse_as(kind: type[Settings], raw: Any, where: str) -> Settings:
    """Check the settings of a session of this kind; ``where`` names them in messages."""
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{where}: expected keys such as 'source:' and 'bundle:', got {type(raw).__name__}."
        )
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        hints = [_hint(str(key), kind) for key in raw if key not in kind.model_fields]
        raise ConfigError(f"{where} has faults:\n{faults(error)}{''.join(hints)}") from error


def _hint(key: str, kind: type[SessionConfig]) -> str:
    """Say which key was meant, or for which command this one is."""
    if kind is ManyConfig and key in ("source", "calibration"):
        return f"\n  {key!r} is given for each of the 'sources', not for all of them."
    if kind is not ManyConfig and key == "sources":
        made = " and name the file that it makes under `sources[i].calibration`" if kind is RunConfig else ""
        one = f"this command takes one stream: use a YAML with one `source`{made}."
        return f"\n  'sources' is for `bcistream run`; {one}"
    owners = [name for name, owner in COMMANDS.items() if key in owner.model_fields]
    if owners:
        commands = " and ".join(f"`bcistream {name}`" for name in owners)
        return f"\n  {key!r} is a key for {commands}, not for this command."
    return did_you_mean(key, kind.model_fields)


def there_or_shipped(path: str | Path) -> Path:
    """Return the path, or for ``configs/x.yaml`` that is not there the file of this name in the package."""
    path, package = Path(path), Path(__file__).parent
    if path.parent != Path("configs") or path.exists():
        return path
    places = (package / path, package.parent / path)  # in a wheel; in a checkout
    return next((place for place in places if place.is_file()), path)


def read_yaml(path: Path) -> Any:
    """Read a YAML file, whatever is in it; `ConfigError` when it cannot be read or is none."""
    try:
        text = there_or_shipped(path).read_text(encoding="utf-8")
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
