"""One fold of a benchmark: a recipe trained on these people, validated on those, exported as a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offline import run_folder, yaml_file
from offline.export import export_run
from offline.train.recipe import parse
from offline.train.run import load_run
from offline.train.train import CHECKPOINT, train
from streamer.errors import ConfigError


def train_fold(
    recipe_path: str | Path,
    sets: Sequence[str],
    train_subjects: Sequence[str],
    validate_subjects: Sequence[str],
    seed: int,
    output: str | Path,
) -> Path:
    """Train, calibrate on the validation subjects and export; what is there already is not made again.

    Parameters
    ----------
    recipe_path : str or Path
    sets : sequence of str
        Settings to take instead of the file's: ``"optim.epochs=5"``.
    train_subjects, validate_subjects : sequence of str
        Instead of the recipe's.
    seed : int
        Instead of the recipe's.
    output : str or Path
        Holds ``run``, the run folder, and ``bundle``.

    Returns
    -------
    Path
        The bundle's folder.

    Raises
    ------
    ConfigError, RecordingError, BundleError
        As `train` and `export`; the folder holds another training.
    """
    output = Path(output)
    raw = yaml_file.read(recipe_path, "Recipe", sets)
    if not isinstance(raw, dict) or not isinstance(raw.get("data"), dict):
        raise ConfigError(f"{recipe_path} is not a training recipe: it has no block data.")
    people = {"train": list(train_subjects), "validate": list(validate_subjects)}
    changed = {"data": raw["data"] | people, "seed": seed, "output": str(output / "run")}
    recipe = parse(raw | changed, str(recipe_path))
    bundle = output / "bundle"
    finished = (recipe.output / run_folder.RUN).is_file()
    if finished and load_run(recipe.output).recipe.digest() != recipe.digest():
        raise ConfigError(
            f"{output} holds another training than {recipe_path} now describes: remove it, or name another "
            "output."
        )
    if finished and bundle.is_dir():
        return bundle
    resume = (recipe.output / CHECKPOINT).is_file() and not finished
    run = load_run(recipe.output) if finished else train(recipe, resume=resume, progress=False)
    partial = bundle.with_name("bundle.part")  # what is called bundle is whole
    export_run(run, partial)
    partial.rename(bundle)
    return bundle
