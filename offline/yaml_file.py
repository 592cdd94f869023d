"""Reads and changes YAML settings; whatever is wrong with them is one `ConfigError`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from streamer.errors import ConfigError


def read(path: str | Path, what: str) -> Any:
    """Return a file's content, not yet checked; ``what`` it should be begins the message.

    Raises
    ------
    ConfigError
        No such file, or not YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is not YAML: {error}") from error


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
