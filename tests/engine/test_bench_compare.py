"""Systems on one job, over turns that nobody took: order, values, who is out; and a step on its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from made_turns import JOB, made

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.backends.tensorrt import Config as TensorRT
from engine.bench import step
from engine.bench.compare import Tried, compare
from engine.bench.consumers import PEERS, TRANSPORT, System
from engine.bench.figures import TOLERANCE, bar
from engine.bench.job import Job
from engine.bench.reference import windows
from engine.bench.turns import Turn
from engine.bundle import load
from engine.precision import BARS
from streamer.errors import StreamLost

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
    """A peer that filters otherwise is named with its distance and never timed."""
    found, _ = run(lambda system, job: made(job=job, shift=system.name == "ezmsg"), PEER, TRANSPORT)
    assert set(found.document["systems"]) == {"bcistream"}
    assert "off" in found.document["skipped"]["ezmsg"]
    assert set(found.latencies) == {"bcistream"}


@pytest.mark.parametrize("wrong", [FLOOR, TRANSPORT], ids=lambda system: system.name)
def test_wrong_values_of_ours_or_the_floor_end_the_bench(wrong: System) -> None:
    """Nobody is timed beside them, and the error says whose values were how far off."""
    taken: list[float] = []

    def turn(system: System, job: Job) -> Turn:
        taken.append(job.seconds)
        return made(job=job, shift=system is wrong)

    with pytest.raises(StreamLost, match=f"{wrong.name}: its values are .* standard deviations off"):
        run(turn, FLOOR, TRANSPORT)
    assert set(taken) == {1.0}


def test_nobody_left_is_not_timed() -> None:
    """Where all peers are out there are no rounds."""
    found, _ = run(lambda system, job: made(job=job, shift=1), PEER)
    assert found.document["systems"] == {}
    assert set(found.document["skipped"]) == {"ezmsg"}


def test_each_has_its_own_bar() -> None:
    """Values that float32 must not give pass where reduced precision explains them."""
    right = windows(JOB.stream)
    coarse = Tried(TRANSPORT, lambda ends: [1.01 * window for window in right(ends)], bar=5e-2)
    found = compare([coarse], JOB, 1, say=lambda line: None, one_turn=lambda system, job: made(job=job))
    assert 1e-4 < found.document["values"]["bcistream"] < 5e-2
    assert set(found.document["systems"]) == {"bcistream"}


def test_the_bar_is_the_plans() -> None:
    """A backend with a precision is held to what its plan had to reach, others to float32."""
    assert bar(TensorRT(precision="fp16")) == BARS["fp16"].values
    assert bar(OnnxRuntime()) == TOLERANCE


def test_values_that_go_wrong_later_take_the_figures_back() -> None:
    """A timed turn with other values leaves no figure of the turns before it."""
    turns = iter(range(100))

    def turn(system: System, job: Job) -> Turn:
        return made(job=job, shift=next(turns) == 2)

    found, _ = run(turn, PEER)
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
