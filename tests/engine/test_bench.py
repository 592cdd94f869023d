"""A bench turn answers with figures, or says why it has none."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.backends import BackendConfig
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bench.consumers import REFUSED, TRANSPORT, deciding
from engine.bench.consumers.decision import Timed
from engine.bench.figures import TOLERANCE, difference
from engine.bench.job import EEG_BAND, STREAMS, Job, Stream
from engine.bench.reference import decisions, windows
from engine.bench.turns import _wait, rounds, take
from engine.bundle import Bundle, load
from engine.demo import private_lsl
from streamer.errors import StreamLost

ALIVE, DEAD = SimpleNamespace(exitcode=None), SimpleNamespace(exitcode=1)


def test_a_process_that_died_ends_the_wait() -> None:
    """Nobody waits out the whole turn for an answer that cannot come."""
    with pytest.raises(StreamLost, match="somebody: its process died"):
        _wait(queue.Queue(), [ALIVE, DEAD], ("told",), 3600.0, "somebody")


def test_a_refusal_is_its_message() -> None:
    """What a consumer refused is told in its own words."""
    answers: queue.Queue[tuple[str, Any]] = queue.Queue()
    answers.put((REFUSED, "The stream had holes"))
    with pytest.raises(StreamLost, match="somebody: The stream had holes"):
        _wait(answers, [ALIVE], ("told",), 10.0, "somebody")


def test_the_wait_ends_with_its_time() -> None:
    """A consumer that neither answers nor dies is given up."""
    times = iter([0.0, 1.0, 99.0])
    with pytest.raises(StreamLost, match="no answer within 10 s"):
        _wait(queue.Queue(), [ALIVE], ("told",), 10.0, "somebody", now=lambda: next(times))


def test_all_kinds_are_waited_for() -> None:
    """The outlet's moments and the consumer's figures may come in either order; one of them is not enough."""
    answers: queue.Queue[tuple[str, Any]] = queue.Queue()
    for kind in ("pushed", "up", "told"):
        answers.put((kind, kind.upper()))
    found = _wait(answers, [ALIVE], ("told", "pushed"), 10.0, "somebody")
    assert (found["told"], found["pushed"]) == ("TOLD", "PUSHED")


def test_everybody_is_once_at_each_place() -> None:
    """Over as many rounds as there are systems nobody always goes first."""
    orders = list(rounds("abc", 3))
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert all(sorted(place) == ["a", "b", "c"] for place in zip(*orders, strict=True))


def test_nobody_has_no_rounds() -> None:
    """An order of nothing is none."""
    assert list(rounds([], 3)) == []


class OnDevice(BackendConfig):
    """A backend whose runner never asks for `bind`, as one that keeps its state on a GPU."""

    kind: str = "on-device"

    def open(self, bundle: Bundle) -> Any:
        """Return ONNX Runtime with another `bind` than its runner's."""
        backend: Any = OnnxRuntime().open(bundle)
        made = backend.runner()
        backend.bind, backend.runner = None, lambda: made
        return backend


@pytest.mark.parametrize("config", [OnnxRuntime(), OnDevice()], ids=lambda config: config.kind)
def test_the_steps_of_every_backend_are_timed(config: BackendConfig, toy: Bundle) -> None:
    """Whatever a runner steps with, each step counts once; those that warm it up do not."""
    timed = Timed(config)
    with timed.open(toy) as backend, config.open(toy) as plain:
        runner, right = backend.runner(), plain.runner()
        runner.warm_up()
        runner.input[:] = right.input[:] = 1.0
        for _ in range(3):
            assert np.array_equal(runner.step()["logits"], right.step()["logits"])
    assert timed.steps.n == 3
    assert timed.steps.summary()["p50"] is not None


@pytest.mark.usefixtures("lsl_session")
def test_a_real_turn_of_the_transport() -> None:
    """Every window arrives, none before its newest sample was pushed, and they are SciPy's."""
    stream = STREAMS["eeg-8"]
    with private_lsl():
        turn = take(TRANSPORT, Job(stream, seconds=0.5, settle_s=3.6))
    assert turn.told.lost == 0
    assert len(turn.latency_ms) == 5
    assert (turn.latency_ms > 0).all()
    assert np.array_equal(np.diff(turn.told.ends), np.full(4, stream.hop))
    assert difference(turn, windows(stream)) < TOLERANCE


@pytest.mark.usefixtures("lsl_session")
def test_a_real_turn_of_decisions() -> None:
    """Live decisions on the outlet's samples are those of the same samples in one chunk, bit for bit."""
    bundle = load("motor-imagery")
    wanted, hop_s = bundle.manifest.input, bundle.manifest.graph.hop / bundle.manifest.input.sfreq
    stream = Stream("decision", wanted.ch_names, 250.0, EEG_BAND)
    with private_lsl():
        turn = take(deciding("motor-imagery", {"kind": "onnxruntime"}), Job(stream, 0.5, 3.7, hop_s=hop_s))
    assert turn.told.lost == 0
    assert len(turn.latency_ms) == 8
    assert (turn.latency_ms > 0).all()
    assert difference(turn, decisions(bundle, stream)) == 0
    assert turn.told.ready_s < turn.told.first_s
    assert {"step_ms", "algorithmic_delay_ms", "backend"} <= set(turn.told.extra)
