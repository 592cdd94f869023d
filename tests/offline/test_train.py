"""Training: learns, resumes, refuses."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from safetensors.torch import load_file  # noqa: E402

from offline.calibrate import fit_temperature  # noqa: E402
from offline.recipe import load, parse  # noqa: E402
from offline.run_folder import WEIGHTS  # noqa: E402
from offline.train import ImageryData, load_run, train  # noqa: E402
from streamer.errors import ConfigError, RecordingError  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
MakeRecipe = Callable[..., Any]


def curve(folder: Path) -> list[tuple[str, str, str]]:
    """Every logged value of a run's starts, in order."""
    rows = []
    for path in sorted(folder.glob("logs/start_*/metrics.csv")):
        with path.open() as file:
            rows += [(row["epoch"], row["train_loss"], row["val_trial_loss"]) for row in csv.DictReader(file)]
    return rows


def test_a_resumed_training_is_the_uninterrupted_one(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Stopped after one of three epochs and resumed, curve and weights are bit for bit the same."""
    straight = make_recipe(tmp_path / "straight", epochs=3)
    broken = make_recipe(tmp_path / "broken", epochs=3)
    train(straight, progress=False)
    train(broken, progress=False, stop_after=1)
    train(broken, progress=False, resume=True)
    assert curve(straight.output) == curve(broken.output)
    a = load_file(straight.output / WEIGHTS)
    b = load_file(broken.output / WEIGHTS)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_reads_back(tiny_run: Any) -> None:
    """What training wrote is the run it returned, with a fingerprint per recording."""
    assert load_run(tiny_run.recipe.output) == tiny_run
    assert {group: len(some) for group, some in tiny_run.fingerprints.items()} == {"train": 2, "validate": 2}
    assert set(tiny_run.scores) == {"val_accuracy", "val_trial_loss", "val_hop_balanced_accuracy"}


def test_what_cannot_train_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """No checkpoint, shared subjects, and a task nobody has are errors that say what to do."""
    recipe = make_recipe(tmp_path)
    with pytest.raises(ConfigError, match="Nothing to resume"):
        train(recipe, resume=True, progress=False)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(tmp_path)
    data = recipe.data.model_copy(update={"validate_": ("A1",)})
    with pytest.raises(ConfigError, match="both train and validate"):
        ImageryData(recipe.model_copy(update={"data": data}))
    data = recipe.data.model_copy(update={"task": "singing"})
    with pytest.raises(RecordingError, match="'singing'"):
        ImageryData(recipe.model_copy(update={"data": data}))


def test_a_recipe_lists_every_fault(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """All faults of a recipe come at once, each with its path; a model that does not fit is refused."""
    raw = make_recipe(tmp_path).model_dump(by_alias=True, mode="json")
    faulty = {**raw, "optim": {"epochs": -1, "speed": 3}}
    with pytest.raises(ConfigError, match=r"(?s)optim\.epochs.*optim\.speed"):
        parse(faulty)
    with pytest.raises(ConfigError, match="has 22 channels"):
        parse({**raw, "model": {"kind": "motor_imagery"}})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("**/train_*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    """Every training recipe of the project is valid and says in its second line how to run it."""
    load(path)
    assert path.read_text().splitlines()[1] == f"# bcitrain train configs/{path.name}"


def test_temperature_undoes_a_scaling() -> None:
    """Logits made three times too sure get a temperature three times higher."""
    torch.manual_seed(0)
    logits = torch.randn(4000, 3)
    classes = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(3 * logits, classes) == pytest.approx(
        3 * fit_temperature(logits, classes), rel=0.01
    )
    assert fit_temperature(logits, classes) == pytest.approx(1.0, abs=0.15)
