"""Evaluation of recordings whose markers are points, as those of LSL and XDF are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import CHANNELS, toy_graph, toy_manifest, write_bundle
from typer.testing import CliRunner

from engine.bundle import Bundle, load
from offline.cli import app
from offline.evaluate.recordings import Options
from offline.evaluate.run import document_of, evaluate
from streamer.errors import ConfigError, RecordingError

Writer = Callable[..., Path]
Events = np.ndarray[Any, Any]
TRIAL_S = 4.0
WINDOWS = {"window_s": 1.0, "from_s": 0.5}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    graph = toy_graph()
    return load(write_bundle(tmp_path_factory.mktemp("toy"), toy_manifest(graph), graph))


def written(folder: Path, run_writer: Writer, change: Callable[[Events], Events]) -> Path:
    """Write a recording of rest and cued trials in turn, its events changed."""
    path = run_writer(folder / "S1" / "one.npz", seed=1, channels=CHANNELS)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "events": change(arrays["events"])})
    return folder


def points(events: Events) -> Events:
    return np.column_stack([events[:, 0], np.zeros_like(events[:, 0]), events[:, 2]])


def commands(events: Events) -> Events:
    """Return the cues alone: of their pauses nothing is said."""
    return events[events[:, 2] > 0]


@pytest.fixture
def as_points(tmp_path: Path, run_writer: Writer) -> Path:
    return written(tmp_path / "points", run_writer, points)


@pytest.fixture
def cues_alone(tmp_path: Path, run_writer: Writer) -> Path:
    return written(tmp_path / "cues", run_writer, lambda events: points(commands(events)))


def scored(bundle: Bundle, folder: Path, **options: Any) -> dict[str, Any]:
    one = evaluate(bundle, folder, options=Options(**options))
    return document_of(one, one.scores())


def test_points_that_end_each_other_are_scored_as_their_durations_are(
    toy: Bundle, tmp_path: Path, run_writer: Writer
) -> None:
    """Rest says when a trial is over: windows, hits and idle time are the same, and it is told."""

    def but_the_last(events: Events) -> Events:
        return events[:-1]  # nothing says when that one ends

    known = written(tmp_path / "known", run_writer, but_the_last)
    guessed = written(tmp_path / "guessed", run_writer, lambda events: points(but_the_last(events)))
    # behind the last rest of the one nothing is asked for, of the other rest goes on
    one, other = (scored(toy, folder, protocol=WINDOWS) for folder in (known, guessed))
    assert one["n_trials"] + 4 == other["n_trials"]
    assert one["idle"]["hits"] == other["idle"]["hits"]
    assert not one["notes"]
    assert any("do not say how long they last" in note for note in other["notes"])


def test_commands_that_nothing_ends_are_not_scored_in_silence(toy: Bundle, cues_alone: Path) -> None:
    """Not as windows: what to do is said.  As cues they are, live use apart, and that is told."""
    with pytest.raises(RecordingError, match=r"says how long it lasts.*--trial-s"):
        scored(toy, cues_alone, protocol=WINDOWS)
    cued = scored(toy, cues_alone)
    assert cued["n_trials"] == 6
    assert cued["idle"]["hits"] is None
    assert any("nobody says when some of" in note for note in cued["notes"])


def test_a_length_that_is_said_makes_trials_of_points(
    toy: Bundle, cues_alone: Path, tmp_path: Path, run_writer: Writer
) -> None:
    """As if the recording had said it: every figure is the same."""
    known = written(tmp_path / "known", run_writer, commands)
    said = scored(toy, cues_alone, protocol=WINDOWS, trial_s=TRIAL_S)
    whole = scored(toy, known, protocol=WINDOWS)
    kept = ("n_trials", "accuracy", "per_subject", "idle", "reliability", "coverage_risk", "notes")
    assert {key: said[key] for key in kept} == {key: whole[key] for key in kept}


def test_trials_that_are_over_before_their_answer_are_refused(toy: Bundle, cues_alone: Path) -> None:
    """The answer would be that of the pause behind them."""
    with pytest.raises(ConfigError, match=r"said to last 2 s, .* asked for 3 s after it"):
        scored(toy, cues_alone, trial_s=2.0)
    assert scored(toy, cues_alone, trial_s=2.0, protocol={"at_s": 2.0})["n_trials"] == 6


@pytest.mark.parametrize("options", [["--window-s", "60"], ["--window-s", "1"]])
def test_nothing_to_score_is_said_and_not_drawn(
    toy: Bundle, cues_alone: Path, tmp_path: Path, options: list[str]
) -> None:
    """With --output, too: no traceback from a picture of nothing."""
    arguments = ["evaluate", str(toy.folder), "--data", str(cues_alone), *options]
    result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 2
    assert "Nothing to score" in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_pictures_of_no_answers_are_left_out(toy: Bundle, as_points: Path, tmp_path: Path) -> None:
    """Minutes behind each cue no trial is left: there are tables, and no curve of what is kept."""
    out = tmp_path / "out"
    arguments = ["evaluate", str(toy.folder), "--data", str(as_points), "--at-s", "200", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--output", str(out)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_trials"] == 0
    assert not (out / "coverage.png").exists()
