"""Training states on disk without pickle: tensors in safetensors, everything around them as JSON.

::

    FILE.safetensors
      metadata  tree    the nested structure, JSON; a tensor is named where it stood
                crc     CRC-32 of the tree and of every tensor's bytes
      tensors   "0:state_dict.encoder.weight", "1:optimizer_states.0.state.0.exp_avg", ...

Reading one runs nobody's code.  A file is replaced in one piece, so a process that is killed while it
writes leaves the previous one.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.files import replacing
from streamer.errors import ConfigError

PLAIN = (bool, int, float, str, type(None))


class SafetensorsIO(CheckpointIO):  # type: ignore[misc]
    """Lightning's checkpoints in this form: ``Trainer(plugins=[SafetensorsIO()])``."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a training state; what was there stays until the new one is complete."""
        save(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a training state, its tensors on the CPU."""
        state = load(path)
        assert isinstance(state, dict)
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file."""
        Path(path).unlink(missing_ok=True)


def save(state: Any, path: str | Path) -> None:
    """Write a nested structure.

    Parameters
    ----------
    state : Any
        Dicts (keys: plain values), lists, tuples, plain values and tensors, nested as one likes.
    path : str or Path
        Replaced in one piece.  Its folder is made where it does not exist.

    Raises
    ------
    ConfigError
        Something else is in it; the message says where.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_flatten(state, tensors, ""))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"tree": tree, "crc": str(_crc(tree, tensors))})


def load(path: str | Path) -> Any:
    """Return the structure that `save` wrote, its tensors on the CPU.

    Raises
    ------
    ConfigError
        No such file, or not whole.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"Checkpoint {path} cannot be read: {error}. {_ADVICE}") from error
    tree = metadata.get("tree", "")
    if metadata.get("crc") != str(_crc(tree, tensors)):
        raise ConfigError(f"Checkpoint {path} is damaged: its checksum is not that of its content. {_ADVICE}")
    return _build(json.loads(tree), tensors)


_ADVICE = "Copy it again from where it was whole, or train again without --resume."


def _flatten(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """Return the JSON form of a value; its tensors go to ``tensors``."""
    if isinstance(value, Tensor):
        name = f"{len(tensors)}:{path}"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()  # a copy: weights may be tied
        return {"tensor": name}
    if type(value) in PLAIN:
        return value
    if type(value) is list:
        return [_flatten(item, tensors, f"{path}.{i}") for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": [_flatten(item, tensors, f"{path}.{i}") for i, item in enumerate(value)]}
    if isinstance(value, dict) and all(type(key) in PLAIN for key in value):
        below = f"{path}." if path else ""
        return {"dict": [[key, _flatten(item, tensors, f"{below}{key}")] for key, item in value.items()]}
    raise ConfigError(
        f"A checkpoint holds dicts, lists, tuples, numbers, strings and tensors; {path or 'it'} is a "
        f"{type(value).__name__}. Turn it into one of those in on_save_checkpoint."
    )


def _build(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo `_flatten`."""
    if isinstance(value, list):
        return [_build(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_build(item, tensors) for item in content)
    return {key: _build(item, tensors) for key, item in content}


def _crc(tree: str, tensors: dict[str, Tensor]) -> int:
    value = zlib.crc32(tree.encode())
    for name in sorted(tensors):
        octets = tensors[name].reshape(-1).view(torch.uint8)
        value = zlib.crc32(octets.numpy().data, value)
    return value
