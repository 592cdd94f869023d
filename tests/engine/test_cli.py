"""Commands answer with one JSON document, and errors are one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import CHANNELS
from typer.testing import CliRunner

from engine.cli import app


def call(*args: object) -> tuple[int, dict[str, Any]]:
    """Run a command with --json; return its exit code and its one document."""
    result = CliRunner().invoke(app, [str(arg) for arg in args] + ["--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Twenty seconds of noise in the project's own format."""
    path = tmp_path / "noise.npz"
    n, sfreq = len(CHANNELS), 160.0
    data = np.random.default_rng(0).normal(scale=200, size=(n, int(20 * sfreq))).astype(np.int16)
    np.savez(
        path,
        data=data,
        scale=np.full(n, 0.1),
        offset=np.zeros(n),
        sfreq=sfreq,
        units="uV",
        ch_names=np.array(CHANNELS),
        ch_types=np.array(["eeg"] * n),
        events=np.array([[320, 640, 1], [1600, 640, 2]], dtype=np.int32),
        event_codes=json.dumps({"1": "left_fist", "2": "right_fist"}),
        meta=json.dumps({"continuous": True}),
    )
    return path


@pytest.fixture
def config(tmp_path: Path, toy_folder: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"source: {{kind: lsl, name: nobody, timeout_s: 0.5}}\nbundle: {toy_folder}\n"
        f"sinks: [{{kind: jsonl, path: {tmp_path / 'out.jsonl'}}}, {{kind: console}}]\n"
    )
    return path


def test_a_file_is_decoded_and_reported(config: Path, recording: Path, tmp_path: Path) -> None:
    """Every hop of the file gives a decision, in the sink and in the report."""
    code, report = call("run", config, "--file", recording)
    assert code == 0
    assert report["decisions"] == 320
    assert report["samples_in"] == 3200
    assert report["samples_lost"] == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) >= 320


def test_chunking_does_not_change_a_file_run(config: Path, recording: Path, tmp_path: Path) -> None:
    """With chunks of 1, 7 and 1000 samples the sink holds the same bytes."""
    written = set()
    for chunk in (1, 7, 1000):
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        call("run", config, "--file", recording, "--chunk", chunk)
        written.add((tmp_path / "out.jsonl").read_bytes())
    assert len(written) == 1


def test_check_says_how_it_fits(config: Path, recording: Path) -> None:
    """A file that fits is described without being run."""
    code, report = call("check", config, "--file", recording)
    assert code == 0
    assert report["fits"]
    assert report["algorithmic_delay"]["hop_ms"] == 62.5


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (("run", "none.yaml"), "ConfigError"),
        (("run", "CONFIG", "--file", "none.edf"), "RecordingError"),
        (("run", "CONFIG", "--file", "RECORDING", "--speed", "fast"), "ConfigError"),
        (("run", "CONFIG"), "StreamNotFound"),
        (("check", "CONFIG"), "StreamNotFound"),
        (("replay", "none.edf"), "RecordingError"),
        (("demo", "--bundle", "none"), "BundleError"),
    ],
)
@pytest.mark.usefixtures("lsl_session")
def test_errors_are_one_document(config: Path, recording: Path, args: tuple[str, ...], kind: str) -> None:
    """What a user can cause ends in exit code 2 and a message, never in a traceback."""
    given = {"CONFIG": str(config), "RECORDING": str(recording)}
    code, document = call(*[given.get(arg, arg) for arg in args])
    assert code == 2
    assert document["error"]["type"] == kind
    assert document["error"]["message"]


@pytest.mark.usefixtures("lsl_session")
def test_doctor_finds_this_machine_healthy() -> None:
    """Where the tests run, nothing that a live session needs is broken."""
    code, document = call("doctor")
    assert code == 0
    assert document["ok"]
    assert {"liblsl", "multicast", "brainflow", "onnxruntime", "gpu", "tensorrt", "clock"} <= {
        check["name"] for check in document["checks"]
    }


@pytest.mark.usefixtures("lsl_session")
def test_devices_lists_boards() -> None:
    """BrainFlow's boards are listed with their rates."""
    _, document = call("devices", "--wait-s", 0.2)
    boards = {row["board"]: row for row in document["brainflow"]}
    assert boards["CYTON_BOARD"]["sfreq"] == 250
    assert boards["CYTON_BOARD"]["n_eeg"] == 8
