"""The recording source: a file in memory played as chunks."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from streamer.errors import EndOfStream, RecordingError
from streamer.sources.recording import Config, Recording, RecordingSource
from streamer.types import Chunk, Marker, StreamInfo

SFREQ, N_TIMES = 100.0, 300
INFO = StreamInfo("made-up", "made-up-1", "EEG", SFREQ, ("C3", "C4"), ("eeg", "eeg"), "uV")
MARKERS = (Marker(-0.2, "start"), Marker(0.5, "T1", 1.0), Marker(2.0, "T2", 1.0))
some = settings(deadline=None, max_examples=25)
gaps = st.dictionaries(st.integers(1, N_TIMES - 1), st.integers(1, 500), max_size=5)


def recording(holes: dict[int, int] | None = None) -> Recording:
    """Return a recording with ``holes``: row → samples missing before it."""
    rows = np.arange(N_TIMES)
    index = rows + sum((n * (rows >= row) for row, n in (holes or {}).items()), np.zeros(N_TIMES, int))
    data = np.random.default_rng(1).normal(size=(N_TIMES, 2)).astype(np.float32)
    return Recording(INFO, data, index / SFREQ, tuple(sorted(holes or {})), MARKERS)


def play(source: RecordingSource) -> list[Chunk]:
    """Return all chunks."""
    chunks = []
    while True:
        try:
            chunk = source.read(1.0)
        except EndOfStream:
            return chunks
        assert chunk is not None
        chunks.append(chunk)


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now, self.waits = 5000.0, 0

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waits += 1


@some
@given(gaps, st.integers(1, 2 * N_TIMES))
def test_any_chunk_length_gives_the_same_samples(holes: dict[int, int], chunk: int) -> None:
    """Samples, stamps and places on the grid do not depend on the length of the chunks."""
    source = recording(holes)
    chunks = play(RecordingSource(source, chunk=chunk))
    np.testing.assert_array_equal(np.concatenate([c.data for c in chunks]), source.data)
    np.testing.assert_array_equal(np.concatenate([c.times for c in chunks]), source.times)
    grid = np.concatenate([c.index + np.arange(len(c)) for c in chunks])
    np.testing.assert_array_equal(grid, np.rint(source.times * SFREQ))
    assert all(c.valid.all() and 0 < len(c) <= chunk for c in chunks)


@some
@given(gaps, st.integers(1, N_TIMES))
def test_no_chunk_spans_a_break(holes: dict[int, int], chunk: int) -> None:
    """A break lies between two chunks, and the index jumps there by the samples that are missing."""
    chunks = play(RecordingSource(recording(holes), chunk=chunk))
    rows = np.cumsum([len(c) for c in chunks])
    jumps = {
        int(row): b.index - a.index - len(a) for row, (a, b) in zip(rows, pairwise(chunks), strict=False)
    }
    assert {row: jump for row, jump in jumps.items() if jump} == holes
    assert not any(c.discontinuity for c in chunks)


def test_default_chunk_is_about_40_ms() -> None:
    """Without a length given, chunks come as devices send them."""
    assert {len(c) for c in play(RecordingSource(recording()))} == {4}


def test_full_speed_reads_no_clock_and_repeats_itself() -> None:
    """At speed "max" two runs are equal bit for bit, stamps included, and nothing waits."""

    def forbidden(*_: float) -> float:
        raise AssertionError("time was asked for")

    runs = [
        play(RecordingSource(recording({50: 7}), clock=forbidden, wait=forbidden))  # type: ignore[arg-type]
        for _ in range(2)
    ]
    for first, second in zip(*runs, strict=True):
        assert first.data.tobytes() == second.data.tobytes()
        assert first.times.tobytes() == second.times.tobytes()
    assert runs[0][0].times[0] == 0.0


@pytest.mark.parametrize("speed", [1.0, 4.0, 0.5])
def test_pace(speed: float) -> None:
    """A chunk comes when its last sample has been measured, holes included, divided by the speed."""
    time, holes = Time(), {100: 200}
    source = RecordingSource(recording(holes), speed=speed, chunk=10, clock=time.clock, wait=time.wait)
    while True:
        try:
            chunk = source.read(100.0)
        except EndOfStream:
            break
        assert chunk is not None
        measured = chunk.times[-1] - 5000.0 + 1 / SFREQ
        assert time.now == pytest.approx(5000.0 + measured / speed)


def test_paced_stamps_are_the_grid_from_opening() -> None:
    """Stamps start at the clock's value of opening and follow the sample grid at any speed."""
    time = Time()
    source = RecordingSource(recording(), speed=3.0, clock=time.clock, wait=time.wait)
    times = np.concatenate([c.times for c in play(source)])
    np.testing.assert_allclose(times, 5000.0 + np.arange(N_TIMES) / SFREQ, rtol=0, atol=1e-9)
    assert source.markers()[1].time == pytest.approx(5000.5)


def test_nothing_comes_before_its_time() -> None:
    """A read whose patience ends before the chunk is due returns None and loses nothing."""
    time = Time()
    source = RecordingSource(recording(), speed=1.0, chunk=10, clock=time.clock, wait=time.wait)
    assert source.read(0.03) is None
    assert source.read(0.0) is None
    chunk = source.read(1.0)
    assert chunk is not None
    assert chunk.index == 0
    assert time.now == pytest.approx(5000.1)


def test_late_reader_gets_chunks_at_once() -> None:
    """A reader that comes late does not wait for what has been measured long ago."""
    time = Time()
    source = RecordingSource(recording(), speed=1.0, chunk=10, clock=time.clock, wait=time.wait)
    time.now += 1.0
    assert all(source.read(0.0) is not None for _ in range(10))
    assert time.waits == 0


def test_markers_are_renamed() -> None:
    """``labels`` gives markers new names and leaves the others, their times and durations."""
    source = RecordingSource(recording(), labels={"T1": "left_fist"})
    assert list(source.markers()) == [MARKERS[0], Marker(0.5, "left_fist", 1.0), MARKERS[2]]


def test_samples_cannot_be_written_to() -> None:
    """A chunk is a view that cannot be written to; the recording itself stays as it was given."""
    whole = recording()
    chunk = RecordingSource(whole).read(0.0)
    assert chunk is not None
    with pytest.raises(ValueError, match="read-only"):
        chunk.data[0] = 0
    assert whole.data.flags.writeable


def test_end_of_stream_after_the_end_and_after_close() -> None:
    """Reading past the end, and after closing, raises `EndOfStream` every time."""
    played, closed = RecordingSource(recording()), RecordingSource(recording())
    play(played)
    closed.close()
    for source in (played, played, closed):
        with pytest.raises(EndOfStream, match="made-up"):
            source.read(0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"chunk": 0}, {"speed": 0}, {"speed": "fast"}, {"speed": float("inf")}, {"loop": True}, {"path": None}],
)
def test_config_refuses(wrong: dict[str, object]) -> None:
    """A setting that makes no sense is an error when the configuration is read."""
    with pytest.raises(ValidationError):
        Config.model_validate({"path": "some.edf", **wrong})


def test_config_opens_a_missing_file() -> None:
    """A path without a file is refused when the source is opened, with the path in the message."""
    with pytest.raises(RecordingError, match=r"nowhere\.edf does not exist: check the path"):
        Config(path="nowhere.edf").open()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("times", "breaks"),
    [
        (np.arange(4.0), ()),
        (np.arange(5.0), (0,)),
        (np.arange(5.0), (3, 2)),
        (np.arange(5.0) / SFREQ, (3,)),
    ],
)
def test_recording_checks_itself(times: np.ndarray, breaks: tuple[int, ...]) -> None:
    """Samples without a time each, and breaks that are no rows or lack nothing, are refused."""
    with pytest.raises(ValueError, match=r"a recording of|breaks must be"):
        Recording(INFO, np.zeros((5, 2), np.float32), times, breaks)


def test_import_is_light() -> None:
    """The source loads none of the libraries that only some files need."""
    code = (
        "import sys, streamer.sources.recording; "
        "print([m for m in ('mne', 'pyxdf', 'brainflow', 'pylsl', 'scipy.ndimage') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
