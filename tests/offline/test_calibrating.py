"""`bcitrain evaluate --calibrate-s`: each person without and with a head of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_bundle import CHANNELS
from toy_head import write_headed
from typer.testing import CliRunner

from engine.bundle import load
from offline.cli import app
from offline.evaluate.calibrating import KEPT, Settings, evaluate_calibrated
from streamer.errors import ConfigError, RecordingError

Writer = Callable[..., Path]


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headed(tmp_path_factory.mktemp("headed") / "bundle")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, run_writer: Writer) -> Path:
    """Two subjects, two runs each."""
    path = tmp_path_factory.mktemp("people")
    for i, subject in enumerate(("S1", "S2")):
        for run in (1, 2):
            run_writer(path / subject / f"{subject}R{run}.npz", seed=10 * i + run, channels=CHANNELS)
    return path


def test_the_report_has_both_and_goes_on(headed: Path, folder: Path, tmp_path: Path) -> None:
    """JSON, Markdown and a picture tell each person before and after; a second run makes nothing anew."""
    arguments = ["evaluate", str(headed), "--data", str(folder), "--output", str(tmp_path)]
    arguments += ["--calibrate-s", "30", "--json"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)["calibrated"]
    assert found["words"] == "the first 30 s"
    assert set(found["per_subject"]) == {"S1", "S2"}
    row = found["per_subject"]["S1"]
    assert row["gain_points"] == pytest.approx(100 * (row["refitted"] - row["zero_shot"]), abs=0.02)
    assert "Calibrated by the first 30 s" in (tmp_path / "evaluation.md").read_text()
    assert (tmp_path / "calibrated.png").stat().st_size > 1000
    for kept in (tmp_path / KEPT).rglob("*.json"):
        kept.write_text(json.dumps({**json.loads(kept.read_text()), "because": "it was kept"}))
    again = json.loads(CliRunner().invoke(app, arguments).stdout)["calibrated"]
    assert {one["because"] for one in again["per_subject"].values()} == {"it was kept"}
    arguments[arguments.index("30")] = "20"
    arguments += ["--subjects", "S1"]
    other = json.loads(CliRunner().invoke(app, arguments).stdout)["calibrated"]
    assert "it was kept" not in {one["because"] for one in other["per_subject"].values()}


def test_what_cannot_be_calibrated_is_refused(headed: Path, folder: Path) -> None:
    """A bundle without a centred head refuses rest; who is used up by calibrating is not scored."""
    bundle = load(headed)
    with pytest.raises(ConfigError, match="not trained on latents that are centred"):
        evaluate_calibrated(bundle, folder, None, Settings(seconds=60.0, rest_s=30.0))
    with pytest.raises(RecordingError, match="behind the first 9999 s"):
        evaluate_calibrated(bundle, folder, None, Settings(seconds=9999.0))
