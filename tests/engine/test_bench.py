"""The bench answers with figures, or says why it has none."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from engine.bench import REFUSED, _answer
from streamer.errors import StreamLost

ALIVE, DEAD = SimpleNamespace(exitcode=None), SimpleNamespace(exitcode=1)


def test_a_process_that_died_ends_the_wait() -> None:
    """Nobody waits out the whole run for an answer that cannot come."""
    with pytest.raises(StreamLost, match="gave no answer"):
        _answer(queue.Queue(), [ALIVE, DEAD], 3600.0)


def test_a_refusal_is_its_message() -> None:
    """What the engine's process refused is told in its own words."""
    answers: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
    answers.put((REFUSED, {"message": "The stream had holes"}))
    with pytest.raises(StreamLost, match="The stream had holes"):
        _answer(answers, [ALIVE], 10.0)


@pytest.mark.usefixtures("lsl_session")
def test_both_sides_are_measured() -> None:
    """Floor and engine each answer for their windows and decisions, on a stream that lost nothing."""
    command = [sys.executable, "-m", "engine.cli", "bench", "--seconds", "5", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    report = json.loads(result.stdout)
    assert report["bcistream"]["samples_lost"] == 0
    assert 75 <= report["bcistream"]["n"] <= 80
    assert 48 <= report["floor"]["n"] <= 50
    assert report["bcistream"]["latency_ms"]["p50"] > 0
