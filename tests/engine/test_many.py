"""Many streams through one graph: each decides as it would alone, whatever the others do."""

from __future__ import annotations

import math
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
from engine.many import Many
from engine.pipeline import Pipeline
from streamer.types import Chunk, Decision, StreamInfo

SFREQ, N = 160.0, 3
HOP_S = 10 / SFREQ
TOLERANCE = 1e-6  # of a probability: products of 1 and of 3 rows are summed in another order


@pytest.fixture(scope="module")
def one(toy_rows: Bundle) -> Iterator[OnnxRuntimeBackend]:
    with OnnxRuntime().open(toy_rows) as opened:
        yield opened


@pytest.fixture(scope="module")
def three(toy_rows: Bundle) -> Iterator[OnnxRuntimeBackend]:
    with OnnxRuntime().open(toy_rows.batched(N)) as opened:
        yield opened


def info(row: int) -> StreamInfo:
    names = CHANNELS[row:] + CHANNELS[:row]  # each in another order
    return StreamInfo(f"amp-{row}", "", "EEG", SFREQ, names, ("eeg",) * len(names), "uV")


def chunks(row: int, cuts: Sequence[int], n: int = 300, *, gap: int | None = None) -> list[Chunk]:
    """A stream of its own in pieces; at row ``gap``, where given, comes a hole."""
    data = np.random.default_rng(row).normal(0, 20, (n, len(CHANNELS))).astype(np.float32)
    valid = np.random.default_rng(row + 9).random(n) > 0.005
    made = []
    for a, b in pairwise(sorted({0, n, *cuts, *([gap] if gap else [])})):
        late = 0 if gap is None or a < gap else 1000
        at = late + np.arange(a, b)
        made.append(Chunk(data[a:b], late + a, at / SFREQ, valid[a:b], gap is not None and a == gap))
    return made


def alone(bundle: Bundle, backend: OnnxRuntimeBackend, row: int, stream: Sequence[Chunk]) -> list[Decision]:
    pipeline = Pipeline(bundle, backend, info(row))
    return [decision for chunk in stream for decision in pipeline.process(chunk)]


def together(many: Many, arrivals: Sequence[tuple[int, Chunk, float]]) -> list[list[Decision]]:
    """Feed what arrives when it does, then wait as long as it takes."""
    heard: list[list[Decision]] = [[] for _ in many.pipelines]
    now = 0.0
    for row, chunk, now in arrivals:
        many.push(row, chunk, now)
        for stream, decision in many.step(now):
            heard[stream].append(decision)
    while (wait := many.due_in(now)) < math.inf:
        now += wait + 1e-9
        for stream, decision in many.step(now):
            heard[stream].append(decision)
    return heard


def assert_same(found: Sequence[Decision], wanted: Sequence[Decision]) -> None:
    assert [(d.index, d.time, d.label, d.valid) for d in found] == [
        (d.index, d.time, d.label, d.valid) for d in wanted
    ]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=TOLERANCE)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_each_stream_decides_as_alone(
    toy_rows: Bundle, one: OnnxRuntimeBackend, three: OnnxRuntimeBackend, data: st.DataObject
) -> None:
    """Whatever the chunks, the order and the times in which they come, and wherever one has a hole."""
    streams = [
        chunks(
            row,
            data.draw(st.lists(st.integers(1, 299), max_size=20)),
            gap=data.draw(st.one_of(st.none(), st.integers(1, 299))),
        )
        for row in range(N)
    ]
    order = data.draw(st.permutations([row for row, stream in enumerate(streams) for _ in stream]))
    waits = data.draw(st.lists(st.floats(0, 0.1), min_size=len(order), max_size=len(order)))
    turns = [iter(stream) for stream in streams]
    arrivals = [(row, next(turns[row]), at) for row, at in zip(order, np.cumsum(waits).tolist(), strict=True)]
    many = Many(toy_rows, three, [info(row) for row in range(N)])
    for row, heard in enumerate(together(many, arrivals)):
        assert_same(heard, alone(toy_rows, one, row, streams[row]))
        assert many.pipelines[row].resets == sum(chunk.discontinuity for chunk in streams[row])


def ticks(row: int) -> list[Chunk]:
    return chunks(row, range(10, 300, 10))


def test_streams_that_come_together_are_stepped_together(toy_rows: Bundle, three: OnnxRuntimeBackend) -> None:
    """One step a hop, when the last of them is ready and not before."""
    many = Many(toy_rows, three, [info(row) for row in range(N)])
    for hop, parts in enumerate(zip(*(ticks(row) for row in range(N)), strict=True), start=1):
        for row, chunk in enumerate(parts):
            assert not list(many.step(hop * HOP_S))
            many.push(row, chunk, hop * HOP_S)
        assert [stream for stream, _ in many.step(hop * HOP_S)] == [0, 1, 2]
        assert many.steps == hop


def test_one_that_stops_costs_the_others_their_patience_once(
    toy_rows: Bundle, one: OnnxRuntimeBackend, three: OnnxRuntimeBackend
) -> None:
    """They wait for it a quarter of a hop, then no more; when it comes back it goes on where it was."""
    many = Many(toy_rows, three, [info(row) for row in range(N)])
    heard: list[list[Decision]] = [[], [], []]
    waited = []
    for hop in range(20):
        now = hop * HOP_S
        for row in range(N):
            if row != 1 or not 5 <= hop < 15:
                many.push(row, ticks(row)[hop if row != 1 or hop < 5 else hop - 10], now)
        waited.append(many.due_in(now))
        for stream, decision in many.step(now + waited[-1]):
            heard[stream].append(decision)
    assert waited == [pytest.approx(HOP_S / 4) if hop == 5 else 0 for hop in range(20)]
    for row, n in enumerate((20, 10, 20)):
        assert_same(heard[row], alone(toy_rows, one, row, ticks(row)[:n]))


def test_one_that_ended_is_not_waited_for(toy_rows: Bundle, three: OnnxRuntimeBackend) -> None:
    """And what it had sent is decided on."""
    many = Many(toy_rows, three, [info(row) for row in range(N)])
    many.push(0, ticks(0)[0], 0.0)
    many.end(0)
    many.end(1)
    assert many.due_in(0.0) == pytest.approx(HOP_S / 4)
    many.end(2)
    assert [stream for stream, _ in many.step(0.0)] == [0]
    assert many.due_in(0.0) == math.inf


def test_one_that_is_behind_waits_for_none(toy_rows: Bundle, three: OnnxRuntimeBackend) -> None:
    """It is stepped until it has caught up, with those that are ready."""
    many = Many(toy_rows, three, [info(row) for row in range(N)])
    many.push(0, chunks(0, [])[0], 0.0)
    many.push(1, ticks(1)[0], 0.0)
    assert [stream for stream, _ in many.step(0.0)] == [0, 1] + [0] * 29


def test_one_that_ends_with_a_frame_is_not_waited_for_after_it(
    toy_rows: Bundle, three: OnnxRuntimeBackend
) -> None:
    """That frame is stepped with the others', which then go on without it."""
    many = Many(toy_rows, three, [info(row) for row in range(N)])
    for row in range(N):
        many.push(row, ticks(row)[0], 0.0)
    many.end(0)
    assert [stream for stream, _ in many.step(0.0)] == [0, 1, 2]
    for row in (1, 2):
        many.push(row, ticks(row)[1], HOP_S)
    assert many.due_in(HOP_S) == 0.0


def test_what_one_sends_changes_no_other(toy_rows: Bundle, three: OnnxRuntimeBackend) -> None:
    """Bit for bit, though it be no numbers at all."""
    heard = []
    for strange in (1.0, math.nan):
        many = Many(toy_rows, three, [info(row) for row in range(N)])
        streams = [ticks(row) for row in range(N)]
        arrivals = [(row, streams[row][hop], hop * HOP_S) for hop in range(30) for row in range(N)]
        arrivals = [
            (row, Chunk(strange * c.data, c.index, c.times, c.valid) if row == 1 else c, now)
            for row, c, now in arrivals
        ]
        heard.append(together(many, arrivals))
    assert heard[0][0] == heard[1][0]
    assert heard[0][2] == heard[1][2]
    assert not any(decision.valid for decision in heard[1][1])
