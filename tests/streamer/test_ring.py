"""The mirrored ring."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import cut, cuts, every, indices, info, part, record

from streamer.ring import Ring
from streamer.types import Chunk, concatenate

some = settings(deadline=None, max_examples=25)


def drain(ring: Ring) -> list[Chunk]:
    """Read until there is nothing."""
    return list(iter(ring.read_new, None))


@given(at=cuts(500), capacity=st.integers(1, 120), seed=st.integers(0, 99))
@some
def test_windows_are_the_newest_rows(at: list[int], capacity: int, seed: int) -> None:
    """After each write, `latest` is the end of all that was written, in one contiguous view."""
    whole, ring, n_written = record(500), Ring(info(), capacity), 0
    rng = np.random.default_rng(seed)
    for chunk in cut(whole, at):
        ring.write(chunk)
        n_written += len(chunk)
        n = int(rng.integers(0, capacity + 1))
        window = ring.latest(n)
        np.testing.assert_array_equal(window, whole.data[max(0, n_written - n) : n_written])
        assert window.flags.c_contiguous
        assert not window.flags.owndata


@given(at=cuts(500), reads=st.lists(st.booleans(), min_size=41, max_size=41))
@some
def test_what_is_read_is_what_was_written(at: list[int], reads: list[bool]) -> None:
    """With room for all, rows come out once, in order, whatever the chunks and the moments of reading."""
    whole, ring, out = record(500), Ring(info(), 500), []
    for chunk, read in zip(cut(whole, at), reads, strict=False):
        ring.write(chunk)
        out += drain(ring) if read else []
    out += drain(ring)
    joined = concatenate(out)
    for field in ("data", "times", "valid"):
        np.testing.assert_array_equal(getattr(joined, field), getattr(whole, field))
    assert ring.dropped == 0


def test_a_read_ends_at_a_discontinuity() -> None:
    """What lies on both sides of a hole comes in two reads, the second flagged."""
    whole, ring = record(100), Ring(info(), 100)
    ring.write(part(whole, 0, 30))
    after = part(whole, 50, 80)
    ring.write(Chunk(after.data, 50, after.times, after.valid, discontinuity=True))
    ring.write(part(whole, 80, 90))
    first, second = drain(ring)
    assert (first.index, len(first), first.discontinuity) == (0, 30, False)
    assert (second.index, len(second), second.discontinuity) == (50, 40, True)
    ring.write(part(whole, 95, 100))
    (third,) = drain(ring)
    assert (third.index, len(third), third.discontinuity) == (95, 5, True)


def test_an_index_that_jumps_is_a_discontinuity() -> None:
    """A hole that nobody flagged is flagged."""
    whole, ring = record(100), Ring(info(), 100)
    ring.write(part(whole, 0, 30))
    ring.write(part(whole, 40, 60))
    assert [chunk.discontinuity for chunk in drain(ring)] == [False, True]


@pytest.mark.parametrize("rows", [7, 100, 350])
def test_overflow_is_counted_and_flagged(rows: int) -> None:
    """A reader that is too late gets the newest rows, flagged, with their true index; the rest is counted."""
    whole, ring = record(700), Ring(info(), 100)
    ring.write(part(whole, 0, 50))
    assert ring.read_new() is not None
    for chunk in every(part(whole, 50, 700), rows):
        ring.write(chunk)
    (late,) = drain(ring)
    assert (late.index, len(late), late.discontinuity, ring.dropped) == (600, 100, True, 550)
    np.testing.assert_array_equal(late.data, whole.data[600:])
    ring.write(part(record(710), 700, 710))
    assert [c.discontinuity for c in drain(ring)] == [False]


def test_overflow_into_a_run() -> None:
    """Rows lost up to the middle of what follows a hole leave that run's rest, flagged."""
    whole, ring = record(300), Ring(info(), 100)
    ring.write(part(whole, 0, 60))
    ring.write(part(whole, 100, 130))
    ring.write(part(whole, 130, 220))
    (late,) = drain(ring)
    assert (late.index, len(late), late.discontinuity, ring.dropped) == (120, 100, True, 80)


def test_skip_goes_to_the_newest() -> None:
    """`skip` drops all but the newest rows, counts them, and flags what is read next."""
    whole, ring = record(100), Ring(info(), 100)
    ring.write(part(whole, 0, 80))
    assert ring.skip(keep=1) == 79
    (newest,) = drain(ring)
    assert (newest.index, len(newest), newest.discontinuity, ring.dropped) == (79, 1, True, 79)
    assert ring.skip() == 0
    ring.write(part(whole, 80, 90))
    assert ring.skip() == 10
    ring.write(part(whole, 90, 100))
    (after,) = drain(ring)
    assert (after.index, after.discontinuity) == (90, True)


def test_chunks_read_are_never_written_to() -> None:
    """A chunk stays as it was read when the ring goes round."""
    whole, ring = record(300), Ring(info(), 50)
    ring.write(part(whole, 0, 40))
    chunk = ring.read_new()
    assert chunk is not None
    for piece in every(part(whole, 40, 300), 13):
        ring.write(piece)
    np.testing.assert_array_equal(chunk.data, whole.data[:40])
    np.testing.assert_array_equal(chunk.times, whole.times[:40])


def test_a_reader_waits_for_a_row() -> None:
    """A read blocks until a row is written, and returns None when the ring is closed instead."""
    ring = Ring(info(), 50)
    heard: list[Chunk | None] = []
    reader = threading.Thread(target=lambda: heard.extend(ring.read_new(60.0) for _ in range(2)))
    reader.start()
    ring.write(record(5))
    while not heard:
        reader.join(0.001)
    ring.close()
    reader.join(10.0)
    assert [chunk is None for chunk in heard] == [False, True]
    assert ring.read_new(0.001) is None


def test_a_writer_waits_for_room() -> None:
    """`wait_space` blocks while the rows do not fit, and a read wakes it."""
    ring = Ring(info(), 50)
    ring.write(record(50))
    assert not ring.wait_space(1, 0.001)
    waiter = threading.Thread(target=lambda: heard.append(ring.wait_space(50, 60.0)))
    heard: list[bool] = []
    waiter.start()
    ring.read_new()
    waiter.join(10.0)
    assert heard == [True]


def test_two_threads() -> None:
    """A writer and a reader at full speed: every row arrives once, in order."""
    whole, ring, out = record(20000), Ring(info(), 64), []

    def write() -> None:
        for chunk in every(whole, 7):
            while not ring.wait_space(len(chunk), 1.0):
                pass
            ring.write(chunk)
        ring.close()

    writer = threading.Thread(target=write)
    writer.start()
    while (chunk := ring.read_new(10.0)) is not None:
        out.append(chunk)
    writer.join()
    np.testing.assert_array_equal(indices(out), np.arange(20000))
    np.testing.assert_array_equal(concatenate(out).data, whole.data)
    assert ring.dropped == 0


def test_impossible_sizes_are_refused() -> None:
    """A ring without room, and a window larger than the ring, are errors that say so."""
    with pytest.raises(ValueError, match="at least one row"):
        Ring(info(), 0)
    with pytest.raises(ValueError, match="holds 10 rows, asked for 11"):
        Ring(info(), 10).latest(11)
