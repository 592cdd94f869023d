"""Holes, overlaps and values that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from live import cut, cuts, indices, info, part, record

from streamer.clock import Clock
from streamer.repair import Repair
from streamer.types import Chunk, concatenate, empty_chunk

N = 2000
some = settings(deadline=None, max_examples=25)


def bad(seed: int = 0) -> Chunk:
    """Return a record with NaN, infinities, a dead channel and rows marked before."""
    chunk = record(N)
    data, valid = chunk.data.copy(), chunk.valid.copy()
    rng = np.random.default_rng(seed)
    data[rng.random(data.shape) < 0.02] = np.nan
    data[rng.random(data.shape) < 0.01] = -np.inf
    data[:20, 1] = np.nan
    data[700:900, 2] = np.inf
    valid[300:310] = False
    return Chunk(data, 0, chunk.times, valid)


def holed(chunk: Chunk) -> list[Chunk]:
    """Take out some rows: two short holes, a long one, and send some rows twice."""
    rows = [(0, 400), (410, 1000), (1001, 1200), (1300, 1500), (1450, 1700), (1480, 1600), (1700, N)]
    return [part(chunk, *edges) for edges in rows]


def mended(chunks: list[Chunk]) -> tuple[Repair, list[Chunk]]:
    """Send chunks through a repair."""
    repair = Repair(info())
    return repair, [out for chunk in chunks if len(out := repair(chunk))]


def test_a_clean_stream_is_untouched() -> None:
    """Contiguous finite chunks pass, data not even copied."""
    repair, chunk = Repair(info()), record(100)
    assert repair(chunk) is chunk
    assert repair(record(50, index=100)).index == 100


def test_short_holes_are_filled_by_straight_lines() -> None:
    """Rows of a hole lie on the line between its neighbours, in data and time, and are not valid."""
    whole = record(200)
    repair, out = mended([part(whole, 0, 100), part(whole, 110, 200)])
    joined = concatenate(out)
    np.testing.assert_array_equal(indices(out), np.arange(200))
    line = np.linspace(whole.data[99], whole.data[110], 12)[1:-1]
    np.testing.assert_allclose(joined.data[100:110], line, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(joined.times, whole.times, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(np.flatnonzero(~joined.valid), np.arange(100, 110))
    assert (repair.repaired, repair.gaps, repair.lost) == (10, 1, 0)


def test_a_line_between_extremes_is_finite() -> None:
    """A hole between the largest and the smallest float32 is filled with finite values."""
    data = np.array([[3e38, 1, 1], [3e38, 1, 1], [-3e38, 1, 1]], dtype=np.float32)
    whole = Chunk(data, 0, np.arange(3.0), np.ones(3, dtype=bool))
    last = part(whole, 2, 3)
    _, out = mended([part(whole, 0, 2), Chunk(last.data, 5, last.times, last.valid)])
    assert np.isfinite(concatenate(out).data).all()


def test_long_holes_are_discontinuities() -> None:
    """Beyond the limit nothing is made up: the chunk is flagged and the samples counted as lost."""
    whole = record(200)
    repair, out = mended([part(whole, 0, 100), part(whole, 126, 200)])
    assert [chunk.discontinuity for chunk in out] == [False, True]
    np.testing.assert_array_equal(indices(out), np.r_[0:100, 126:200])
    assert (repair.lost, repair.discontinuities, repair.repaired) == (26, 1, 0)


def test_the_limit_is_in_seconds_and_inclusive() -> None:
    """A hole of exactly max_gap_s is filled."""
    whole = record(200)
    repair, out = mended([part(whole, 0, 100), part(whole, 125, 200)])
    assert not any(chunk.discontinuity for chunk in out)
    assert repair.repaired == 25


def test_a_flag_of_the_source_is_never_filled_over() -> None:
    """A chunk that the source flags stays flagged whatever its index, also when the flag comes on no rows."""
    whole = record(200)
    flagged = Chunk(whole.data[105:], 105, whole.times[105:], whole.valid[105:], discontinuity=True)
    repair, out = mended([part(whole, 0, 100), flagged])
    assert out[1].discontinuity
    assert (repair.lost, repair.discontinuities, repair.repaired) == (5, 1, 0)
    nothing = Chunk(whole.data[:0], 100, whole.times[:0], whole.valid[:0], discontinuity=True)
    _, out = mended([part(whole, 0, 100), nothing, part(whole, 100, 200)])
    assert [chunk.discontinuity for chunk in out] == [False, True]


def test_rows_seen_before_are_dropped() -> None:
    """Overlapping and repeated chunks leave each index once."""
    whole = record(300)
    repair, out = mended(
        [part(whole, 0, 100), part(whole, 50, 150), part(whole, 20, 140), part(whole, 150, 300)]
    )
    np.testing.assert_array_equal(indices(out), np.arange(300))
    np.testing.assert_array_equal(concatenate(out).data, whole.data)
    assert repair.duplicates == 50 + 120


def test_values_that_are_no_numbers_are_held() -> None:
    """A bad value becomes the channel's last good one, 0 before the first, and its row is not valid."""
    chunk = bad()
    repair, (out,) = mended([chunk])
    good = np.isfinite(chunk.data)
    expected = chunk.data.copy()
    for column in range(3):
        last = np.float32(0)
        for row in range(N):
            last = expected[row, column] = chunk.data[row, column] if good[row, column] else last
    np.testing.assert_array_equal(out.data, expected)
    np.testing.assert_array_equal(out.valid, chunk.valid & good.all(axis=1))
    assert repair.non_finite == np.count_nonzero(~good)


def test_input_is_not_written_to() -> None:
    """The chunk that came in is as it was."""
    chunk = bad()
    before = chunk.data.copy(), chunk.valid.copy(), chunk.times.copy()
    mended(holed(chunk))
    np.testing.assert_array_equal(chunk.data, before[0])
    np.testing.assert_array_equal(chunk.valid, before[1])
    np.testing.assert_array_equal(chunk.times, before[2])


def test_after_a_discontinuity_nothing_of_before_is_left() -> None:
    """What follows a long hole is what a fresh repair makes of it."""
    chunk = bad()
    _, out = mended([part(chunk, 0, 650), part(chunk, 750, N)])
    _, (fresh,) = mended([part(chunk, 750, N)])
    np.testing.assert_array_equal(out[1].data, fresh.data)
    np.testing.assert_array_equal(out[1].valid, fresh.valid)


@given(at=cuts(N))
@some
def test_chunking_changes_nothing(at: list[int]) -> None:
    """Any chunking of a bad stream gives the same rows, and the same counts."""
    whole, expected = mended(holed(bad()))
    parted, out = mended([piece for chunk in holed(bad()) for piece in cut(chunk, at)])
    _same(out, expected)
    counters = ("repaired", "gaps", "lost", "discontinuities", "duplicates", "non_finite", "glitches")
    assert [getattr(parted, c) for c in counters] == [getattr(whole, c) for c in counters]


@given(at=cuts(N))
@some
def test_chunking_changes_nothing_behind_a_clock(at: list[int]) -> None:
    """Clock and repair together: holes seen in the stamps only, any chunking, the same rows."""
    chunk = bad()
    times = chunk.times.copy()
    times[1000:] += 8 / 250
    times[1500:] += 2.0

    def clean(pieces: list[Chunk]) -> list[Chunk]:
        clock, repair = Clock(250.0), Repair(info())
        parts = [part for piece in pieces for part in clock.split(piece)] + clock.flush()
        return [out for part in parts if len(out := repair(part))]

    moved = Chunk(chunk.data, 0, times, chunk.valid)
    expected = clean([moved])
    assert [c.discontinuity for c in expected] == [False, False, True]
    assert len(indices(expected)) == N + 8
    _same(clean(cut(moved, at)), expected)


def test_empty_chunks_pass() -> None:
    """A chunk of no rows changes nothing."""
    repair = Repair(info())
    assert len(repair(empty_chunk(info(), 5))) == 0
    assert repair(record(10)).index == 0


@pytest.mark.parametrize("n_times", [1, 3])
def test_reset_is_fresh(n_times: int) -> None:
    """After `reset` the next chunk is the first one, whatever its index; the counters go on."""
    repair = Repair(info())
    repair(record(100))
    repair.reset()
    out = repair(record(n_times))
    assert (len(out), out.discontinuity, repair.duplicates) == (n_times, False, 0)


def _same(out: list[Chunk], expected: list[Chunk]) -> None:
    for field in ("data", "times", "valid"):
        a, b = (np.concatenate([getattr(c, field) for c in chunks]) for chunks in (out, expected))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 if field == "times" else 0)
    np.testing.assert_array_equal(indices(out), indices(expected))
    starts = [[c.index for c in chunks if c.discontinuity] for chunks in (out, expected)]
    assert starts[0] == starts[1]
