"""Reads, changes and checks YAML settings; whatever is wrong with them is one `ConfigError`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from engine.config import there_or_shipped
from engine.faults import did_you_mean, faults
from streamer.errors import ConfigError

Location = tuple[int | str, ...]
Settings = TypeVar("Settings", bound=BaseModel)


def read(path: str | Path, what: str, changes: Sequence[str] = ()) -> Any:
    """Return a file's content, not yet checked; ``what`` it should be begins the message.

    Parameters
    ----------
    changes : sequence of str
        Settings to take instead of the file's: ``"system.mask.kind=random"``, the value as YAML.

    Raises
    ------
    ConfigError
        No such file, or not YAML, or a change that is not of that form.
    """
    try:
        raw = yaml.safe_load(there_or_shipped(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is not YAML: {error}") from error
    for each in changes:
        change(raw, each)
    return raw


def checked(
    kind: type[Settings],
    raw: Any,
    problem: str,
    block_of: Callable[[Location], type[BaseModel] | None] = lambda block: None,
) -> Settings:
    """Return the settings that a mapping describes.

    Parameters
    ----------
    problem : str
        First line of the message, ``"x.yaml is not a probe"``.
    block_of : callable
        Of the location of a block: what it is, so that the setting meant by an unknown key can be named.

    Raises
    ------
    ConfigError
        Every fault, each with its path.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
        hints = "".join(_hint(loc, block_of(loc[:-1])) for loc in unknown)
        raise ConfigError(f"{problem}:\n{faults(error)}{hints}") from error


def _hint(loc: Location, block: type[BaseModel] | None) -> str:
    """Return the setting that was meant by an unknown key, where one of its block is close."""
    names = [field.alias or name for name, field in block.model_fields.items()] if block else []
    return did_you_mean(str(loc[-1]), names)


def change(raw: Any, text: str) -> None:
    """Put one setting, ``a.b=value`` with the value as YAML, into the content of a recipe.

    Raises
    ------
    ConfigError
        It is not of that form.
    """
    name, equals, value = text.partition("=")
    *blocks, last = name.split(".")
    try:
        for block in blocks:
            raw = raw.setdefault(block, {})
        raw[last] = yaml.safe_load(value)
    except (AttributeError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"--set {text}: expected BLOCK.SETTING=VALUE, as in optim.steps=100.") from error
    if not equals:
        raise ConfigError(f"--set {text}: no value; expected BLOCK.SETTING=VALUE, as in optim.steps=100.")
