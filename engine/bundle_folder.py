"""The folder that a bundle is to go to: whether it may be written, and writing it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from engine.files import replacing
from engine.head import HEAD_FILE
from engine.manifest import MANIFEST
from streamer.errors import ConfigError

CARD = "MODEL_CARD.md"
TRAINING = "training"  # sub-folder of a bundle: the run folder that it was exported from
OWN = {CARD, "step.onnx", HEAD_FILE, TRAINING}  # what a bundle has beside its manifest, which is written last


def refuse_other(folder: Path, name: str) -> None:
    """See before any work that a bundle of this name may be written to a folder, over its own past alone.

    Raises
    ------
    ConfigError
        It holds another bundle, one that cannot be read, or files of something else; or nothing can be
        written there.
    """
    refuse_unwritable(folder)
    path = folder / MANIFEST
    if not path.exists():
        _refuse_others_files(folder)
        return
    try:
        held = json.loads(path.read_bytes())["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): delete it, or name another folder.") from error
    if held != name:
        raise ConfigError(f"{folder} holds bundle {held}: name another folder for {name}.")


def _refuse_others_files(folder: Path) -> None:
    """Refuse a folder of files that are no bundle's; hidden ones, and an interrupted export's, may be."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if name not in OWN and not name.startswith(".")]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise ConfigError(
            f"{folder} holds no bundle but {', '.join(others[:3])}{more}: name a new or an empty folder."
        )


def refuse_unwritable(folder: Path) -> None:
    """Raise ConfigError where a folder is a file, or nothing can be written there."""
    whole = folder.absolute()
    place = next(path for path in (whole, *whole.parents) if os.path.exists(path))
    try:
        # Tried, not asked for: permissions do not tell of what is read-only for everybody.
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ConfigError(
            f"Nothing can go to {folder} ({place}: {error.strerror}): name a folder that can be written."
        ) from error


def replace_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Put files in place of those in a folder, where they are others.

    All of them are written before the first takes its place: an interrupted bundle is the old one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changed = [name for name, content in contents.items() if not _holds(folder / name, content)]
    with ExitStack() as stack:
        for name in reversed(changed):  # what is entered last is left first: they take their places in order
            stack.enter_context(replacing(folder / name)).write_bytes(contents[name])


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
