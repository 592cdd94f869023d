"""LSL: descriptions, finding, reading, losing and finding again."""

from __future__ import annotations

import itertools
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pylsl
import pytest
from live import indices, info, record

from streamer.acquire import DirectFeed, Feed
from streamer.errors import StreamLost, StreamMismatch, StreamNotFound
from streamer.lsl import ClockOffset, LslMarkers, find, predicate
from streamer.lsl_info import marker_info, to_lsl
from streamer.sources.lsl import Config, LslSource
from streamer.types import Chunk, Marker, StreamInfo

PATIENCE_S = 10.0  # never waited for in full: reads return as soon as there is something

pytestmark = pytest.mark.usefixtures("lsl_session")


def fresh(n_chans: int = 3, sfreq: float = 250.0) -> StreamInfo:
    """Describe a stream of a name that nobody else has."""
    return info(n_chans, sfreq, f"amplifier-{uuid.uuid4().hex[:8]}")


class Amplifier:
    """An outlet that can be switched off and on."""

    def __init__(self, stream: StreamInfo) -> None:
        self._outlet: Any = None
        self.start(stream)

    def start(self, stream: StreamInfo) -> None:
        self._outlet = pylsl.StreamOutlet(to_lsl(stream))

    def stop(self) -> None:
        self._outlet = None

    def send(self, chunk: Chunk) -> None:
        """Push a chunk with its stamps."""
        self._outlet.push_chunk(chunk.data, chunk.times.tolist())


@contextmanager
def opened(stream: StreamInfo, **settings: Any) -> Iterator[tuple[Amplifier, LslSource]]:
    """Switch an amplifier on and open a source on it."""
    amplifier = Amplifier(stream)
    with Config(source_id=stream.source_id, **settings).open() as source:
        yield amplifier, source


def read_rows(source: LslSource | Feed, rows: int) -> list[Chunk]:
    """Read until so many rows are there."""
    chunks: list[Chunk] = []
    while sum(map(len, chunks)) < rows:
        chunk = source.read(PATIENCE_S)
        assert chunk is not None, f"{sum(map(len, chunks))} of {rows} rows came"
        chunks.append(chunk)
    return chunks


def read_until(source: LslSource, condition: Callable[[], bool]) -> None:
    """Read while nothing comes, until the condition holds."""
    for _ in range(200):
        if condition():
            return
        assert source.read(0.05) is None
    pytest.fail("waited in vain")


# -- finding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "it's", 'say "hi"', 'it\'s "both"', "<&>"])
def test_any_name_is_found(name: str) -> None:
    """Quotes and markup in a name do not break the query."""
    unique = f"{name}{uuid.uuid4().hex[:6]}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(unique, "EEG", 1, 100.0, "float32", unique))
    assert find(predicate(name=unique, source_id=unique), PATIENCE_S).name() == unique
    del outlet


def test_nothing_found_lists_what_is_there() -> None:
    """A stream that is not there is an error that lists those that are."""
    stream = fresh()
    outlet = pylsl.StreamOutlet(to_lsl(stream))
    with pytest.raises(StreamNotFound, match=f"no-such.*There are: .*{stream.name}.*3 channels, 250 Hz"):
        Config(name="no-such", timeout_s=0.1).open()
    del outlet


def test_several_found_are_listed() -> None:
    """Two streams that match are an error that lists both."""
    stream = fresh()
    first = pylsl.StreamOutlet(pylsl.StreamInfo(stream.name, "EEG", 3, 250.0, "float32", "one"))
    second = pylsl.StreamOutlet(pylsl.StreamInfo(stream.name, "EEG", 3, 250.0, "float32", "two"))
    with pytest.raises(StreamNotFound, match=r"2 LSL streams.*'one'.*'two'.*source_id"):
        Config(name=stream.name).open()
    del first, second


@pytest.mark.parametrize(("rate", "form"), [(0.0, "float32"), (250.0, "string"), (0.0, "string")])
def test_streams_without_a_regular_signal_are_refused(rate: float, form: str) -> None:
    """Markers and irregular streams are refused with a reason."""
    name = fresh().name
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 1, rate, form, name))
    with pytest.raises(StreamMismatch, match="no regular signal"):
        Config(source_id=name).open()
    del outlet


def test_a_failed_open_leaves_nothing_behind() -> None:
    """When the samples cannot be opened the markers' threads end, too."""
    name = fresh().name
    markers = pylsl.StreamOutlet(marker_info(f"{name}-m"))
    before = threading.active_count()
    with pytest.raises(StreamNotFound, match=name):
        Config(source_id=name, markers=f"{name}-m", timeout_s=0.7).open()
    assert threading.active_count() == before
    del markers


def test_a_wrong_number_of_names_is_refused() -> None:
    """Names under ``channels`` must be as many as the stream's channels."""
    stream = fresh()
    outlet = pylsl.StreamOutlet(to_lsl(stream))
    with pytest.raises(StreamMismatch, match=r"2 names .* has 3 channels"):
        Config(source_id=stream.source_id, channels=("a", "b")).open()
    del outlet


# -- reading ---------------------------------------------------------------------------------------------


def test_samples_and_stamps_arrive_as_sent() -> None:
    """Values are bit-equal, stamps the sender's, the index counts from 0, the description is the stream's."""
    stream, whole = fresh(), record(700)
    with opened(stream) as (amplifier, source):
        amplifier.send(whole)
        chunks = read_rows(source, 700)
        assert source.info == stream
    np.testing.assert_array_equal(np.concatenate([c.data for c in chunks]), whole.data)
    np.testing.assert_array_equal(np.concatenate([c.times for c in chunks]), whole.times)
    np.testing.assert_array_equal(indices(chunks), np.arange(700))
    assert not any(chunk.discontinuity for chunk in chunks)


@pytest.mark.parametrize("form", ["double64", "int16", "int32", "int8"])
def test_numbers_of_any_kind_become_float32(form: str) -> None:
    """All numeric formats are read; a double that float32 cannot hold becomes infinite, for repair to see."""
    name = fresh().name
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 2, 250.0, form, name))
    with Config(source_id=name).open() as source:
        outlet.push_chunk([[1, -2], [3, 1e300 if form == "double64" else 4]])
        data = np.concatenate([c.data for c in read_rows(source, 2)])
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data, [[1, -2], [3, np.inf if form == "double64" else 4]])


def test_a_chunk_is_never_written_to() -> None:
    """What one read returned stays as it was after the next."""
    with opened(fresh()) as (amplifier, source):
        first, second = record(5), record(5, index=5)
        amplifier.send(first)
        kept = read_rows(source, 5)[0]
        amplifier.send(second)
        read_rows(source, 5)
    np.testing.assert_array_equal(kept.data, first.data[: len(kept)])
    np.testing.assert_array_equal(kept.times, first.times[: len(kept)])


def test_silence_is_none() -> None:
    """Without samples a read returns None after its time."""
    with opened(fresh()) as (_, source):
        assert source.read(0.01) is None


def test_close_twice() -> None:
    """A source may be closed again, with and without markers; then it reads no more and says why."""
    stream = fresh()
    markers = pylsl.StreamOutlet(marker_info(f"{stream.name}-m"))
    with opened(stream, markers=f"{stream.name}-m") as (_, source):
        source.close()
    source.close()
    with pytest.raises(StreamLost, match="is closed"):
        source.read(0.0)
    del markers


def test_markers_come_with_their_stream() -> None:
    """Events of the marker stream are read in order, with their stamps, whenever asked."""
    stream = fresh()
    outlet = pylsl.StreamOutlet(marker_info(f"{stream.name}-m"))
    with opened(stream, markers=f"{stream.name}-m") as (_, source):
        assert list(source.markers()) == []
        outlet.push_sample(["left"], 17.25)
        outlet.push_sample(["rest"], 18.5)
        read_until(source, lambda: len(source.markers()) == 2)
        assert source.markers() == [Marker(17.25, "left"), Marker(18.5, "rest")]
    with opened(fresh()) as (_, source):
        assert list(source.markers()) == []


def test_markers_must_be_strings() -> None:
    """A numeric stream is no marker stream."""
    stream = fresh()
    outlet = pylsl.StreamOutlet(to_lsl(stream))
    with pytest.raises(StreamMismatch, match="carries no strings"):
        LslMarkers(stream.name, 1.0)
    del outlet


# -- losing and finding again ----------------------------------------------------------------------------


def test_a_stream_that_comes_back_is_a_discontinuity() -> None:
    """A restarted stream is found again, counted, and flagged, its index ahead by the time that passed."""
    stream = fresh()
    with opened(stream) as (amplifier, source):
        amplifier.send(record(50))
        read_rows(source, 50)
        amplifier.stop()
        read_until(source, lambda: source._inlet is None)
        amplifier.start(stream)
        read_until(source, lambda: source.reconnects == 1)
        amplifier.send(record(20, index=550))  # 2 s after the last one
        after = read_rows(source, 20)
    assert (after[0].index, after[0].discontinuity) == (550, True)
    np.testing.assert_array_equal(indices(after), np.arange(550, 570))
    assert not any(chunk.discontinuity for chunk in after[1:])


def test_a_reconnect_reaches_the_counters() -> None:
    """Behind clock and repair the hole of a reconnect is counted as lost samples and one discontinuity."""
    stream = fresh()
    with opened(stream) as (amplifier, source):
        samples = DirectFeed(source)
        amplifier.send(record(50))
        read_rows(samples, 50)
        amplifier.stop()
        samples.read(PATIENCE_S)
        amplifier.start(stream)
        read_until(source, lambda: source.reconnects == 1)
        amplifier.send(record(20, index=550))
        chunk = samples.read(PATIENCE_S)
    assert chunk is not None
    assert (chunk.index, chunk.discontinuity) == (550, True)
    counters = samples.counters
    assert (counters.reconnects, counters.discontinuities, counters.samples_lost) == (1, 1, 500)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sfreq": 500.0}, "sfreq 250.0 is now 500.0"),
        ({"n_chans": 2}, r"ch_names \('E0', 'E1', 'E2'\) is now \('E0', 'E1'\)"),
    ],
)
def test_another_shape_is_refused(changed: dict[str, Any], words: str) -> None:
    """A stream that comes back with another rate or other channels is refused, naming what changed."""
    stream = fresh()
    with opened(stream) as (amplifier, source):
        amplifier.stop()
        read_until(source, lambda: source._inlet is None)
        amplifier.start(info(**{"n_chans": 3, "sfreq": 250.0, **changed}, name=stream.name))
        with pytest.raises(StreamMismatch, match=words):
            read_until(source, lambda: False)
        with pytest.raises(StreamLost, match="is closed"):
            source.read(0.0)


def test_another_stream_of_the_type_is_not_taken() -> None:
    """Only the lost stream is taken back, not another that matches; its loss is told after ``recover_s``."""
    stype = f"T{uuid.uuid4().hex[:6]}"
    ours = pylsl.StreamOutlet(pylsl.StreamInfo("ours", stype, 1, 250.0, "float32", "ours-1"))
    with Config(stype=stype, recover_s=0.3).open() as source:
        other = pylsl.StreamOutlet(pylsl.StreamInfo("other", stype, 1, 250.0, "float32", "other-1"))
        del ours
        with pytest.raises(StreamLost, match=r"'ours'.*did not come back within 0.3 s"):
            read_until(source, lambda: False)
        assert source.reconnects == 0
    del other


def test_a_program_restarted_under_another_id_is_taken() -> None:
    """The same name from the same machine is the same device, though its source_id is made up anew."""
    name = fresh().name
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 1, 250.0, "float32", "id-1"))
    with Config(name=name).open() as source:
        del outlet
        read_until(source, lambda: source._inlet is None)
        outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "EEG", 1, 250.0, "float32", "id-2"))
        read_until(source, lambda: source.reconnects == 1)
    del outlet


# -- clocks ----------------------------------------------------------------------------------------------


class FakeInlet:
    """An inlet whose clock offset is a script, repeated at its end."""

    def __init__(self, *script: float | Exception) -> None:
        self._script = itertools.chain(script, itertools.repeat(script[-1]))

    def time_correction(self, timeout: float) -> float:
        step = next(self._script)
        if isinstance(step, Exception):
            raise step
        return step


def settled(inlet: FakeInlet, hostname: str) -> float:
    """Return the offset after the first measurement."""
    offset = ClockOffset(inlet, hostname)
    offset._known.wait(PATIENCE_S)
    offset.close()
    return offset.value


def test_another_machine_s_clock_is_known_from_the_start() -> None:
    """From elsewhere the constructor waits for the measurement, also when it takes several attempts."""
    late = [pylsl.util.TimeoutError("not yet")] * 1000
    offset = ClockOffset(FakeInlet(*late, 12.5), "elsewhere")
    assert offset.value == 12.5
    offset.close()
    offset.close()


def test_our_own_clock_needs_no_correction() -> None:
    """From this machine the offset is 0, not the noise of measuring it; unless it is not this machine."""
    assert settled(FakeInlet(-3e-6), socket.gethostname()) == 0.0
    assert settled(FakeInlet(250.0), socket.gethostname()) == 250.0


def test_a_lost_stream_ends_the_measurement() -> None:
    """When the stream is gone the last known offset stays."""
    offset = ClockOffset(FakeInlet(pylsl.util.LostError("gone")), socket.gethostname())
    offset._thread.join(PATIENCE_S)
    assert not offset._thread.is_alive()
    assert offset.value == 0.0
