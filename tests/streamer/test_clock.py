"""The drift fit and the holes that it finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from live import START, cut, cuts, every, indices, part, stamped
from numpy.typing import NDArray

from streamer.clock import Clock
from streamer.types import Chunk

SFREQ = 250.0
some = settings(deadline=None, max_examples=25)


def grid(seconds: float, sfreq: float = SFREQ) -> NDArray[np.float64]:
    """Return exact stamps."""
    return START + np.arange(round(seconds * sfreq)) / sfreq


def play(stamps: NDArray[np.float64], rows: int = 10, sfreq: float = SFREQ) -> tuple[Clock, list[Chunk]]:
    """Send stamps through a clock, so many rows at a time, to the end."""
    clock = Clock(sfreq)
    out = [piece for chunk in every(stamped(stamps), rows) for piece in clock.split(chunk)]
    return clock, out + clock.flush()


def times_of(chunks: list[Chunk]) -> NDArray[np.float64]:
    """Return all stamps, and see that they always increase and no row was lost."""
    times = np.concatenate([chunk.times for chunk in chunks])
    rows = np.concatenate([chunk.data[:, 0] for chunk in chunks])
    assert np.all(np.diff(times) > 0)
    np.testing.assert_array_equal(rows, np.arange(len(rows)))
    return times


def awkward(seed: int = 0) -> NDArray[np.float64]:
    """Return stamps with all that happens: jitter, a stall, holes, stamps that are none, a step back."""
    rng = np.random.default_rng(seed)
    stamps = grid(24) * (1 + 1e-4) - 1e-4 * START
    stamps[1000:1300] += rng.normal(0, 0.02, 300)
    stamps[1500:1560] = stamps[1560]
    stamps[2000:] += 7 / SFREQ
    stamps[2600:] += 1.0
    stamps[3000:3010] = np.nan
    stamps[3100] = np.inf
    stamps[3500:] -= 0.3
    stamps[4000:4006] = stamps[4000]
    stamps[4500:4520] = stamps[4500:4520][::-1]
    stamps[5200:] += 20 / SFREQ + np.abs(rng.normal(0, 2e-3, len(stamps) - 5200))
    return stamps


def test_exact_stamps_stay() -> None:
    """On an exact grid nothing changes: the index is untouched and times are the stamps."""
    clock, out = play(grid(60))
    np.testing.assert_allclose(times_of(out), grid(60), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(indices(out), np.arange(len(grid(60))))
    assert (clock.holes, clock.steps) == (0, 0)


@pytest.mark.parametrize("ppm", [-200, 200])
@pytest.mark.parametrize("sfreq", [160.0, 2000.0])
def test_drift_is_followed(ppm: float, sfreq: float) -> None:
    """Under 5 ms of jitter the axis finds a clock's drift, to 20 ppm and 1 ms, and no hole."""
    true = START + np.arange(round(90 * sfreq)) / sfreq * (1 - ppm * 1e-6)
    stamps = true + np.random.default_rng(1).normal(0, 5e-3, len(true))
    clock, out = play(stamps, sfreq=sfreq)
    assert abs(clock.drift_ppm - ppm) < 20
    assert np.abs(times_of(out) - true)[len(true) // 3 :].max() < 1e-3
    assert clock.jitter_ms == pytest.approx(5 * np.sqrt(2 / np.pi), rel=0.2)
    assert (clock.holes, clock.steps) == (0, 0)


def test_a_burst_of_jitter_moves_nothing() -> None:
    """One second of 20-ms jitter in exact stamps moves no stamp by more than 1 ms and makes no hole."""
    stamps = grid(30)
    stamps[3000:3250] += np.random.default_rng(2).normal(0, 0.02, 250)
    clock, out = play(stamps)
    assert np.abs(times_of(out) - grid(30)).max() < 1e-3
    assert (clock.holes, clock.steps) == (0, 0)


@pytest.mark.parametrize("seed", range(8))
def test_a_burst_of_late_chunks_is_no_hole(seed: int) -> None:
    """Chunks that suddenly come up to 60 ms late, each by its own delay, are neither missing nor moved."""
    stamps = grid(15, sfreq=1000.0)
    late = np.abs(np.random.default_rng(seed).normal(0, 0.02, 100)).repeat(10)
    stamps[8000:9000] += late
    clock, out = play(stamps, sfreq=1000.0)
    np.testing.assert_array_equal(indices(out), np.arange(15000))
    assert np.abs(times_of(out) - grid(15, sfreq=1000.0)).max() < 5e-3
    assert clock.holes == 0


def test_a_backlog_that_drains_slowly_is_no_hole() -> None:
    """Half a second of delay that a slow link makes up for within 1.5 s loses nothing and adds nothing."""
    stamps = grid(30)
    stamps[4000:] += np.maximum(0, 0.5 - 0.33 * (stamps[4000:] - stamps[4000]))
    clock, out = play(stamps)
    times_of(out)
    np.testing.assert_array_equal(indices(out), np.arange(len(stamps)))
    assert clock.holes == 0


@pytest.mark.parametrize("missing", [1, 2, 20, 2000])
def test_a_hole_lies_where_it_was(missing: int) -> None:
    """Where exact stamps jump ahead for good the index jumps by as many samples, before that very row."""
    stamps = grid(20)
    stamps[2501:] += missing / SFREQ
    clock, out = play(stamps)
    expected = np.arange(len(stamps)) + missing * (np.arange(len(stamps)) >= 2501)
    np.testing.assert_array_equal(indices(out), expected)
    np.testing.assert_allclose(times_of(out), stamps, rtol=0, atol=1e-7)
    assert clock.holes == 1


def test_a_hole_is_found_in_stamps_of_arrival() -> None:
    """A hole of 0.2 s is found to the sample when chunks of 10 are stamped late by up to some ms."""
    late = np.random.default_rng(3).exponential(1e-3, 750).repeat(10)
    stamps = grid(30) + late
    stamps[4000:] += 50 / SFREQ
    _, out = play(stamps)
    times_of(out)
    assert np.flatnonzero(np.diff(indices(out)) > 1).tolist() == [3999]
    assert indices(out)[-1] == len(stamps) - 1 + 50


def test_a_stall_that_catches_up_is_no_hole() -> None:
    """Half a second that arrives at once, late, loses nothing and adds nothing."""
    stamps = grid(30)
    stamps[4000:4125] = stamps[4125]
    clock, out = play(stamps)
    np.testing.assert_array_equal(indices(out), np.arange(len(stamps)))
    assert np.abs(times_of(out) - grid(30)).max() < 0.01
    assert clock.holes == 0


def test_a_step_back_is_followed() -> None:
    """After the sender's clock stepped back by 1 s times still increase, and agree with it again."""
    stamps = grid(30)
    stamps[4000:] -= 1.0
    clock, out = play(stamps)
    assert times_of(out)[-1] == pytest.approx(stamps[-1], abs=1e-6)
    assert (clock.holes, clock.steps) == (0, 1)


def test_samples_in_bursts_as_a_serial_port_delivers_them() -> None:
    """Four samples stamped together every 16 ms come out evenly spaced, none missing."""
    stamps = grid(40)[::4].repeat(4) + np.tile([0.0, 1e-5, 2e-5, 3e-5], 2500)
    clock, out = play(stamps, rows=4)
    spacing = np.diff(times_of(out))[2500:]
    np.testing.assert_allclose(spacing, 1 / SFREQ, atol=2e-4)
    assert (clock.holes, clock.steps) == (0, 0)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_wrong_rate_shows(factor: float) -> None:
    """A device 10 % off its rate is not swallowed: samples are found missing, or the clock steps, often."""
    clock, out = play(START + np.arange(15000) / SFREQ * factor)
    assert times_of(out)[-1] == pytest.approx(START + 60 * factor, abs=0.5)
    assert (clock.holes if factor > 1 else clock.steps) > 10
    assert abs(clock.drift_ppm) < 11_000


def test_stamps_that_are_not_numbers_are_ignored() -> None:
    """Rows without a usable stamp, the first ones too, get the one that the others imply."""
    stamps = grid(10)
    stamps[:3] = np.nan
    stamps[700:900] = np.inf
    stamps[1000::5] = -np.inf
    clock, out = play(stamps)
    np.testing.assert_allclose(times_of(out), grid(10), rtol=0, atol=1e-7)
    assert (clock.holes, clock.steps) == (0, 0)


def test_no_stamp_at_all() -> None:
    """Without a single usable stamp rows are still counted, on an increasing axis."""
    _, out = play(np.full(1000, np.nan))
    assert np.diff(times_of(out)) == pytest.approx(1 / SFREQ)


@given(at=cuts(6000))
@some
def test_chunking_changes_nothing(at: list[int]) -> None:
    """Any chunking of awkward stamps gives the same rows, indices and times as one chunk."""
    whole, parted = Clock(SFREQ), Clock(SFREQ)
    expected = whole.split(stamped(awkward())) + whole.flush()
    out = [piece for chunk in cut(stamped(awkward()), at) for piece in parted.split(chunk)]
    out += parted.flush()
    np.testing.assert_array_equal(indices(out), indices(expected))
    np.testing.assert_allclose(times_of(out), times_of(expected), rtol=0, atol=1e-9)
    assert (parted.holes, parted.steps) == (whole.holes, whole.steps)
    assert whole.holes >= 3


def test_the_future_changes_nothing() -> None:
    """What has come out stays true whatever comes later."""
    stamps = awkward()
    _, full = play(stamps)
    for end in (990, 2100, 2650, 5300):
        clock = Clock(SFREQ)
        out = [piece for chunk in every(stamped(stamps[:end]), 10) for piece in clock.split(chunk)]
        n_out = len(indices(out))
        np.testing.assert_array_equal(indices(out), indices(full)[:n_out])
        np.testing.assert_allclose(times_of(out), times_of(full)[:n_out], rtol=0, atol=1e-9)


def test_a_call_returns_one_contiguous_chunk() -> None:
    """Calls return what `split` does, one piece at a time."""
    stamps = grid(20)
    stamps[2501:] += 40 / SFREQ
    clock = Clock(SFREQ)
    first = clock(stamped(stamps))
    second = clock(part(stamped(stamps), 0, 0))
    assert (first.index, len(first)) == (0, 2501)
    assert (second.index, len(second)) == (2541, len(stamps) - 2501)
    assert len(clock(part(stamped(stamps), 0, 0))) == 0


def test_a_flagged_chunk_starts_the_axis_anew() -> None:
    """After a discontinuity times follow the new stamps at once, and the source's index is kept."""
    clock = Clock(SFREQ)
    clock(stamped(grid(5)))
    again = stamped(grid(5) + 60)
    moved = Chunk(again.data, 2000, again.times, again.valid, discontinuity=True)
    (out,) = clock.split(moved)
    assert out.discontinuity
    assert (out.index, clock.holes) == (2000, 0)
    np.testing.assert_allclose(out.times, grid(5) + 60, rtol=0, atol=1e-7)


@pytest.mark.parametrize("flag", [False, True])
def test_rows_in_doubt_come_out_before_a_jump_of_the_source(flag: bool) -> None:
    """Rows held back because their stamps are ahead are not forgotten when the source's index jumps."""
    stamps = grid(5)
    stamps[-5:] += 1.0
    clock = Clock(SFREQ)
    first = clock.split(stamped(stamps))
    after = part(stamped(grid(20)), 2000, 3000)
    second = clock.split(Chunk(after.data, 2000, after.times, after.valid, discontinuity=flag))
    assert [len(indices(first)), len(indices(second))] == [1245, 1005]
    np.testing.assert_array_equal(indices(second), np.r_[1245:1250, 2000:3000])
    assert [chunk.discontinuity for chunk in second] == [False, flag]


def test_holes_that_the_source_knows_are_kept() -> None:
    """An index that jumps with the stamps passes; a jump that the stamps do not follow is a step back."""
    whole = stamped(grid(20))
    clock = Clock(SFREQ)
    out = [clock(part(whole, 0, 1000)), clock(part(whole, 1400, 5000))]
    np.testing.assert_array_equal(indices(out), np.r_[0:1000, 1400:5000])
    np.testing.assert_allclose(out[1].times, whole.times[1400:], rtol=0, atol=1e-7)
    assert (clock.holes, clock.steps) == (0, 0)


def test_reset_is_fresh() -> None:
    """After `reset` a clock does what a new one does."""
    clock = Clock(SFREQ)
    clock.split(stamped(awkward(1)))
    clock.reset()
    out = clock.split(stamped(awkward())) + clock.flush()
    fresh = Clock(SFREQ)
    expected = fresh.split(stamped(awkward())) + fresh.flush()
    np.testing.assert_array_equal(indices(out), indices(expected))
    np.testing.assert_array_equal(times_of(out), times_of(expected))
    assert (clock.holes, clock.steps) == (fresh.holes, fresh.steps)


def test_counted_stamps_pass_unchanged() -> None:
    """With ``stamped=False`` a chunk is returned as it is."""
    chunk = stamped(awkward())
    assert Clock(SFREQ, stamped=False)(chunk) is chunk
