"""Recordings that keep the beginning of every epoch: what fills the rest, and which are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_files import write_epochs
from numpy.typing import NDArray

from streamer.errors import EndOfStream, RecordingError
from streamer.sources.recording import Config, Recording, load, repeated

SFREQ, N, PERIOD_S = 100.0, 200, 5.0  # epochs of 5 s, of which 2 s were kept
PERIOD = round(PERIOD_S * SFREQ)
STAGES = ["W", "N2"]


def written(folder: Path, onsets: list[float]) -> tuple[Path, NDArray[np.int16]]:
    """Write one night of noise with an epoch at each of these times."""
    data = np.random.default_rng(0).integers(-900, 900, (len(onsets), N)).astype(np.int16)
    return write_epochs(folder / "night.npz", data, onsets, [i % 2 for i in range(len(onsets))], STAGES), data


def night(folder: Path, *onsets: float) -> Recording:
    """Return that night, read with its holes."""
    return load(written(folder, list(onsets))[0])


def test_epochs_lie_on_the_grid_as_they_were(tmp_path: Path) -> None:
    """Every period begins with its epoch, sample for sample, and carries a marker as long as itself."""
    epochs = night(tmp_path, 0.0, 5.0, 10.0, 15.0)
    whole = repeated(epochs)
    looks = whole.data.reshape(4, PERIOD)[:, :N]
    np.testing.assert_array_equal(looks, epochs.data.reshape(4, N))
    assert [(m.time, m.duration, m.label) for m in whole.markers] == [
        (5.0 * i, PERIOD_S, STAGES[i % 2]) for i in range(4)
    ]


def test_an_epoch_fills_its_period_and_no_other(tmp_path: Path) -> None:
    """What fills a hole is the epoch before it, again and again; nothing of the next one."""
    whole = repeated(night(tmp_path, 0.0, 5.0, 10.0))
    for period in whole.data.reshape(3, PERIOD):
        np.testing.assert_array_equal(period, np.resize(period[:N], PERIOD))


def test_no_hole_is_left(tmp_path: Path) -> None:
    """The index goes on sample by sample, and a source plays it as one stretch."""
    path, _ = written(tmp_path, [0.0, 5.0, 10.0])
    source = Config(path=path, holes="repeat", chunk=130).open()
    index: list[int] = []
    while len(index) < 3 * PERIOD:
        chunk = source.read(0.0)
        assert chunk is not None
        index += range(chunk.index, chunk.index + len(chunk))
    assert index == list(range(3 * PERIOD))
    with pytest.raises(EndOfStream):
        source.read(0.0)
    np.testing.assert_allclose(repeated(load(path)).times, np.arange(3 * PERIOD) / SFREQ)


def test_a_source_keeps_the_holes_unless_told(tmp_path: Path) -> None:
    """By default a file with holes is played with them."""
    path, _ = written(tmp_path, [0.0, 5.0, 10.0])
    assert Config(path=path).open().n_times == 3 * N


def test_a_left_out_epoch_is_filled_without_a_marker(tmp_path: Path) -> None:
    """The epochs behind one that is missing stay where they were."""
    epochs = night(tmp_path, 0.0, 5.0, 15.0)
    whole = repeated(epochs)
    np.testing.assert_array_equal(whole.data[3 * PERIOD : 3 * PERIOD + N], epochs.data[2 * N :])
    assert [(m.time, m.duration) for m in whole.markers] == [(0.0, 5.0), (5.0, 5.0), (15.0, 5.0)]


def test_a_recording_without_holes_stays_as_it_is(tmp_path: Path) -> None:
    """Epochs that follow each other are one stretch already."""
    epochs = night(tmp_path, 0.0, 2.0, 4.0)
    assert repeated(epochs) is epochs


@pytest.mark.parametrize(
    ("onsets", "words"),
    [
        ((0.0, 5.0, 7.0, 12.0), "2 to 4 s long"),
        ((0.0, 5.0, 10.5, 15.0), "not a multiple of 4.5 s"),
        ((0.0, 5.0, 75.0), "a hole of 68 s"),
    ],
)
def test_what_is_no_grid_of_epochs_is_refused(tmp_path: Path, onsets: tuple[float, ...], words: str) -> None:
    """Stretches of several lengths, starts off the grid and long holes: said in words, with the way out."""
    with pytest.raises(RecordingError, match=rf"{words}.*Leave out `holes: repeat`"):
        repeated(night(tmp_path, *onsets))
