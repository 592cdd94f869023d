"""Feeds: what a source sends, clean, in the caller's thread or another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from live import ScriptedSource, every, indices, info, part, record

from streamer.acquire import DirectFeed, Feed, ThreadedFeed, feed
from streamer.clock import Clock
from streamer.errors import EndOfStream, StreamLost
from streamer.repair import Repair
from streamer.types import Chunk, Marker, concatenate

PATIENCE_S = READ_S = 30.0  # never waited for in full: reads return as soon as there is something

BOTH = pytest.mark.parametrize(
    "make",
    [DirectFeed, ThreadedFeed, lambda source: ThreadedFeed(source, buffer_s=0.1)],
    ids=["direct", "threaded", "small-buffer"],
)


def read_all(samples: Feed) -> list[Chunk]:
    """Read to the end of the stream."""
    chunks: list[Chunk | None] = []
    while chunks.count(None) < 1000:
        try:
            chunks.append(samples.read(READ_S))
        except EndOfStream:
            return [chunk for chunk in chunks if chunk is not None]
    pytest.fail("the stream does not end")


class GatedSource(ScriptedSource):
    """A scripted source whose next chunk comes when the test says so."""

    def __init__(self, script: Sequence[Chunk | Exception | None]) -> None:
        super().__init__(script)
        self.gate = threading.Semaphore(0)
        self.waiting = threading.Semaphore(0)

    def read(self, timeout_s: float) -> Chunk | None:
        self.waiting.release()
        if not self.gate.acquire(timeout=timeout_s):
            self.waiting.acquire()
            return None
        return super().read(timeout_s)

    def let(self, reads: int) -> None:
        """Let so many reads through and wait until the reader asks for more."""
        self.waiting.acquire()
        for _ in range(reads):
            self.gate.release()
            self.waiting.acquire()
        self.waiting.release()


@BOTH
def test_all_samples_of_a_file_arrive_in_order(make: Callable[[ScriptedSource], Feed]) -> None:
    """From a source that is not live every row is read once, however small the buffer; then it ends."""
    whole = record(2000)
    script = [piece for chunk in every(whole, 70) for piece in (None, chunk)]
    with make(ScriptedSource(script, live=False)) as samples:
        chunks = read_all(samples)
    joined = concatenate(chunks)
    np.testing.assert_array_equal(joined.data, whole.data)
    np.testing.assert_array_equal(indices(chunks), np.arange(2000))
    np.testing.assert_allclose(joined.times, whole.times, rtol=0, atol=1e-7)
    assert (samples.counters.samples_in, samples.counters.dropped) == (2000, 0)


@BOTH
def test_what_happened_is_counted(make: Callable[[ScriptedSource], Feed]) -> None:
    """Every repair, loss and reconnect is in the counters, and the reader sees the same holes."""
    whole = record(2000)
    data = whole.data.copy()
    data[100, 1] = np.nan
    whole = Chunk(data, 0, whole.times, whole.valid)
    edges = [(0, 500), (510, 900), (880, 1000), (1300, 2000)]
    source = ScriptedSource([part(whole, *edge) for edge in edges], live=False)
    source.reconnects = 3  # type: ignore[attr-defined]
    with make(source) as samples:
        chunks = read_all(samples)
        counters = samples.counters
    assert [c.index for c in chunks if c.discontinuity] == [1300]
    np.testing.assert_array_equal(indices(chunks), np.r_[0:1000, 1300:2000])
    assert (counters.repaired, counters.gaps) == (10, 1)
    assert (counters.samples_lost, counters.discontinuities) == (300, 1)
    assert (counters.duplicates, counters.non_finite, counters.reconnects) == (20, 1, 3)


@BOTH
def test_the_end_comes_last_and_again(make: Callable[[ScriptedSource], Feed]) -> None:
    """Rows that the clock held in doubt come out before `EndOfStream`, which is raised each time."""
    whole = record(1000)
    times = whole.times.copy()
    times[995:] += 1.0
    with make(ScriptedSource([Chunk(whole.data, 0, times, whole.valid)], live=False)) as samples:
        assert len(indices(read_all(samples))) == 1000
        with pytest.raises(EndOfStream):
            samples.read(PATIENCE_S)


@BOTH
def test_the_source_s_error_reaches_the_reader(make: Callable[[ScriptedSource], Feed]) -> None:
    """Whatever a source raises, after the rows before it, is raised by `read`, with its traceback."""
    with make(ScriptedSource([record(100), StreamLost("gone")])) as samples:
        assert samples.read(PATIENCE_S) is not None
        with pytest.raises(StreamLost, match="gone") as caught:
            samples.read(PATIENCE_S)
    assert "live.py" in str(caught.traceback[-1].path)


@BOTH
def test_close_twice(make: Callable[[ScriptedSource], Feed]) -> None:
    """A feed closes its source, also before anything was read, and may be closed again."""
    source = ScriptedSource([record(5000)], live=False)
    samples = make(source)
    samples.close()
    samples.close()
    assert source.closed >= 1


def test_markers_pass() -> None:
    """A feed's markers are its source's."""
    with DirectFeed(ScriptedSource([])) as direct, ThreadedFeed(ScriptedSource([])) as threaded:
        assert [m.label for m in direct.markers()] == [m.label for m in threaded.markers()] == ["go"]
        assert isinstance(direct.markers()[0], Marker)


def test_a_slow_reader_of_a_device_loses_the_oldest() -> None:
    """Beyond the buffer the oldest rows of a live source are dropped, counted, and the hole flagged."""
    source = GatedSource(every(record(1000), 50))
    with ThreadedFeed(source, buffer_s=1.0) as samples:
        source.let(2)
        first = samples.read(PATIENCE_S)
        source.let(10)
        late = samples.read(PATIENCE_S)
        source.let(1)
        after = samples.read(PATIENCE_S)
    assert first is not None
    assert (first.index, len(first)) == (0, 100)
    assert late is not None
    assert (late.index, len(late), late.discontinuity) == (350, 250, True)
    assert after is not None
    assert (after.index, after.discontinuity) == (600, False)
    assert samples.counters.dropped == 250


def test_skip_goes_to_the_newest_when_too_much_waits() -> None:
    """With late="skip" a backlog above the limit is left out, counted and flagged; below it is read."""
    source = GatedSource(every(record(1000), 50))
    with ThreadedFeed(source, late="skip", max_backlog_s=0.5) as samples:
        source.let(2)
        first = samples.read(PATIENCE_S)
        source.let(10)
        late = samples.read(PATIENCE_S)
    assert first is not None
    assert (len(first), first.discontinuity) == (100, False)
    assert late is not None
    assert (late.index, len(late), late.discontinuity) == (599, 1, True)
    assert samples.counters.dropped == 499


def test_a_reader_is_not_kept_longer_than_it_asked() -> None:
    """Without samples `read` returns None."""
    with ThreadedFeed(GatedSource([])) as samples:
        assert samples.read(0.01) is None
    with DirectFeed(ScriptedSource([None])) as direct:
        assert direct.read(0.01) is None


def test_feed_chooses_by_what_the_source_is() -> None:
    """Only a backlog that is to be skipped takes a thread; clock and repair are used as given."""
    repair = Repair(info(), max_gap_s=0.0)
    whole = record(100)
    script = [part(whole, 0, 50), part(whole, 51, 100)]
    with (
        feed(ScriptedSource(script), Clock(250.0), repair, late="skip") as threaded,
        feed(ScriptedSource(script, live=False), late="skip") as direct,
        feed(ScriptedSource(script)) as live,
    ):
        assert [type(one) for one in (threaded, direct, live)] == [ThreadedFeed, DirectFeed, DirectFeed]
        assert [c.discontinuity for c in read_all(threaded)] == [False, True]
        assert len(indices(read_all(direct))) == 100


def test_a_reader_of_several_is_told_that_something_came() -> None:
    """At the first samples and at the end: it can sleep between, and read without waiting."""
    told = threading.Event()
    source = GatedSource([part(record(20), 0, 10), StreamLost("gone")])
    with ThreadedFeed(source, arrived=told.set) as samples:
        assert samples.read(0.0) is None
        assert not told.is_set()
        source.gate.release()
        assert told.wait(PATIENCE_S)
        told.clear()
        assert samples.read(0.0) is not None
        source.gate.release()
        assert told.wait(PATIENCE_S)
        with pytest.raises(StreamLost):
            samples.read(0.0)
