"""`bcitrain evaluate --calibrate-s`: each person without and with a head of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_bundle import CHANNELS, CLASSES, HOP, SFREQ
from toy_head import source, write_headed
from typer.testing import CliRunner

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import load
from engine.calibrate import calibrate
from engine.calibrate_stream import Ask
from engine.config import parse
from engine.head import pack
from offline.cli import app
from offline.evaluate.calibrated import calibrated
from offline.evaluate.calibrating import KEPT, Settings, evaluate_calibrated
from offline.evaluate.recordings import open_file, task_of
from offline.evaluate.rest import no_rest
from offline.heard import heard
from offline.probe.tasks import Session
from streamer.errors import ConfigError, RecordingError
from streamer.types import Marker

Writer = Callable[..., Path]
HOP_S = HOP / SFREQ


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headed(tmp_path_factory.mktemp("headed") / "bundle")


@pytest.fixture(scope="module")
def centred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headed(tmp_path_factory.mktemp("centred") / "bundle", pack(source(centred=True)))


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


def test_a_recording_that_does_not_fit_is_left_out(
    headed: Path, folder: Path, run_writer: Writer, tmp_path: Path
) -> None:
    """With two channels of eight it costs nobody their row, and the person whose it is no figure."""
    shutil.copytree(folder, tmp_path / "people")
    run_writer(tmp_path / "people" / "S1" / "S1R3.npz", seed=3, channels=("C3", "C4"))
    bundle, settings = load(headed), Settings(seconds=20.0)
    found = evaluate_calibrated(bundle, tmp_path / "people", None, settings)
    assert found == evaluate_calibrated(bundle, folder, None, settings)


def test_a_recording_shorter_than_a_hop_says_nothing(
    centred: Path, folder: Path, run_writer: Writer, tmp_path: Path
) -> None:
    """It costs a person's calibration nothing, first or last; alone, there is nothing to score."""
    bundle, task = load(centred), task_of(load(centred), folder)
    path = run_writer(
        tmp_path / "S" / "a.npz", seed=1, n_trials=1, cut_s=8 - (HOP - 2) / SFREQ, channels=CHANNELS
    )
    short, whole = open_file(task, path), open_file(task, folder / "S1" / "S1R1.npz")
    with OnnxRuntime().open(bundle) as backend:
        empty = heard(bundle, backend, short)
        for head in (None, source().head):
            assert empty.played(head, 1.0).log_probs.shape == (0, len(CLASSES))
        alone = calibrated(bundle, backend, [whole], seconds=20.0)
        for sessions, before_s in (([whole, short], 0.0), ([short, whole], (HOP - 3) / SFREQ)):
            both = calibrated(bundle, backend, sessions, seconds=before_s + 20.0)
            assert both.calibration is not None
            (rest,) = (one for one in both.zero_shot if len(one))
            assert np.array_equal(rest.log_probs, alone.zero_shot[0].log_probs)
        nothing = calibrated(bundle, backend, [short], seconds=20.0)
    assert nothing.calibration is None
    assert not nothing.zero_shot


def test_other_durations_are_another_row(headed: Path, folder: Path, tmp_path: Path) -> None:
    """The same samples and cues, asked for half as long: what was kept of them is not taken."""
    shutil.copytree(folder / "S1", tmp_path / "people" / "S1")
    bundle, settings = load(headed), Settings(seconds=30.0)
    evaluate_calibrated(bundle, tmp_path / "people", None, settings, keep=tmp_path)
    for path in (tmp_path / "people" / "S1").iterdir():
        change(path, shorter=2)
    again = evaluate_calibrated(bundle, tmp_path / "people", None, settings, keep=tmp_path)
    assert again == evaluate_calibrated(bundle, tmp_path / "people", None, settings)
    assert len(list((tmp_path / KEPT).rglob("*.json"))) == 2


def test_what_was_corrected_is_another_row(headed: Path, folder: Path, tmp_path: Path) -> None:
    """The same stored numbers at another scale: what was kept of them is not taken."""
    shutil.copytree(folder / "S1", tmp_path / "people" / "S1")
    bundle, settings = load(headed), Settings(seconds=30.0)
    evaluate_calibrated(bundle, tmp_path / "people", None, settings, keep=tmp_path)
    path = tmp_path / "people" / "S1" / "S1R1.npz"
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **content | {"scale": 2 * content["scale"]})
    evaluate_calibrated(bundle, tmp_path / "people", None, settings, keep=tmp_path)
    assert len(list((tmp_path / KEPT).rglob("*.json"))) == 2


def change(path: Path, shorter: int = 1, names: tuple[str, ...] = CLASSES) -> None:
    """Write a recording anew with the same samples, its events shorter or called otherwise."""
    with np.load(path) as file:
        content = {key: file[key] for key in file.files}
    events = content["events"] // [1, shorter, 1]
    codes = json.dumps({str(code): name for code, name in enumerate(names)})
    np.savez(path, **{**content, "events": events, "event_codes": codes})


def test_what_is_learned_from_comes_after_the_rest_as_live(centred: Path, folder: Path) -> None:
    """The trials that a recording gives behind its rest are those of `bcistream calibrate`."""
    bundle, path = load(centred), folder / "S1" / "S1R1.npz"
    session = open_file(task_of(bundle, folder), path)
    played = {"kind": "recording", "path": str(path), "speed": "max"}
    run = parse({"source": played, "bundle": str(centred)}, "test")
    with OnnxRuntime().open(bundle) as backend:
        for asked in ({"seconds": 3.0}, {"seconds": 4.0}, {"seconds": 30.0}, {"seconds": None, "trials": 3}):
            live = calibrate(run, Ask(rest_s=4.0, **asked)).made_of
            made = calibrated(bundle, backend, [session], rest_s=4.0, **asked)
            assert made.calibration is not None
            assert made.calibration.made_of.trials == live.trials
            assert made.calibration.made_of.seconds == pytest.approx(live.seconds, abs=2e-3)
            assert made.calibration.made_of.rest_s == pytest.approx(live.rest_s, abs=HOP_S)
            assert min(m.time for m in made.zero_shot[0].markers) >= max(4.0, live.seconds)


def test_what_calibrates_is_not_scored(headed: Path, folder: Path) -> None:
    """With either head no decision from before the new one counts, neither as an answer nor as idle."""
    bundle = load(headed)
    session = open_file(task_of(bundle, folder), folder / "S1" / "S1R1.npz")
    with OnnxRuntime().open(bundle) as backend:
        made = calibrated(bundle, backend, [session], seconds=20.0)
    since = float(session.recording.times[0]) + 20.0
    for (played,) in (made.zero_shot, made.refitted):
        behind = played.times > since
        assert not played.valid[~behind].any()
        assert played.valid[behind].all()


def test_who_does_not_rest_is_not_centred(centred: Path, folder: Path, tmp_path: Path) -> None:
    """Where something else is asked for in the rest, or its recording is missing, the person is left out."""
    shutil.copytree(folder, tmp_path / "people")
    bundle, settings = load(centred), Settings(seconds=4.0, rest_s=4.0)
    everybody = evaluate_calibrated(bundle, tmp_path / "people", None, settings)
    assert (set(everybody["per_subject"]), everybody["skipped"]) == ({"S1", "S2"}, {})
    change(tmp_path / "people" / "S1" / "S1R1.npz", names=("left_fist", "rest", "right_fist"))
    found = evaluate_calibrated(bundle, tmp_path / "people", None, settings)
    assert found["per_subject"] == {"S2": everybody["per_subject"]["S2"]}
    assert "S1R1" in found["skipped"]["S1"]
    assert "left_fist" in found["skipped"]["S1"]
    long = Settings(seconds=6.0, rest_s=6.0)  # the next cue comes after four
    with pytest.raises(RecordingError, match=r"S1: .*S1R1.*rest"):
        evaluate_calibrated(bundle, tmp_path / "people", None, long)


@pytest.mark.parametrize(
    ("markers", "rests"),
    [
        ([("rest", 0.0, 9.0)], True),
        ([("rest", 0.0, 4.0), ("left_fist", 4.0, 4.0)], True),
        ([], True),
        ([("left_fist", 4.0, 4.0)], False),
        ([("rest", 0.1, 3.5)], True),
        ([("rest", 0.0, 1.5)], False),
        ([("rest", 0.0, 3.0), ("left_fist", 3.5, 4.0)], False),
        ([("left_fist", 0.0, 0.0), ("rest", 3.0, 4.0)], False),
        ([("rest", 0.0, 0.0), ("left_fist", 3.0, 0.0)], False),
        ([("music", 0.0, 9.0)], False),
        ([("rest", 0.0, 0.0), ("begin", 0.0, 0.0), ("left_fist", 4.0, 0.0)], True),
        ([("begin", 0.0, 0.0)], True),
    ],
)
def test_rest_is_where_nothing_else_is_asked_for(
    markers: list[tuple[str, float, float]], rests: bool
) -> None:
    """Idle fills most of it; a class without an end lasts until the next, another word does not last."""
    given = [Marker(100.0 + time, label, duration) for label, time, duration in markers]
    recording: Any = SimpleNamespace(markers=given, times=np.array([100.0, 100.1]))
    why = no_rest(Session("S1", "one", recording, ""), CLASSES, "rest", 4.0)
    assert (why == "") == rests
    assert no_rest(Session("S1", "one", recording, ""), CLASSES, None, 4.0) == ""


def test_who_is_left_out_of_a_calibration_is_in_the_report(
    centred: Path, folder: Path, tmp_path: Path
) -> None:
    """The Markdown says of a person whose rest is none who that is and why."""
    pytest.importorskip("matplotlib")
    shutil.copytree(folder, tmp_path / "people")
    change(tmp_path / "people" / "S1" / "S1R1.npz", names=("left_fist", "rest", "right_fist"))
    words = ["evaluate", str(centred), "--data", str(tmp_path / "people"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--calibrate-rest", "4", "--json"])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["calibrated"]["skipped"]) == {"S1"}
    assert "S1 not calibrated: the first 4 s of S1R1" in (tmp_path / "out" / "evaluation.md").read_text()


def test_what_cannot_be_calibrated_is_refused(headed: Path, folder: Path) -> None:
    """A bundle without a centred head refuses rest; who is used up by calibrating is not scored."""
    bundle = load(headed)
    with pytest.raises(ConfigError, match="not trained on latents that are centred"):
        evaluate_calibrated(bundle, folder, None, Settings(seconds=60.0, rest_s=30.0))
    with pytest.raises(RecordingError, match="behind the first 9999 s"):
        evaluate_calibrated(bundle, folder, None, Settings(seconds=9999.0))
