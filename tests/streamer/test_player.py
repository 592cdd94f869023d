"""A source played over a real LSL loopback is the source."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pylsl
import pytest
from live import START, ScriptedSource, every, indices, info, part, record

from streamer.acquire import DirectFeed, Feed, feed
from streamer.errors import EndOfStream, StreamLost
from streamer.lsl import find, predicate
from streamer.lsl_info import to_stream_info
from streamer.player import Player
from streamer.sources.lsl import Config, LslSource
from streamer.types import Chunk, Marker

PATIENCE_S = 10.0
READ_S = 0.1

pytestmark = pytest.mark.usefixtures("lsl_session")


class Tape(ScriptedSource):
    """A recording: chunks, events, and how long it is."""

    def __init__(self, chunks: Sequence[Chunk], markers: Sequence[Marker] = ()) -> None:
        super().__init__(chunks, live=False)
        self.n_times = sum(map(len, chunks))
        self._marks = tuple(markers)

    def markers(self) -> Sequence[Marker]:
        return self._marks


def some_name() -> str:
    """Return a name that nobody else has."""
    return f"tape-{uuid.uuid4().hex[:8]}"


@contextmanager
def playing(source: ScriptedSource, **settings: Any) -> Iterator[Player]:
    """Play a source in a thread; join it in the end."""
    stop = threading.Event()
    with Player(source, name=some_name(), wait_s=PATIENCE_S, linger_s=0.3, **settings) as player:
        thread = threading.Thread(target=player.run, args=(stop,))
        thread.start()
        try:
            yield player
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        finally:
            stop.set()
            thread.join()


def read_all(samples: Feed) -> list[Chunk]:
    """Read to the end of the stream."""
    chunks: list[Chunk | None] = []
    while chunks.count(None) < 100:
        try:
            chunks.append(samples.read(READ_S))
        except EndOfStream:
            return [chunk for chunk in chunks if chunk is not None]
    pytest.fail("the stream does not end")


def wait_for(n_markers: int, source: LslSource) -> Sequence[Marker]:
    """Return the markers when so many are there; they travel apart from the samples."""
    for _ in range(1000):
        if len(source.markers()) >= n_markers:
            break
        threading.Event().wait(0.01)
    return source.markers()


def holed_tape() -> list[Chunk]:
    """Return 20 s in chunks of 64, with a short and a long hole."""
    whole = record(5000)
    return [
        piece for edges in ((0, 2000), (2010, 3000), (3500, 5000)) for piece in every(part(whole, *edges), 64)
    ]


def test_a_replay_is_the_recording() -> None:
    """Through a real stream, as fast as it goes, values, index, holes and validity are those of the file."""
    expected = read_all(DirectFeed(ScriptedSource(holed_tape(), live=False)))
    with playing(Tape(holed_tape()), speed="max") as player, Config(source_id=player.name).open() as source:
        samples = feed(source)
        chunks = read_all(samples)
        counters = samples.counters
        samples.close()
    for field in ("data", "valid"):
        np.testing.assert_array_equal(
            *(np.concatenate([getattr(c, field) for c in x]) for x in (chunks, expected))
        )
    np.testing.assert_array_equal(indices(chunks), indices(expected))
    assert [c.index for c in chunks if c.discontinuity] == [3500]
    assert (counters.samples_in, counters.repaired, counters.samples_lost) == (4490, 10, 500)
    assert (counters.dropped, counters.duplicates, player.samples_out) == (0, 0, 4490)


def test_a_replay_waits_for_a_slow_reader() -> None:
    """All of it can still be read, and ends as it should, when the player is long gone."""
    with Player(Tape(holed_tape()), name=some_name(), speed="max", linger_s=0.3) as player:
        source = Config(source_id=player.name).open()
        player.run()
    with source:
        assert sum(map(len, read_all(feed(source)))) == 4500


def test_a_replay_broken_off_is_lost() -> None:
    """When the player stops half way, what was sent is read, and then the replay is lost: none comes back."""
    stop, pause = threading.Event(), threading.Event().wait
    with Player(Tape(holed_tape()), name=some_name(), speed="max", linger_s=0.3, wait=pause) as player:
        source = Config(source_id=player.name).open()
        player.run(stop, on_progress=lambda seconds: stop.set() if seconds > 5 else None)
    rows: list[int] = []

    def read_on() -> None:
        while True:
            chunk = source.read(0.1)
            rows.append(len(chunk) if chunk is not None else 0)

    with source, pytest.raises(StreamLost, match="samples did not come"):
        read_on()
    assert sum(rows) == player.samples_out
    assert 1250 <= sum(rows) < 4500


def test_the_stream_is_described_as_the_source_is() -> None:
    """Labels, types, unit and rate of the source are on the network, under the player's name."""
    tape = Tape([record(10)])
    with playing(tape, speed="max") as player, Config(source_id=player.name).open() as source:
        assert (source.info.name, source.info.source_id) == (player.name, player.name)
        for field in ("stype", "sfreq", "ch_names", "ch_types", "unit"):
            assert getattr(source.info, field) == getattr(tape.info, field)
        assert not source.live
        read_all(DirectFeed(source))
        source.close()


def test_markers_stay_on_their_samples() -> None:
    """An event arrives as far from the first sample as it was in the recording."""
    marks = [Marker(START - 0.5, "before"), Marker(START + 3.25, "left"), Marker(START + 90, "after the end")]
    with playing(Tape(holed_tape(), marks), speed="max") as player:
        with Config(source_id=player.name, markers=f"{player.name}-markers").open() as source:
            chunks = read_all(DirectFeed(source))
            heard = wait_for(3, source)
        assert [marker.label for marker in heard] == [marker.label for marker in marks]
    first = chunks[0].times[0]
    assert [m.time - first for m in heard] == pytest.approx([-0.5, 3.25, 90.0])
    assert player.markers_out == 3


def test_another_speed_changes_no_stamp() -> None:
    """At 20 times real time stamps lie on the same grid, and the reader's clock finds nothing amiss."""
    with (
        playing(Tape(every(record(2000), 100)), speed=20.0) as player,
        Config(source_id=player.name).open() as source,
        feed(source) as samples,
    ):
        chunks = read_all(samples)
        source.close()
    times = np.concatenate([c.times for c in chunks])
    np.testing.assert_allclose(times - times[0], np.arange(2000) / 250, atol=1e-6)
    np.testing.assert_array_equal(indices(chunks), np.arange(2000))


def test_real_time_is_live() -> None:
    """At speed 1 the stream is read as a device's, and stamped when it was sent."""
    with (
        playing(Tape(every(record(50), 10))) as player,
        Config(source_id=player.name).open() as source,
        feed(source) as samples,
    ):
        assert source.live
        before = pylsl.local_clock()
        chunks = read_all(samples)
        source.close()
    times = np.concatenate([c.times for c in chunks])
    assert len(times) == 50
    assert before - 1 < times[0]
    assert times[-1] < pylsl.local_clock()


class FakeTime:
    """A clock that only pauses move; each reading of it costs 1 ms."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        self.now += 1e-3
        return self.now

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_pacing_does_not_drift(speed: float) -> None:
    """However long sending takes, the last sample is sent when it is due."""
    clock = FakeTime()
    source = ScriptedSource(every(record(5000), 33), live=False)
    with Player(source, name=some_name(), speed=speed, wait_s=0, clock=clock, wait=clock.wait) as player:
        player.run()
    assert clock.now == pytest.approx(100.0 + 4999 / 250 / speed, abs=0.02)
    assert max(clock.pauses) < 0.03
    assert player.samples_out == 5000


def test_progress_is_told_in_seconds_of_signal() -> None:
    """``on_progress`` hears how much of the recording was sent, up to its end."""
    heard: list[float] = []
    source = ScriptedSource(holed_tape(), live=False)
    with Player(source, name=some_name(), speed="max", wait_s=0) as player:
        player.run(on_progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(4999 / 250)


def test_stop_ends_the_playing() -> None:
    """A player that is told to stop does so at once, while it waits for a reader and while it plays."""
    stop = threading.Event()
    stop.set()
    with Player(ScriptedSource(holed_tape(), live=False), name=some_name()) as player:
        player.run(stop)
    assert player.samples_out == 0
    stop.clear()
    with Player(ScriptedSource(holed_tape(), live=False), name=some_name(), wait_s=0) as player:
        player.run(stop, on_progress=lambda seconds: stop.set() if seconds > 0.1 else None)
    assert 0 < player.samples_out < 50


def test_a_live_source_is_passed_on_as_it_comes() -> None:
    """A device's samples keep their own stamps and do not end."""
    whole = record(500)
    source = ScriptedSource([*every(whole, 50), StreamLost("unplugged")])
    stop = threading.Event()
    with Player(source, name=some_name(), wait_s=PATIENCE_S) as player:

        def play() -> None:
            with pytest.raises(StreamLost, match="unplugged"):
                player.run(stop)

        with Config(source_id=player.name).open() as reader:
            thread = threading.Thread(target=play)
            thread.start()
            chunks: list[Chunk] = []
            while sum(map(len, chunks)) < 500:
                chunk = reader.read(PATIENCE_S)
                assert chunk is not None
                chunks.append(chunk)
            thread.join()
        assert reader.live
    np.testing.assert_array_equal(np.concatenate([c.times for c in chunks]), whole.times)


def test_close_twice_takes_the_streams_away() -> None:
    """After `close` neither stream can be found."""
    player = Player(ScriptedSource([], live=False), name=some_name())
    assert to_stream_info(find(predicate(source_id=player.name), PATIENCE_S)).sfreq == info().sfreq
    player.close()
    player.close()
    assert not pylsl.resolve_bypred(f"starts-with(name,'{player.name}')", 1, 0.1)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_an_impossible_speed_is_refused(speed: float) -> None:
    """Speed must be positive or "max"."""
    with pytest.raises(ValueError, match="speed must be positive"):
        Player(ScriptedSource([]), speed=speed)
