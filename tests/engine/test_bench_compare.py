"""The bench as a whole, over turns that nobody took: order, refusals, report, picture, command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_turns import JOB, made
from typer.testing import CliRunner

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bench import report, step
from engine.bench.command import backends, listed, streams
from engine.bench.compare import Tried, compare
from engine.bench.consumers import PEERS, TRANSPORT, System
from engine.bench.job import ALL, Job
from engine.bench.plot import draw
from engine.bench.reference import windows
from engine.bench.turns import Turn
from engine.bundle import load
from engine.cli import app
from streamer.errors import ConfigError, StreamLost

FLOOR = PEERS["floor"]
PEER = System("ezmsg", "ezmsg")


def tried(*systems: System) -> list[Tried]:
    return [Tried(system, windows(JOB.stream)) for system in systems]


def run(turn: Callable[[System, Job], Turn], *systems: System, n: int = 2) -> Any:
    lines: list[str] = []
    found = compare(tried(*systems), JOB, n, say=lines.append, one_turn=turn)
    return found, lines


def test_values_come_before_anything_is_timed() -> None:
    """Each has a short turn for its values; then the turns rotate."""
    taken: list[tuple[str, float]] = []

    def turn(system: System, job: Job) -> Turn:
        taken.append((system.name, job.seconds))
        return made(job=job)

    found, lines = run(turn, FLOOR, TRANSPORT)
    names = ["floor", "bcistream", "floor", "bcistream", "bcistream", "floor"]
    assert taken == list(zip(names, [1.0, 1.0, 2.0, 2.0, 2.0, 2.0], strict=True))
    assert "values" in lines[0]
    assert found.document["values"] == {"floor": 0.0, "bcistream": 0.0}
    assert found.latencies["bcistream"].size == 40


def test_wrong_values_get_no_figure() -> None:
    """Whoever filters otherwise is named with its distance and never timed."""
    found, _ = run(lambda system, job: made(job=job, shift=system.name == "bcistream"), FLOOR, TRANSPORT)
    assert set(found.document["systems"]) == {"floor"}
    assert "off" in found.document["skipped"]["bcistream"]
    assert set(found.latencies) == {"floor"}


def test_values_that_go_wrong_later_take_the_figures_back() -> None:
    """A timed turn with other values leaves no figure of the turns before it."""
    turns = iter(range(100))

    def turn(system: System, job: Job) -> Turn:
        return made(job=job, shift=next(turns) == 2)

    found, _ = run(turn, TRANSPORT)
    assert found.document["systems"] == {}


def test_what_is_not_installed_is_said() -> None:
    """It is skipped with the module that is missing."""
    found, lines = run(
        lambda system, job: made(job=job), System("x", "x", needs=("no_such_module",)), TRANSPORT
    )
    assert found.document["skipped"] == {"x": "not installed (no_such_module)"}
    assert any("no_such_module" in line for line in lines)


def test_a_peer_that_fails_is_left_out_and_ours_is_not() -> None:
    """Others' failures are told; a failure of the engine or the floor ends the bench."""

    def failing(name: str) -> Callable[[System, Job], Turn]:
        def turn(system: System, job: Job) -> Turn:
            if system.name == name:
                raise StreamLost(f"{name}: its process died")
            return made(job=job)

        return turn

    found, _ = run(failing("ezmsg"), PEER, TRANSPORT)
    assert found.document["skipped"] == {"ezmsg": "ezmsg: its process died"}
    for system in (FLOOR, TRANSPORT):
        with pytest.raises(StreamLost, match="its process died"):
            run(failing(system.name), PEER, FLOOR, TRANSPORT)


def test_lost_samples_are_counted_and_not_compared() -> None:
    """Who loses samples keeps its count and its CPU; there is no latency."""
    found, _ = run(lambda system, job: made(job=job, lost=7, shift=1), TRANSPORT)
    ours = found.document["systems"]["bcistream"]
    assert (ours["lost"], ours["n"], ours["latency_ms"]["p50"]) == (14, 0, None)
    assert found.document["values"] == {"bcistream": None}


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
    places = [result.stdout.index(word) for word in ("values", "CPU %", "a multiple of", "machine")]
    assert places == sorted(places)


def test_a_picture_needs_a_latency(tmp_path: Path) -> None:
    """Nothing measured, or a file of an unknown kind, is an error that says so."""
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match="no latency to draw"):
        draw({"decision": {"floor": np.zeros(0)}}, tmp_path / "a.png")
    with pytest.raises(ConfigError, match="nothing"):
        draw({"decision": {"floor": np.ones(3)}}, tmp_path / "a.nothing")


def test_step_and_recompute_are_compared_before_they_are_timed() -> None:
    """A bounded model's window from an empty state gives its step's outputs; both are timed."""
    bundle, ticks = load("motor-imagery"), count()
    found = step.measure(bundle, OnnxRuntime(), seconds=0.0, clock=lambda: next(ticks) / 1e3)
    graph = bundle.manifest.graph
    assert found["same"]
    assert (found["hops"] - 1) * graph.hop >= graph.left_context
    assert found["step_ms"]["p50"] == pytest.approx(1.0)
    assert found["recompute_ms"]["p50"] == pytest.approx(1.0)
    assert found["x"] == 1.0
    assert "bcitrain cost" in found["fair"]


def test_a_model_that_remembers_for_ever_is_not_the_same() -> None:
    """No window gives what its steps give, and the report says so."""
    sleep = load("sleep-stages")
    assert not sleep.manifest.graph.bounded
    assert not step.measure(sleep, OnnxRuntime(), seconds=0.0)["same"]


def test_lists_are_checked() -> None:
    """Names come once, in their own order; an unknown one is an error that lists the known ones."""
    assert listed("b, a,b", ("a", "b", "c"), "--x") == ("a", "b")
    assert listed("all", ("a", "b"), "--x") == ("a", "b")
    assert listed("all,c", ("a", "b", "c"), "--x", ("b",)) == ("b", "c")
    assert listed("", ("a",), "--x") == ()
    with pytest.raises(ConfigError, match="--x takes a, b or all; not 'z'"):
        listed("a,z", ("a", "b"), "--x")


def test_streams_are_named_or_ones_own() -> None:
    """`all` is what latency is asked of; one's own needs channels and rate."""
    assert tuple(stream.name for stream in streams("all", None, None)) == ALL
    (mine,) = streams("eeg-8", 3, 500.0)
    assert (mine.n_chans, mine.sfreq) == (3, 500.0)
    with pytest.raises(ConfigError, match="--channels needs --sfreq"):
        streams("eeg-8", 3, None)


def test_backends_are_a_runs() -> None:
    """A kind alone or a block, as in a run's YAML; faults are told as there."""
    found = backends(["onnxruntime", "{kind: onnxruntime, threads: 2}"])
    assert [config.model_dump()["threads"] for config in found.values()] == [1, 2]
    for wrong in ("tensorflow", "{kind: onnxruntime, threads: 0}", "{"):
        with pytest.raises(ConfigError, match="--backend"):
            backends([wrong])
