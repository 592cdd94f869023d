"""Reads a YAML file; whatever is wrong with it is one `ConfigError`."""

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
