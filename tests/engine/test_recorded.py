"""`--file` puts a recording in the place of the source, and keeps what its block says of the signal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import write_npz, write_rows
from toy_bundle import CHANNELS
from typer.testing import CliRunner

from engine.check import check
from engine.cli import app
from engine.config import RunConfig, parse
from engine.recorded import from_file
from streamer.errors import ConfigError
from streamer.sources.recording import Config as Recording

FILE = Path("b.npz")  # not opened


def run_of(source: dict[str, Any], bundle: Path | str = "toy") -> RunConfig:
    return parse({"source": source, "bundle": str(bundle)}, "test")


def test_a_recording_s_block_stays_but_its_path() -> None:
    """Where the source is a recording, all of its keys hold for the other file, too."""
    told = {
        "stream": "EEG", "chunk": 7, "speed": 2.0, "labels": {"T1": "left_fist"}, "board_id": 0,
        "channels": ["C3", "C4"], "unit": "mV", "holes": "repeat",
    }  # fmt: skip
    taken = from_file(run_of({"kind": "recording", "path": "a.npz", **told}), FILE)
    assert taken.source == Recording.model_validate({"path": FILE, **told})


def test_an_option_goes_before_the_block() -> None:
    """Speed, chunk and holes of the command line are those that count."""
    block = {"kind": "recording", "path": "a.npz", "speed": 2.0, "chunk": 7, "holes": "repeat", "unit": "V"}
    taken = from_file(run_of(block), FILE, "max", 9, "split")
    assert taken.source == Recording(path=FILE, speed="max", chunk=9, holes="split", unit="V")


@pytest.mark.parametrize(
    ("block", "kept"),
    [
        ({"kind": "lsl", "name": "x", "channels": ["C3"], "unit": "mV"}, {"channels": ("C3",), "unit": "mV"}),
        ({"kind": "synthetic", "chunk": 5, "speed": 1.0}, {}),
        ({"kind": "lsl", "name": "x"}, {}),
    ],
)
def test_a_live_block_keeps_what_a_file_may_lack(block: dict[str, Any], kept: dict[str, Any]) -> None:
    """Names and unit of a live source name the file's channels as well; its pace is its own."""
    assert from_file(run_of(block), FILE).source == Recording(path=FILE, **kept)


def test_options_of_a_file_want_a_file() -> None:
    """Without --file they would be ignored, so they are refused."""
    live = run_of({"kind": "lsl"})
    for given in ({"speed": "1"}, {"chunk": 3}, {"holes": "split"}):
        with pytest.raises(ConfigError, match="go with --file"):
            from_file(live, None, **given)  # type: ignore[arg-type]
    assert from_file(live, None) is live


def test_a_board_s_names_are_those_of_its_file(toy_folder: Path, tmp_path: Path) -> None:
    """Rows of a board, which name neither it nor its electrodes, fit by the brainflow block alone."""
    board = 0  # Cyton: 24 rows, 8 of them electrodes
    rows = np.zeros((500, 24))
    rows[:, 0], rows[:, 22] = np.arange(500) % 256, 1.7e9 + np.arange(500) / 250
    rows[:, 1:9] = np.random.default_rng(0).normal(scale=20, size=(500, 8))
    path = write_rows(tmp_path / "board.csv", rows)
    block = {"kind": "brainflow", "board": board, "channels": list(CHANNELS)}
    fits = check(run_of(block, toy_folder), path)
    assert fits["ch_names"] == list(CHANNELS)


def test_a_file_of_another_kind_is_of_no_board(toy_folder: Path, tmp_path: Path) -> None:
    """The board of a brainflow block says nothing of a file that BrainFlow did not write."""
    path = numbered(tmp_path)
    block = {"kind": "brainflow", "board": "CYTON_BOARD", "channels": list(CHANNELS)}
    assert check(run_of(block, toy_folder), path)["ch_names"] == list(CHANNELS)


def test_a_unit_told_in_the_config_serves_another_file(toy_folder: Path, tmp_path: Path) -> None:
    """From the command line: what the error sends the user to set, is there when it is set."""
    config = tmp_path / "run.yaml"
    block = {"kind": "recording", "path": "a.npz", "unit": "uV", "channels": list(CHANNELS)}
    config.write_text(json.dumps({"source": block, "bundle": str(toy_folder)}))
    for command in ("check", "run"):
        told = [command, str(config), "--file", str(numbered(tmp_path, units="")), "--json"]
        result = CliRunner().invoke(app, told)
        assert result.exit_code == 0, result.output


def numbered(folder: Path, **others: Any) -> Path:
    """Write two seconds of noise whose channels are only numbered."""
    data = np.random.default_rng(0).integers(-900, 900, (len(CHANNELS), 320)).astype(np.int16)
    n = len(CHANNELS)
    told = {"ch_names": [str(i) for i in range(1, n + 1)], "ch_types": ["eeg"] * n, "sfreq": 160.0}
    return write_npz(folder / "b.npz", data, **told | others)


def test_names_that_go_before_a_file_s_own_are_told(
    toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A block of a recording renames the electrodes of another file, and not in silence."""
    turned = [CHANNELS[1], CHANNELS[0], *CHANNELS[2:]]
    block = {"kind": "recording", "path": "a.npz", "channels": turned}
    path = numbered(tmp_path, ch_names=list(CHANNELS))
    assert check(run_of(block, toy_folder), path)["ch_names"] == turned
    assert "C3 is taken for Cz, Cz for C3" in caplog.text
    caplog.clear()
    check(run_of(block | {"channels": list(CHANNELS)}, toy_folder), path)
    check(run_of(block, toy_folder), numbered(tmp_path))
    assert not caplog.text


@pytest.mark.parametrize("kind", ["lsl", "brainflow"])
def test_a_file_that_names_its_electrodes_is_believed(
    kind: str, toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A block made for a headset of other electrodes plays it as it is, however many there are."""
    board = {"board": "CYTON_BOARD"} if kind == "brainflow" else {}
    block = {"kind": kind, "channels": ["Fp1", "Fp2", "C3"], **board}
    path = numbered(tmp_path, ch_names=list(CHANNELS))
    assert check(run_of(block, toy_folder), path)["ch_names"] == list(CHANNELS)
    assert "names its electrodes itself" in caplog.text
