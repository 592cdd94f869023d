"""Values that no electrode gives do not reach a filter; what a device may really send does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import cut, cuts, info, record

from streamer.repair import Repair
from streamer.types import Chunk, StreamInfo, concatenate

N = 2000
CAP = info(4)


def signal(offset: float = 0.0) -> np.ndarray:
    """Return eight seconds of 20 uV, (n_times, 4)."""
    return (offset + np.random.default_rng(0).normal(0, 20, (N, 4))).astype(np.float32)


def mended(data: np.ndarray, stream: StreamInfo = CAP) -> tuple[Repair, Chunk]:
    repair = Repair(stream, max_bad=0.25)
    return repair, repair(replace(record(len(data), 4), data=data))


@pytest.mark.parametrize("value", [1e30, -3e38, 187_500.0])
def test_a_wild_value_is_held(value: float) -> None:
    """It becomes the channel's last good one, is counted, and what comes after it is as it was."""
    data = signal()
    data[1000, 1] = value
    repair, out = mended(data)
    expected = signal()
    expected[1000, 1] = expected[999, 1]
    np.testing.assert_array_equal(out.data, expected)
    assert (repair.glitches, repair.non_finite) == (1, 0)
    assert out.valid.all()  # one electrode of four


def test_a_wild_row_is_not_valid() -> None:
    """As one that is not finite."""
    data = signal()
    data[1000] = 1e30
    _, out = mended(data)
    assert np.flatnonzero(~out.valid).tolist() == [1000]


@pytest.mark.parametrize("offset", [-187_000.0, 432_000.0])
def test_an_offset_passes(offset: float) -> None:
    """An amplifier coupled directly has tens or hundreds of millivolts of it, from the first sample."""
    repair, out = mended(signal(offset))
    np.testing.assert_array_equal(out.data, signal(offset))
    assert repair.glitches == 0


def test_a_new_level_passes_after_a_tenth_of_a_second() -> None:
    """An electrode that comes off or is put back stays where it is: it is held no longer than a hole."""
    data = signal()
    data[1000:, 2] += 187_500
    repair, out = mended(data)
    assert repair.glitches == repair.max_gap == 25
    np.testing.assert_array_equal(out.data[1025:], data[1025:])
    assert (out.data[1000:1025, 2] == data[999, 2]).all()


@pytest.mark.parametrize(
    "stream",
    [replace(CAP, unit="unknown"), replace(CAP, ch_types=("stim", "misc", "stim", "misc"))],
    ids=["unit", "type"],
)
def test_what_is_no_electrode_is_not_judged(stream: StreamInfo) -> None:
    """Counts of no known unit and triggers may be anything."""
    data = signal()
    data[1000] = 1e30
    repair, out = mended(data, stream)
    np.testing.assert_array_equal(out.data, data)
    assert repair.glitches == 0


def test_a_stream_that_says_the_wrong_unit_passes() -> None:
    """Microvolts called volts jump at every sample: a channel that always jumps is not judged."""
    repair, out = mended(signal(), replace(CAP, unit="V"))
    np.testing.assert_array_equal(out.data, signal())
    assert repair.glitches == 0


@settings(deadline=None, max_examples=50)
@given(at=cuts(N), seed=st.integers(0, 1000))
def test_chunks_do_not_matter(at: list[int], seed: int) -> None:
    """Glitches, bursts of them, new levels and values that are not finite: the same for any chunking."""
    rng = np.random.default_rng(seed)
    data = signal()
    for _ in range(12):
        start, channel = rng.integers(N), rng.integers(4)
        data[start : start + rng.integers(1, 60), channel] = rng.choice([1e30, 2e5, -3e5, np.nan, np.inf])
    whole, expected = mended(data)
    repair = Repair(CAP, max_bad=0.25)
    pieces = [repair(piece) for piece in cut(replace(record(N, 4), data=data), at)]
    out = concatenate([piece for piece in pieces if len(piece)])
    np.testing.assert_array_equal(out.data, expected.data)
    np.testing.assert_array_equal(out.valid, expected.valid)
    assert (repair.glitches, repair.non_finite) == (whole.glitches, whole.non_finite)
