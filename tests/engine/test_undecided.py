"""A recording that gives nothing says why, and what to do."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import write_epochs, write_npz
from toy_bundle import CHANNELS
from toy_head import write_headed
from typer.testing import CliRunner

from engine.cli import app

N, PERIOD_S, SFREQ = 5, 5.0, 160.0
KEPT = 5  # samples of each epoch, where the toy's hop is ten


def call(*args: object) -> tuple[int, dict[str, Any]]:
    """Run a command with --json; return its exit code and its one document."""
    result = CliRunner().invoke(app, [str(arg) for arg in args] + ["--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """Five epochs of one electrode, of which less than a hop was kept."""
    data = np.random.default_rng(0).integers(-90, 90, (N, KEPT)).astype(np.int16)
    onsets, labels = [PERIOD_S * i for i in range(N)], [0, 1, 2, 1, 2]
    stages = ["rest", "left_fist", "right_fist"]
    return write_epochs(tmp_path / "night.npz", data, onsets, labels, stages, sfreq=SFREQ, ch_names=["C3"])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The toy on one electrode, from which the seven others are estimated."""
    folder = write_headed(tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["input"]["min_present"] = 1
    (folder / "bundle.json").write_text(json.dumps(manifest))
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps({"source": {"kind": "lsl"}, "bundle": str(folder), "quality": None}))
    return path


def test_a_run_says_why_nothing_was_decided(config: Path, night: Path) -> None:
    """Holes that reset before each decision are told, with the option that fills them; filled, it decides."""
    code, report = call("run", config, "--file", night)
    assert (code, report["decisions"], report["resets"]) == (0, 0, N - 1)
    assert "gave no decisions" in report["reason"]
    assert "4 holes" in report["reason"]
    assert "--holes repeat" in report["reason"]
    _, filled = call("run", config, "--file", night, "--holes", "repeat")
    assert filled["decisions"] == N * PERIOD_S * SFREQ / 10
    assert filled["reason"] == ""


def test_a_recording_shorter_than_a_hop_is_told(config: Path, tmp_path: Path) -> None:
    """Without a hole there is nothing to fill: how long it is, and how long it should be."""
    short = write_npz(
        tmp_path / "short.npz",
        np.zeros((8, 8), dtype=np.int16),
        sfreq=SFREQ, ch_names=list(CHANNELS), ch_types=["eeg"] * 8,
    )  # fmt: skip
    code, report = call("run", config, "--file", short)
    assert (code, report["ended"]) == (0, "end of stream")
    assert "0.05 s of signal came, and the first takes 0.0625 s" in report["reason"]
    assert "--holes" not in report["reason"]


def test_calibrate_says_why_nothing_was_decided(config: Path, night: Path, tmp_path: Path) -> None:
    """No trial can be cut out of nothing: a message, not a traceback; filled, the trials are found."""
    out = tmp_path / "me.json"
    code, document = call("calibrate", config, "--file", night, "-o", out)
    assert code == 2
    assert document["error"]["type"] == "ConfigError"
    assert "gave no decisions" in document["error"]["message"]
    assert "--holes repeat" in document["error"]["message"]
    code, document = call("calibrate", config, "--file", night, "-o", out, "--holes", "repeat")
    assert code == 0, document
    assert document["trials"] == {"rest": 1, "left_fist": 2, "right_fist": 2}


@pytest.mark.usefixtures("lsl_session")
def test_a_replay_counts_the_time_that_it_shows(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is played runs up to the total, holes included, and filled as it was asked for."""
    seen: list[tuple[float, float]] = []
    monkeypatch.setattr("engine.replay.progress_bar", lambda *_: nullcontext(lambda *at: seen.append(at)))
    code, document = call("replay", night, "--speed", "max", "--wait-s", 0)
    assert code == 0, document
    assert document["samples_out"] == N * KEPT
    length = (N - 1) * PERIOD_S + KEPT / SFREQ
    assert [total for _, total in seen] == pytest.approx([length] * len(seen))
    assert seen[-1][0] == pytest.approx(length - 1 / SFREQ)
    code, document = call("replay", night, "--speed", "max", "--wait-s", 0, "--holes", "repeat")
    assert document["samples_out"] == N * PERIOD_S * SFREQ
