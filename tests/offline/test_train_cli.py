"""The `bcitrain` command."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from offline.cli import app

runner = CliRunner()


def run(*words: str | Path) -> tuple[int, str, str]:
    result = runner.invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_train_export_evaluate_print_one_document_each(
    corpus_dir: Path, make_recipe: Any, tmp_path: Path
) -> None:
    """From recipe to score, every command prints exactly one JSON document on standard output."""
    recipe = tmp_path / "recipe.yaml"
    content = make_recipe(tmp_path / "run", epochs=1).model_dump(mode="json", by_alias=True)
    recipe.write_text(yaml.safe_dump(content))
    code, out, _ = run("train", recipe, "--json")
    assert code == 0
    assert "val_accuracy" in json.loads(out)
    code, out, _ = run("export", tmp_path / "run", tmp_path / "bundle", "--json")
    assert code == 0
    assert json.loads(out)["hop"] == 10
    code, out, _ = run(
        "evaluate",
        tmp_path / "bundle",
        "--data",
        corpus_dir,
        "--json",
    )
    report = json.loads(out)
    assert code == 0
    assert {"accuracy", "balanced_accuracy", "n_trials", "per_subject", "excluded"} <= set(report)


def test_evaluate_prints_a_table_for_people(tiny_bundle: Any, corpus_dir: Path) -> None:
    """Without --json the figures come as lines and a table with a row per subject."""
    code, out, _ = run("evaluate", tiny_bundle.folder, "--data", corpus_dir, "--subjects", "A3")
    assert code == 0
    assert "accuracy" in out
    assert "A3" in out


def test_every_bundle_that_cannot_be_had_is_told(tiny_bundle: Any, corpus_dir: Path, tmp_path: Path) -> None:
    """Of several bundles with faults each is named, not the first alone."""
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_bundle.folder, damaged)
    (damaged / "step.onnx").write_bytes(b"")
    code, _, said = run("evaluate", damaged, tiny_bundle.folder, "nonesuch", "--data", corpus_dir)
    assert code == 2
    assert f"{damaged}: " in said
    assert "nonesuch: " in said


def test_data_lists_recordings(corpus_dir: Path) -> None:
    """The listing has an entry per recording with its fingerprint."""
    code, out, _ = run("data", "list", corpus_dir, "--json")
    assert code == 0
    assert len(json.loads(out)["recordings"]) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "nowhere.yaml"), "nowhere.yaml cannot be read"),
        (("export", "nowhere", "bundle"), "cannot be read"),
        (("evaluate", "nowhere", "--data", "."), "No bundle 'nowhere'"),
        (("data", "list", "nowhere"), "No folder nowhere"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(words: tuple[str, ...], said: str) -> None:
    """What the user got wrong comes as one message on standard error, without a traceback."""
    pytest.importorskip("lightning")
    code, out, err = run(*words)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    code, out, _ = run(*words, "--json")
    assert code == 2
    assert said in json.loads(out)["error"]["message"]


def test_missing_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch, training says which extra brings it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    code, _, err = run("train", "recipe.yaml")
    assert code == 2
    assert "pip install 'bcistream[offline]'" in err
