"""Replay equals live: decisions depend on the samples, not on how or when they arrived."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_bundle import CHANNELS

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.bundle import Bundle
from engine.pipeline import Pipeline, run
from engine.telemetry import Telemetry
from streamer.acquire import StreamCounters
from streamer.errors import EndOfStream, StreamLost
from streamer.types import Chunk, Decision, Marker, StreamInfo

SFREQ = 250.0
NAMES = (*reversed(CHANNELS[1:]), "Oz")  # other order, one missing, one too many


@pytest.fixture(scope="module")
def backend(toy: Bundle) -> Iterator[OnnxRuntimeBackend]:
    with OnnxRuntime().open(toy) as opened:
        yield opened


def info(names: Sequence[str] = NAMES) -> StreamInfo:
    return StreamInfo("amp", "amp-1", "EEG", SFREQ, tuple(names), ("eeg",) * len(names), "mV")


def samples(n: int = 1500) -> np.ndarray:
    return (0.02 * np.random.default_rng(3).normal(size=(n, len(NAMES)))).astype(np.float32)


def chunks(data: np.ndarray, cuts: Sequence[int], start: int = 0, *, broken: bool = False) -> Iterator[Chunk]:
    for i, (a, b) in enumerate(pairwise([0, *sorted(cuts), len(data)])):
        times = (start + np.arange(a, b)) / SFREQ
        yield Chunk(data[a:b], start + a, times, np.ones(b - a, dtype=bool), broken and i == 0)


def decide(pipeline: Pipeline, stream: Iterator[Chunk]) -> list[Decision]:
    return [decision for chunk in stream for decision in pipeline.process(chunk)]


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, 1500), max_size=60))
def test_any_chunking_gives_bit_identical_decisions(
    toy: Bundle, backend: OnnxRuntimeBackend, cuts: list[int]
) -> None:
    """Through unit, montage, rate, filters and model, every field of every decision is the same."""
    whole = decide(Pipeline(toy, backend, info()), chunks(samples(), []))
    parts = decide(Pipeline(toy, backend, info()), chunks(samples(), cuts))
    assert len(whole) == 96
    assert parts == whole


def test_a_discontinuity_is_a_fresh_start(toy: Bundle, backend: OnnxRuntimeBackend) -> None:
    """After a hole the probabilities are those of a new pipeline, and the reset is counted."""
    used = Pipeline(toy, backend, info())
    decide(used, chunks(7 * samples(777), []))
    after = decide(used, chunks(samples(), [100, 333], start=25_000, broken=True))
    fresh = decide(Pipeline(toy, backend, info()), chunks(samples(), [], start=25_000))
    assert used.resets == 1
    assert after == fresh


def test_the_future_changes_nothing(toy: Bundle, backend: OnnxRuntimeBackend) -> None:
    """Decisions stamped before a sample do not depend on it."""
    changed = samples()
    changed[1000:] = 3.0
    before = decide(Pipeline(toy, backend, info()), chunks(samples(), []))
    after = decide(Pipeline(toy, backend, info()), chunks(changed, []))
    early = [d for d in before if d.time < 999 / SFREQ]
    assert after[: len(early)] == early
    assert after != before


def test_decisions_are_stamped_with_their_newest_sample(toy: Bundle, backend: OnnxRuntimeBackend) -> None:
    """Hop k ends at sample 10 k - 1 of the 160-Hz grid, and its time is that sample's."""
    for k, decision in enumerate(decide(Pipeline(toy, backend, info()), chunks(samples(), [])), start=1):
        assert decision.index == 10 * k - 1
        assert decision.time == pytest.approx(decision.index / 160.0, abs=1 / 160)


def test_adaptations_are_said(toy: Bundle, backend: OnnxRuntimeBackend) -> None:
    """Unit, montage and rate are adapted and named."""
    notes = " / ".join(Pipeline(toy, backend, info()).notes)
    assert "mV" in notes
    assert "1 channels interpolated: C3" in notes
    assert "250 to 160 Hz" in notes


class ScriptedFeed:
    """Plays chunks and pauses; the clock is the script's own."""

    def __init__(self, script: Sequence[Chunk | float]) -> None:
        self.info = info()
        self.counters = StreamCounters()
        self._script = iter(script)
        self.now = 0.0

    def read(self, timeout_s: float) -> Chunk | None:
        step = next(self._script, None)
        if step is None:
            raise EndOfStream("the script is over")
        if isinstance(step, Chunk):
            return step
        self.now += step
        return None

    def markers(self) -> Sequence[Marker]:
        return ()

    def close(self) -> None:
        return None


def test_a_stall_is_counted_once_and_then_ends_the_run(toy: Bundle, backend: OnnxRuntimeBackend) -> None:
    """Silence is told once after stall_s, and is StreamLost after give_up_s."""
    feed = ScriptedFeed([*chunks(samples(100), []), *[0.25] * 200])
    told: list[float] = []
    telemetry = Telemetry(0.0625)
    pipeline = Pipeline(toy, backend, info())
    with pytest.raises(StreamLost, match="No sample from 'amp' for 10 s"):
        run(feed, pipeline, [], telemetry, clock=lambda: feed.now, give_up_s=10.0, on_stall=told.append)
    assert len(told) == telemetry.stalls == 1
    assert 2.0 < told[0] < 2.5


def test_the_run_ends_with_the_stream(toy: Bundle, backend: OnnxRuntimeBackend) -> None:
    """At the end of a file the loop returns, having emitted every decision."""
    feed = ScriptedFeed(list(chunks(samples(), [400, 900])))
    telemetry = Telemetry(0.0625)
    run(feed, Pipeline(toy, backend, info()), [], telemetry, clock=lambda: feed.now)
    assert telemetry.decisions == 96
    assert telemetry.invalid == 4
