"""The training that lies in a bundle's folder."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from engine.bundle_folder import TRAINING


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
