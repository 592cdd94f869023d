"""What every training leaves behind: ``run.json``, which says what was done, and ``weights.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from engine.faults import faults
from engine.files import replacing
from streamer.errors import ConfigError

RUN = "run.json"
WEIGHTS = "weights.safetensors"
Run = TypeVar("Run", bound=BaseModel)


def read(folder: str | Path, kind: type[Run], command: str, what: str) -> Run:
    """Return the description in a run folder.

    Parameters
    ----------
    command : str
        That writes such folders: ``"pretrain"``.
    what : str
        What the folder should describe: ``"a pretraining"``.

    Raises
    ------
    ConfigError
        It is not there, or describes something else.
    """
    path = Path(folder) / RUN
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}. Give the folder that {command} wrote."
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{path} does not describe {what}:\n{faults(error)}") from error


def names_block(folder: str | Path, block: str) -> bool:
    """Say whether the recipe in a run folder has this block; False where there is no such folder."""
    try:
        raw = json.loads((Path(folder) / RUN).read_bytes())
    except (OSError, ValueError):
        return False
    recipe = raw.get("recipe") if isinstance(raw, dict) else None
    return isinstance(recipe, dict) and block in recipe


def load_weights(folder: str | Path, module: nn.Module) -> None:
    """Put a run folder's weights into a module; `ConfigError` where they are damaged or of another one."""
    path = Path(folder) / WEIGHTS
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ConfigError(f"Weights {path} cannot be used: {error}. Train again.") from error


def write(folder: Path, run: BaseModel, module: nn.Module) -> None:
    """Renew description and weights, each in one piece."""
    folder.mkdir(parents=True, exist_ok=True)
    weights: dict[str, Any] = {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in module.state_dict().items()
    }
    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    with replacing(folder / RUN) as temporary:
        temporary.write_text(json.dumps(run.model_dump(mode="json", by_alias=True), indent=1) + "\n")
