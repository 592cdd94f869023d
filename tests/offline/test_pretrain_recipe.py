"""Recipes of pretrainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from toy_pretraining import ToyConfig, toy_recipe

from offline.pretrain import recipe as pretrain_recipe
from offline.pretrain.recipe import load, parse
from streamer.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = toy_recipe(tmp_path, tmp_path / "run").model_dump(mode="json", by_alias=True)
    return content | {"system": ToyConfig()}


def test_a_recipe_lists_every_fault_with_its_path(raw: dict[str, Any]) -> None:
    """Faults of all blocks come at once; a mistyped key is answered with the one that was meant."""
    faulty = raw | {
        "system": {"kind": "biocodec", "waveform_weight": -1, "modle": {}},
        "data": raw["data"] | {"crops_s": 2, "crop_s": 0},
        "optim": raw["optim"] | {"precision": "fp8", "lr": "fast"},
    }
    with pytest.raises(ConfigError) as error:
        parse(faulty)
    said = str(error.value)
    for path in (
        "system.waveform_weight",
        "system.modle",
        "data.crops_s",
        "data.crop_s",
        "optim.precision",
        "optim.lr",
    ):
        assert f"\n  {path}: " in said
    assert "Did you mean 'model'? Did you mean 'crop_s'?" in said


def test_an_unknown_system_is_answered_with_those_there_are(raw: dict[str, Any]) -> None:
    """A kind that does not exist names those that do, and the closest."""
    with pytest.raises(
        ConfigError, match=r"system: no system of kind 'biocodek'.*biocodec.*Did you mean 'bio"
    ):
        parse(raw | {"system": {"kind": "biocodek"}})
    with pytest.raises(ConfigError, match="no system of kind None"):
        parse(raw | {"system": 3})


@pytest.mark.parametrize(
    ("block", "change", "said"),
    [
        ("optim", {"accumulate": 3}, "equal micro-batches"),
        ("optim", {"warmup_steps": 12}, "must be below steps"),
        ("optim", {"steps": 13}, "multiple of steps_per_epoch"),
        ("data", {"validate": []}, "data.validate"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    raw: dict[str, Any], block: str, change: dict[str, Any], said: str
) -> None:
    """What would go wrong in the middle of a training is refused before it."""
    with pytest.raises(ConfigError, match=said):
        parse(raw | {block: raw[block] | change})


@pytest.mark.parametrize("kind", [["toy"], {"toy": 1}, 3, None])
def test_a_kind_that_is_no_word_is_refused(raw: dict[str, Any], kind: Any) -> None:
    """Whatever YAML stands where the system's kind should be, the message names it."""
    with pytest.raises(ConfigError, match="no system of kind"):
        parse(raw | {"system": {"kind": kind}})


def test_a_system_keeps_its_settings_in_json(raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe written as JSON and read again is the same, the system's own settings included."""
    recipe = parse(raw | {"system": ToyConfig(dim=7)})
    toys = type("module", (), {"Config": ToyConfig})
    monkeypatch.setattr(pretrain_recipe, "kinds", lambda: {"toy": toys})
    assert parse(recipe.model_dump(mode="json", by_alias=True)) == recipe


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    """Missing, not YAML, not a mapping: one message each."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="is not a pretraining recipe"):
        load(tmp_path / "b.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("**/pretrain_*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    """Every pretraining recipe of the project is valid and says in its second line how to run it."""
    load(path)
    assert path.read_text().splitlines()[1] == f"# bcitrain pretrain configs/{path.name}"


def test_a_setting_given_on_the_command_line_replaces_the_recipes() -> None:
    """--set reaches into blocks, reads its value as YAML, and is checked like the file."""
    path = CONFIGS / "pretrain_brainrvq_small.yaml"
    changed = load(path, ["system.mask.kind=random", "system.hierarchy=false", "seed=7"])
    assert changed.system.mask.kind == "random"  # type: ignore[attr-defined]
    assert changed.system.hierarchy is False  # type: ignore[attr-defined]
    assert changed.seed == 7
    assert changed.optim == load(path).optim
    for wrong in ("system.maks.kind=random", "seed", "seed.of.this=1", "=3"):
        with pytest.raises(ConfigError):
            load(path, [wrong])
