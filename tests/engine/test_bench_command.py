"""The bench on the command line, over turns that nobody took: refusals, report, picture, options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_turns import made
from typer.testing import CliRunner

from engine.backends.tensorrt import Config as TensorRT
from engine.bench import report
from engine.bench.command import backends, listed, streams
from engine.bench.compare import compare
from engine.bench.consumers import OURS
from engine.bench.figures import TOLERANCE
from engine.bench.job import ALL
from engine.bench.plot import draw, need
from engine.bench.reference import windows
from engine.cli import app
from engine.precision import BARS
from streamer.errors import BundleError, ConfigError


@pytest.fixture
def fake_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no process be started; decisions are taken as right."""
    extra = {"step_ms": {"p50": 0.25}, "algorithmic_delay_ms": {"hop": 62.5}}
    monkeypatch.setattr(
        report.measure, "__kwdefaults__", {"one_turn": lambda system, job: made(2.0, job=job, **extra)}
    )
    monkeypatch.setattr(report, "decisions", lambda bundle, stream: windows(stream))


@pytest.mark.usefixtures("fake_turns")
def test_the_command_prints_one_document(tmp_path: Path) -> None:
    """`--json` holds values, figures and ratios of each job, and the machine."""
    pytest.importorskip("matplotlib")
    picture = tmp_path / "bench.svg"
    command = ["bench", "--what", "transport,decision", "--stream", "eeg-8,emg-16-2k", "--seconds", "6",
               "--json", "--plot", str(picture)]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document) == {"machine", "transport", "decision"}
    assert set(document["transport"]) == {"eeg-8", "emg-16-2k"}
    for found in (*document["transport"].values(), document["decision"]):
        assert set(found["systems"]) == {"floor", "bcistream"}
        assert found["ratios"]["floor"]["bcistream"]["p50"] == 1.0
        assert (found["seconds"], found["rounds"]) == (6.0, 3)
    assert document["decision"]["beyond_floor_and_step_ms"] == {"bcistream": pytest.approx(-0.25)}
    assert picture.stat().st_size > 1000


@pytest.mark.usefixtures("fake_turns")
def test_the_command_prints_tables() -> None:
    """For people: values and latencies first, then cost, then ratios."""
    result = CliRunner().invoke(app, ["bench", "--what", "transport,decision", "--seconds", "3"])
    assert result.exit_code == 0, result.output
    places = [result.stdout.index(word) for word in ("values", ": cost", "as a multiple of floor", "machine")]
    assert places == sorted(places)


def test_without_a_latency_there_is_no_picture(tmp_path: Path) -> None:
    """Samples lost by all are no reason to lose the report: nothing is written, and that is told."""
    pytest.importorskip("matplotlib")
    assert not draw({"decision": {"floor": np.zeros(0)}}, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No job to draw, an ending that nobody writes, no such folder: before anything is measured."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(report, "measure", lambda *args, **kwargs: pytest.fail("measured"))
    for name, what, message in (
        ("a.png", "step", "no latency to draw"),
        ("a.nothing", "transport", "ending"),
        ("a", "transport", "ending"),
        ("no/a.png", "transport", "no folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            need(tmp_path / name, (what,))
        refused("--what", what, "--plot", str(tmp_path / name))


def test_many_of_a_bundle_of_one_row_is_refused_first() -> None:
    """In the words of the bundle, before the first turn."""
    options = report.Options(what=("transport", "many"), bundle="workload-mcsp")
    with pytest.raises(BundleError, match="takes one stream at a time"):
        report.measure(options, say=print, one_turn=lambda system, job: pytest.fail("measured"))


def refused(*options: str) -> str:
    """Return the message of a command that ends in the project's own error."""
    result = CliRunner().invoke(app, ["bench", "--json", *options])
    assert result.exit_code == 2, result.output
    return str(json.loads(result.stdout)["error"])


def test_options_that_mean_nothing_are_refused() -> None:
    """A rate that no filter fits, and nothing to be done."""
    for rate in ("-5", "0", "nan", "inf"):
        assert "at least 128 Hz" in refused("--what", "decision", "--sfreq", rate)
    assert "--what takes" in refused("--what", "")
    assert "leave one out" in refused("--stream", "eeg-8", "--channels", "3", "--sfreq", "500")


@pytest.mark.usefixtures("fake_turns")
def test_many_is_measured_with_each_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table each, and what was fed in words."""
    rows = [{"streams": 1}]
    asked = []

    def measured(bundle: Any, *, backend: Any) -> Any:
        asked.append(backend.threads)
        return rows

    monkeypatch.setattr(report, "streams_per_core", measured)
    command = ["bench", "--what", "many", "--bundle", "workload", "--backend", "onnxruntime",
               "--backend", "{kind: onnxruntime, threads: 2}"]  # fmt: skip
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)["many"]
    assert asked == [1, 2]
    assert list(document["backends"].values()) == [rows, rows]
    assert document["channels"] == 10
    shown = CliRunner().invoke(app, command).stdout
    assert "acquisition" in shown
    assert "10 channels" in shown


@pytest.mark.usefixtures("fake_turns")
def test_decisions_are_held_to_their_backends_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plan of fp16 may be off goes with it into the comparison."""
    bars = {}

    def seen(tried: Any, *args: Any, **kwargs: Any) -> Any:
        bars.update({one.system.name: one.bar for one in tried})
        return compare(tried, *args, **kwargs)

    monkeypatch.setattr(report, "compare", seen)
    options = report.Options(what=("decision",), backends={"tensorrt": TensorRT(precision="fp16")})
    report.measure(options, say=lambda line: None)
    assert bars == {"floor": TOLERANCE, OURS: BARS["fp16"].values}


def test_lists_are_checked() -> None:
    """Names come once, in their own order; an unknown one is an error that lists the known ones."""
    assert listed("b, a,b", ("a", "b", "c"), "--x") == ("a", "b")
    assert listed("all", ("a", "b"), "--x") == ("a", "b")
    assert listed("all,c", ("a", "b", "c"), "--x", ("b",)) == ("b", "c")
    assert listed("", ("a",), "--x", may_be_empty=True) == ()
    with pytest.raises(ConfigError, match="nothing was named"):
        listed(" ,", ("a",), "--x")
    with pytest.raises(ConfigError, match="--x takes a, b or all; not 'z'"):
        listed("a,z", ("a", "b"), "--x")


def test_streams_are_named_or_ones_own() -> None:
    """`all` is what latency is asked of; one's own needs channels and rate."""
    assert tuple(stream.name for stream in streams("all", None, None)) == ALL
    assert [stream.name for stream in streams(None, None, None)] == ["eeg-8"]
    (mine,) = streams(None, 3, 500.0)
    assert (mine.n_chans, mine.sfreq) == (3, 500.0)
    with pytest.raises(ConfigError, match="--channels needs --sfreq"):
        streams(None, 3, None)
    with pytest.raises(ConfigError, match="leave one out"):
        streams("eeg-8", 3, 500.0)


def test_backends_are_a_runs() -> None:
    """A kind alone or a block, as in a run's YAML; faults are told as there."""
    found = backends(["onnxruntime", "{kind: onnxruntime, threads: 2}"])
    assert [config.model_dump()["threads"] for config in found.values()] == [1, 2]
    for wrong in ("tensorflow", "{kind: onnxruntime, threads: 0}", "{"):
        with pytest.raises(ConfigError, match="--backend"):
            backends([wrong])
