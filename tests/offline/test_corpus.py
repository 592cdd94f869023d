"""The corpus reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from offline.data.corpus import Corpus, read
from streamer.errors import RecordingError


def test_samples_are_microvolts_in_time_by_channel(corpus_dir: Path) -> None:
    """A recording is (n_times, n_chans) float32 in µV, whatever integers and scales the file holds."""
    path = corpus_dir / "A1" / "A1R1.npz"
    recording, raw = read(path), np.load(path)
    assert recording.info.unit == "uV"
    assert recording.data.dtype == np.float32
    assert recording.data.shape == raw["data"].T.shape
    np.testing.assert_allclose(recording.data[:, 2], 0.1 * raw["data"][2], rtol=1e-6)


def test_volts_become_microvolts(run_writer: Callable[..., Path], tmp_path: Path) -> None:
    """A file in volts reads as the same µV as one in µV."""
    a = read(run_writer(tmp_path / "s" / "a.npz", seed=1, units="uV"))
    b = read(run_writer(tmp_path / "s" / "b.npz", seed=1, units="V"))
    np.testing.assert_allclose(a.data, b.data, rtol=1e-5)


def test_markers_are_in_seconds_with_their_labels(corpus_dir: Path) -> None:
    """Markers carry the label of their code and stand at onset over rate."""
    recording = read(corpus_dir / "A1" / "A1R1.npz")
    assert [m.label for m in recording.markers[:3]] == ["rest", "right_fist", "rest"]
    assert [m.time for m in recording.markers[:3]] == [0.0, 4.0, 8.0]
    assert len(recording.cues(["left_fist", "right_fist"])) == 6


def test_ranges_and_names_select_subjects(corpus_dir: Path) -> None:
    """Subjects are chosen by name and by range, in order, once each."""
    corpus = Corpus(corpus_dir)
    assert corpus.subjects == ("A1", "A2", "A3")
    assert corpus.select(["A2-A3", "A2"]) == ("A2", "A3")
    assert corpus.select(None) == corpus.subjects
    with pytest.raises(RecordingError, match="no subject 'B1'"):
        corpus.select(["B1"])


def test_a_fingerprint_is_of_the_samples_alone(run_writer: Callable[..., Path], tmp_path: Path) -> None:
    """Renaming a subject keeps the fingerprint; other samples have another."""
    path = run_writer(tmp_path / "s1" / "a.npz", seed=1)
    (tmp_path / "x9").mkdir()
    shutil.copy(path, tmp_path / "x9" / "b.npz")
    other = run_writer(tmp_path / "s2" / "a.npz", seed=2)
    assert read(path).fingerprint == read(tmp_path / "x9" / "b.npz").fingerprint
    assert read(path).fingerprint != read(other).fingerprint
    assert len(read(path).fingerprint) == 16


def test_a_folder_that_is_none_or_empty_is_refused(tmp_path: Path) -> None:
    """No folder, and a folder without recordings, are errors that say what was expected."""
    with pytest.raises(RecordingError, match="No folder"):
        Corpus(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match="holds no recording"):
        Corpus(tmp_path)


@pytest.mark.parametrize("kind", ["cut", "text", "pickle", "lacks", "layout"])
def test_a_damaged_file_is_refused(run_writer: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    """A file that is cut short, foreign, pickled, incomplete or inconsistent is a RecordingError."""
    path = run_writer(tmp_path / "s" / "a.npz", seed=1)
    content = dict(np.load(path))
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "text":
        path.write_text("not an archive")
    elif kind == "pickle":
        np.savez(path, **{**content, "data": np.array([{}], dtype=object)})
    elif kind == "lacks":
        del content["events"]
        np.savez(path, **content)
    else:
        np.savez(path, **{**content, "ch_names": content["ch_names"][:-1]})
    with pytest.raises(RecordingError, match=r"a\.npz"):
        read(path)


def test_every_real_recording_reads(data_dir: Path) -> None:
    """Subjects of the real corpus read with their channels, rate and cues."""
    corpus = Corpus(data_dir / "eegmmidb")
    for subject in corpus.subjects[::20]:
        for recording in corpus.recordings(subject):
            assert recording.info.sfreq == 160.0
            assert recording.info.n_chans in (22, 64)
            assert np.isfinite(recording.data).all()
