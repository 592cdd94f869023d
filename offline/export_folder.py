"""The folder that a bundle is to go to: whether it may be written, and the training that lies in it."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import tempfile
from pathlib import Path

from engine.bundle import MANIFEST
from engine.head import HEAD_FILE
from offline.card import CARD
from streamer.errors import ConfigError

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


def carry_training(bundle: Path, folder: Path) -> None:
    """Put the training in a bundle's folder, where there is one, into another folder instead of any there."""
    if folder.resolve() == bundle.resolve():
        return
    if (folder / TRAINING).is_dir():
        shutil.rmtree(folder / TRAINING)
    if (bundle / TRAINING).is_dir():
        shutil.copytree(bundle / TRAINING, folder / TRAINING)


def drop_others_training(run: Path, folder: Path) -> None:
    """Remove the training in a bundle's folder unless it is that of this run."""
    kept = folder / TRAINING
    if not kept.is_dir():
        return
    names = [path.name for path in kept.iterdir()]
    same, *_ = filecmp.cmpfiles(kept, run, names, shallow=False)
    if len(same) < len(names):
        shutil.rmtree(kept)
