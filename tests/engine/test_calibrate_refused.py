"""What `bcistream calibrate` refuses before it begins, and what it says of trials that it did not find."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import write_npz
from toy_bundle import CHANNELS
from toy_head import write_headed
from typer.testing import CliRunner

from engine.answers import Labelled
from engine.bundle import MANIFEST, load
from engine.calibrate import fitted, made_of
from engine.calibration import Calibration, MadeOf, Tied, check_place, read, write
from engine.cli import app
from engine.head import source_head
from engine.refit import Examples
from streamer.errors import ConfigError

SFREQ = 160.0


def refused(*args: object) -> str:
    """Run a command with --json; return the message that it ends in, exit code 2."""
    result = CliRunner().invoke(app, [str(arg) for arg in args] + ["--json"])
    assert result.exit_code == 2, result.output
    return str(json.loads(result.stdout)["error"]["message"])


@pytest.fixture
def nobody(tmp_path: Path) -> Path:
    """A config of a stream that does not exist: whoever looks for it says so."""
    folder = write_headed(tmp_path / "bundle")
    path = tmp_path / "run.yaml"
    source = {"kind": "lsl", "name": "signal", "timeout_s": 0.2, "markers": "nobody"}
    path.write_text(json.dumps({"source": source, "bundle": str(folder)}))
    return path


def made(reason: str = "a test") -> Calibration:
    return Calibration(
        bundle=Tied(name="a", version="1", identity="0" * 16),
        method="tested",
        reason=reason,
        made_of=MadeOf(stream="s", seconds=1.0, trials={}),
    )


def in_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / "me.json"


PLACES: dict[str, Callable[[Path], Path]] = {
    "is a folder": lambda folder: folder,
    "is no folder": in_a_file,
    "cannot be written": lambda folder: Path("/proc/me.json"),
    "File name too long": lambda folder: folder / ("x" * 250 + ".json"),  # itself short enough
}


@pytest.mark.parametrize("why", PLACES)
def test_a_place_that_takes_no_file_is_refused_first(nobody: Path, tmp_path: Path, why: str) -> None:
    """Before a stream is looked for, in the words of the path that was given; nothing is left behind."""
    out = PLACES[why](tmp_path)
    before = sorted(os.listdir(tmp_path))
    message = refused("calibrate", nobody, "-o", out)
    assert f"{out} " in message
    assert why in message
    assert ".part" not in message
    assert sorted(os.listdir(tmp_path)) == before


def test_what_is_no_calibration_is_not_written_over(nobody: Path, tmp_path: Path) -> None:
    """The config or the recording, given as the place by mistake, stays as it was, and nobody is cued."""
    recording = tmp_path / "rec.npz"
    recording.write_bytes(b"PK\x03\x04 samples")
    for place in (nobody, recording):
        before = place.read_bytes()
        assert "is there already and is no calibration" in refused("calibrate", nobody, "-o", place)
        with pytest.raises(ConfigError, match="not written over"):
            write(made(), place)
        assert place.read_bytes() == before


def test_an_older_calibration_is_written_over(tmp_path: Path) -> None:
    """Who calibrates again wants the new one; an empty file holds nothing that could be lost."""
    path = tmp_path / "me.json"
    path.touch()
    for reason in ("first", "second"):
        check_place(path)
        write(made(reason), path)
    assert read(path).reason == "second"


@pytest.mark.usefixtures("lsl_session")
def test_a_place_that_can_be_made_is_not_made_yet(nobody: Path, tmp_path: Path) -> None:
    """A folder that does not exist is no fault, and is not there unless something is written."""
    assert "nobody" in refused("calibrate", nobody, "-o", tmp_path / "new" / "folder" / "me.json")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fails_later_is_told_by_the_user_s_path(tmp_path: Path) -> None:
    """The name of the half-written file is nobody's business."""
    with pytest.raises(ConfigError, match=rf"{tmp_path} cannot be written") as error:
        write(made(), tmp_path)
    assert ".part" not in str(error.value)


def test_options_of_cues_want_cues(nobody: Path, tmp_path: Path) -> None:
    """Without --cues pauses would be ignored, so they are refused."""
    message = refused("calibrate", nobody, "--pause-s", 4, "-o", tmp_path / "me.json")
    assert "--pause-s goes with --cues" in message


def recorded(tmp_path: Path, names: dict[str, str], *, dead: bool = False, **source: Any) -> Path:
    """Write a config of half a minute in which eight trials lie, flat where it is dead, and return it."""
    folder = write_headed(tmp_path / "bundle")
    n = round(30 * SFREQ)
    data = np.random.default_rng(0).integers(-90, 90, (8, n)).astype(np.int16)
    data[:, round(4 * SFREQ) :] *= not dead
    onsets = np.rint((1 + 3.5 * np.arange(8)) * SFREQ).astype(int)
    events = np.stack([onsets, np.full(8, round(3.5 * SFREQ)), 1 + np.arange(8) % 2], axis=1)
    path = write_npz(
        tmp_path / "a.npz", data, sfreq=SFREQ, ch_names=list(CHANNELS), ch_types=["eeg"] * 8,
        events=events.astype(np.int32), event_codes=json.dumps(names),
    )  # fmt: skip
    config = tmp_path / "run.yaml"
    block = {"kind": "recording", "path": str(path), **source}
    config.write_text(json.dumps({"source": block, "bundle": str(folder)}))
    return config


def test_events_of_other_names_are_told(tmp_path: Path) -> None:
    """Which were found, and that the source block renames them; renamed, they are trials."""
    names = {"1": "T1", "2": "T2"}
    message = refused("calibrate", recorded(tmp_path, names), "-o", tmp_path / "me.json")
    assert "0 labelled trials of none" in message
    assert "4 x T1, 4 x T2" in message
    assert "`labels: {T1: left_fist}`" in message
    labels = {"T1": "left_fist", "T2": "right_fist"}
    renamed = recorded(tmp_path, names, labels=labels)
    result = CliRunner().invoke(app, ["calibrate", str(renamed), "-o", str(tmp_path / "me.json"), "--json"])
    assert result.exit_code == 0, result.output


def test_trials_of_bad_signal_are_told(tmp_path: Path) -> None:
    """How many were left out for it, instead of a hint at their names."""
    names = {"1": "left_fist", "2": "right_fist"}
    message = refused("calibrate", recorded(tmp_path, names, dead=True), "-o", tmp_path / "me.json")
    assert "7 more were left out" in message
    assert "bad signal" in message
    assert "names of the events" not in message


def test_trials_without_an_end_are_told(tmp_path: Path) -> None:
    """How many, and the two things that help; where enough others came they count as left out."""
    bundle = load(write_headed(tmp_path / "bundle"))
    none = Examples(np.empty((0, 3)), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    found = Labelled(none, {}, 1, 0.0, endless=4)
    made = made_of(found, "me")
    assert made.left_out == 5
    with pytest.raises(ConfigError, match=r"4 more .* nobody says how long .* send rest where one ends"):
        fitted(bundle, source_head(bundle), found, made)


def test_trials_without_an_end_are_told_while_they_come(tmp_path: Path) -> None:
    """Once, as soon as it is known, and not of trials that are answered at a set time."""
    config = recorded(tmp_path, {"1": "left_fist", "2": "right_fist"})
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    arrays["events"][:, 1] = 0
    np.savez(tmp_path / "a.npz", **arrays)
    calibrate = ["calibrate", str(config), "-o", str(tmp_path / "me.json"), "--json"]
    assert CliRunner().invoke(app, calibrate).exit_code == 0
    manifest = tmp_path / "bundle" / MANIFEST
    task = {"classes": [], "protocol": {"kind": "windows", "from_s": 0.3, "window_s": 0.5}}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"provenance": {"task": task}}))
    result = CliRunner().invoke(app, calibrate)
    assert result.stderr.count("nobody says how long the trial lasts") == 1
    assert "8 more were left out: where" in json.loads(result.stdout)["error"]["message"]
    said = CliRunner().invoke(app, [*calibrate, "--trial-s", "3", "--trials", "6"])
    assert said.exit_code == 0, said.output
    assert sum(json.loads(said.stdout)["trials"].values()) == 6
    assert "nobody says" not in said.stderr
