"""BrainFlow boards: the synthetic one, a played file, and all that goes wrong."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import indices

from streamer.errors import EndOfStream, StreamLost, StreamMismatch, StreamNotFound
from streamer.sources._packages import PackageCounter
from streamer.sources.brainflow import BrainFlowSource, Config
from streamer.types import Chunk

PATIENCE_S = 10.0
some = settings(deadline=None, max_examples=25)


def read_rows(source: BrainFlowSource, rows: int) -> list[Chunk]:
    """Read until so many rows are there."""
    chunks: list[Chunk] = []
    while sum(map(len, chunks)) < rows:
        chunk = source.read(PATIENCE_S)
        assert chunk is not None
        chunks.append(chunk)
    return chunks


# -- boards ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", ["SYNTHETIC_BOARD", "synthetic", -1])
def test_the_synthetic_board_streams(board: int | str) -> None:
    """Names, rate, unit and types are the board's; rows are finite, contiguous, and stamped just now."""
    from pylsl import local_clock

    before = local_clock()
    with Config(board=board).open() as source:
        chunks = read_rows(source, 100)
        after = local_clock()
    assert source.info.ch_names[:4] == ("Fz", "C3", "Cz", "C4")
    assert (source.info.n_chans, source.info.sfreq, source.info.unit) == (16, 250.0, "uV")
    assert set(source.info.ch_types) == {"eeg"}
    np.testing.assert_array_equal(indices(chunks), np.arange(len(indices(chunks))))
    times = np.concatenate([c.times for c in chunks])
    assert before - 0.1 < times[0] <= times[-1] < after + 0.1
    data = np.concatenate([c.data for c in chunks])
    assert data.dtype == np.float32
    assert np.isfinite(data).all()
    assert np.all(data.std(axis=0) > 0)


def test_other_channels_and_names() -> None:
    """The same board as EMG, under names of the user's own; without names channels are numbered."""
    names = tuple(f"muscle {i}" for i in range(16))
    with Config(board="SYNTHETIC_BOARD", stype="EMG", channels=names).open() as source:
        assert (source.info.ch_names, source.info.ch_types[0], source.info.stype) == (names, "emg", "EMG")
    with Config(board="SYNTHETIC_BOARD", stype="EMG").open() as source:
        assert source.info.ch_names == tuple(str(i) for i in range(1, 17))


def test_a_played_file_is_the_recording(data_dir: Path, tmp_path: Path) -> None:
    """The playback board gives the file's own values, all of them, once; then the stream ends."""
    whole = data_dir / "originals" / "openbci" / "brainflow_test_data.csv"
    path = tmp_path / "start.csv"  # the first two seconds, as it plays in real time
    path.write_text("".join(whole.read_text().splitlines(keepends=True)[:500]))
    recorded = np.loadtxt(path)
    config = Config(board="PLAYBACK_FILE_BOARD", file=path, master_board="SYNTHETIC_BOARD")
    with config.open() as source:
        chunks = read_rows(source, len(recorded))
        with pytest.raises(EndOfStream, match="played its file to the end"):
            source.read(PATIENCE_S)
    data = np.concatenate([c.data for c in chunks])
    np.testing.assert_allclose(data, recorded[:, 1:17], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(indices(chunks), np.arange(len(recorded)))


def test_close_twice_and_open_again() -> None:
    """A board is free after `close`, which may be called again."""
    source = Config(board="SYNTHETIC_BOARD").open()
    source.close()
    source.close()
    with Config(board="SYNTHETIC_BOARD").open() as again:
        assert read_rows(again, 1)


def test_a_board_is_opened_once() -> None:
    """Opening a board twice is refused and leaves the first stream running."""
    with Config(board="SYNTHETIC_BOARD").open() as source:
        with pytest.raises(StreamNotFound, match="open already in this program"):
            Config(board="SYNTHETIC_BOARD").open()
        assert read_rows(source, 20)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"board": "SYNTETIC_BOARD"}, StreamNotFound, "Did you mean SYNTHETIC_BOARD.*CYTON_BOARD"),
        ({"board": 777}, StreamNotFound, "no board 777.*It knows: .*MUSE_2_BOARD"),
        ({"board": "PLAYBACK_FILE_BOARD"}, StreamNotFound, "needs 'master_board'"),
        (
            {"board": "PLAYBACK_FILE_BOARD", "master_board": 0, "file": "no-such-file.csv"},
            StreamNotFound,
            "there is no no-such-file.csv",
        ),
        ({"board": "CYTON_BOARD", "serial_port": "no-such-port"}, StreamNotFound, "dongle plugged in"),
        ({"board": "CYTON_BOARD"}, StreamNotFound, "A setting is missing"),
        ({"board": "GANGLION_BOARD", "preset": "ancillary"}, StreamMismatch, "no preset 'ancillary'"),
        (
            {"board": "SYNTHETIC_BOARD", "preset": "auxiliary"},
            StreamMismatch,
            "no EEG channels.*no bio",
        ),
        ({"board": "BRAINBIT_BOARD", "stype": "EMG"}, StreamMismatch, "no EMG channels, but: EEG"),
        ({"board": "SYNTHETIC_BOARD", "channels": ("a", "b")}, StreamMismatch, "2 names.*has 16 EEG"),
    ],
)
def test_what_goes_wrong_says_what_to_do(
    settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    """A board that is not there, not known or not what was asked for is one clear message."""
    with pytest.raises(error, match=words):
        Config(**settings).open()


class FakeTime:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now = 50.0
        self.pauses = 0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.pauses += 1
        self.now += seconds


def test_silence_is_waited_for_without_spinning(tmp_path: Path) -> None:
    """A silent board is looked at every 2 ms, gives None after the time asked for, and is lost in the end."""
    path = tmp_path / "not-a-recording.csv"
    path.write_text("nothing of use\n")
    clock = FakeTime()
    config = Config(board="PLAYBACK_FILE_BOARD", file=path, master_board="CYTON_BOARD", silent_s=3.0)
    with BrainFlowSource(config, wait=clock.wait, clock=clock) as source:
        assert source.read(1.0) is None
        assert clock.now == pytest.approx(51.0)
        assert clock.pauses == pytest.approx(500, abs=2)
        assert source.read(1.9) is None
        with pytest.raises(StreamLost, match="board that recorded it"):
            source.read(1.0)
    assert clock.now == pytest.approx(53.0, abs=0.01)


# -- package numbers -------------------------------------------------------------------------------------


Array = np.ndarray[Any, Any]


def lost_rows(numbers: Array, keep: Array, at: list[int]) -> list[tuple[int, int]]:
    """Return (row, samples missing before it) that a counter finds in the rows kept, chunk by chunk."""
    counter = PackageCounter()
    kept = numbers[keep].astype(np.float64)
    edges = [0, *sorted(min(i, len(kept)) for i in at), len(kept)]
    missing = np.concatenate([counter.missing(kept[a:b]) for a, b in pairwise(edges)])
    return [(int(row), int(missing[row])) for row in np.flatnonzero(missing)]


COUNTING = {
    "to 255": (np.arange(3000) + 17) % 256,
    "to 200": (np.arange(3000) + 17) % 201,
    "by two": (2 * np.arange(3000) + 6) % 256,
    "without end": np.arange(3000) + 1e6,
    "two a package": (np.arange(3000) // 2 + 17) % 101,
}


@pytest.mark.parametrize("numbers", COUNTING.values(), ids=COUNTING.keys())
@given(at=st.lists(st.integers(0, 3000), max_size=30))
@some
def test_lost_packages_are_counted_however_a_device_counts(numbers: Array, at: list[int]) -> None:
    """Rows taken out, also where the numbers start again, are found where they were, in any chunking."""
    keep = np.ones(3000, dtype=bool)
    keep[1000:1006] = keep[2018:2032] = False
    assert lost_rows(numbers, keep, at) == [(1000, 6), (2012, 14)]
    assert lost_rows(numbers, np.ones(3000, dtype=bool), at) == []


@pytest.mark.parametrize("numbers", [np.zeros(500), np.random.default_rng(0).integers(0, 99, 500)])
def test_a_counter_that_does_not_count_is_not_believed(numbers: Array) -> None:
    """Constant or random numbers never make a hole."""
    assert lost_rows(numbers, np.ones(500, dtype=bool), [100, 200]) == []


def test_missing_packages_are_missing_indices() -> None:
    """A table with a lost package becomes two chunks, the index jumping between them."""
    with Config(board="SYNTHETIC_BOARD").open() as source:
        table = np.zeros((32, 300))
        table[0] = np.delete(np.arange(310), np.s_[150:160]) % 256
        chunks = source._chunks(table)
    assert [(c.index, len(c)) for c in chunks] == [(0, 150), (160, 150)]
