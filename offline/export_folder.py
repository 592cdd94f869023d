"""The folder that a bundle is to go to: whether it may be written, and the training that lies in it."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import tempfile
from pathlib import Path

from engine.bundle import MANIFEST
from streamer.errors import ConfigError

TRAINING = "training"  # sub-folder of a bundle: the run folder that it was exported from


def refuse_other(folder: Path, name: str) -> None:
    """See before any work that a bundle of this name may be written to a folder, over its own past alone.

    Raises
    ------
    ConfigError
        It holds another bundle, or one that cannot be read; or nothing can be written there.
    """
    refuse_unwritable(folder)
    path = folder / MANIFEST
    if not path.exists():
        return
    try:
        held = json.loads(path.read_bytes())["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): delete it, or name another folder.") from error
    if held != name:
        raise ConfigError(f"{folder} holds bundle {held}: name another folder for {name}.")


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
