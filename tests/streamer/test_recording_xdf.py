"""XDF files: streams of their own clocks, holes and jitter, markers, damage."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import write_xdf

from streamer.errors import RecordingError
from streamer.sources.recording import load, streams

RNG = np.random.default_rng(0)
SAMPLE_BYTES = 30  # one chunk of one sample of two channels


def eeg(
    name: str, n_times: int, *, stamps: np.ndarray | None = None, rate: float = 100, n_chans: int = 2
) -> dict[str, Any]:
    """Return a stream for `write_xdf`, regular from stamp 50 on."""
    values = RNG.normal(size=(n_times, n_chans)).astype(np.float32)
    stamps = 50 + np.arange(n_times) / rate if stamps is None else stamps
    return {"name": name, "type": "EEG", "rate": rate, "stamps": stamps, "values": values}


def test_xdf_holes_stay_and_jitter_goes(tmp_path: Path) -> None:
    """Half a second lost stays a hole of half a second, while 5 ms of jitter leaves no trace."""
    index = np.delete(np.arange(3000), np.arange(1000, 1050))
    jitter = RNG.normal(0, 0.005, len(index))
    recording = load(
        write_xdf(tmp_path / "a.xdf", [eeg("A", len(index), stamps=50 + index / 100.02 + jitter)])
    )
    assert recording.breaks == (1000,)
    np.testing.assert_array_equal(recording.index, index)
    np.testing.assert_allclose(recording.times, index / 100.02, rtol=0, atol=2e-3)
    assert recording.info.sfreq == 100


def test_xdf_late_burst_is_no_hole(tmp_path: Path) -> None:
    """Samples that arrive late and at once, none missing, are one stretch."""
    stamps = 50 + np.arange(3000) / 100
    stamps[1000:1030] = stamps[1030]
    assert load(write_xdf(tmp_path / "a.xdf", [eeg("A", 3000, stamps=stamps)])).breaks == ()


def test_xdf_believes_stamps(tmp_path: Path) -> None:
    """A nominal rate that the stamps contradict by more than 1 % gives way to the measured one."""
    stream = eeg("A", 2000, stamps=50 + np.arange(2000) / 90)
    recording = load(write_xdf(tmp_path / "a.xdf", [stream]))
    assert recording.info.sfreq == pytest.approx(90)
    assert any("90.0000 Hz: the stamps are believed" in note for note in recording.meta["notes"])


def test_xdf_markers_and_names(tmp_path: Path) -> None:
    """Text streams become markers on the signal's axis, and channels keep their names and unit."""
    signal = eeg("A", 200) | {"labels": ["fz", "VEOG"], "unit": "microvolts"}
    texts = {"name": "M", "type": "Markers", "rate": 0, "stamps": [50.25, 49.5], "values": ["go", "ready"]}
    recording = load(write_xdf(tmp_path / "a.xdf", [texts, signal]))
    assert [(m.label, round(m.time, 6)) for m in recording.markers] == [("ready", -0.5), ("go", 0.25)]
    assert recording.info.ch_names == ("Fz", "VEOG")
    assert (recording.info.ch_types, recording.info.unit) == (("eeg", "eog"), "uV")
    assert (recording.info.name, recording.info.source_id) == ("A", "source-2")


def test_xdf_choice_of_stream(tmp_path: Path) -> None:
    """The first EEG is the default; a stream is chosen by name, type or number, and a doubt is an error."""
    motion = eeg("Band", 100, rate=50, n_chans=3) | {"type": "ACC"}
    irregular = eeg("Blinks", 5) | {"type": "Gaze", "rate": 0}
    path = write_xdf(tmp_path / "a.xdf", [motion, eeg("Band", 300), eeg("Other", 200), irregular])
    assert load(path).info.source_id == "source-2"
    assert load(path, "acc").info.n_chans == 3
    assert load(path, "Other").info.source_id == load(path, "3").info.source_id == "source-3"
    with pytest.raises(RecordingError, match=r"more than one stream answers to 'Band'.* 1: 'Band' \(ACC"):
        load(path, "Band")
    with pytest.raises(RecordingError, match="'Gaze' cannot be replayed: its rate is irregular"):
        load(path, "Gaze")
    with pytest.raises(RecordingError, match=r"'EMG' is not there; choose one .*'Other' \(EEG, 2 channels"):
        load(path, "EMG")
    assert [entry.why_not for entry in streams(path)] == ["", "", "", "its rate is irregular"]


def test_xdf_compressed(tmp_path: Path) -> None:
    """A gzipped file reads the same."""
    path, packed = write_xdf(tmp_path / "a.xdf", [eeg("A", 200)]), tmp_path / "a.xdfz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(load(packed).data, load(path).data)


@pytest.mark.parametrize("gone", [1, SAMPLE_BYTES - 6, 10 * SAMPLE_BYTES])
def test_xdf_cut(tmp_path: Path, gone: int) -> None:
    """Of a file that was cut anywhere what comes before is read, and the cut is said."""
    path = write_xdf(tmp_path / "a.xdf", [eeg("A", 200)])
    whole = load(path)
    path.write_bytes(path.read_bytes()[:-gone])
    cut = load(path)
    np.testing.assert_array_equal(cut.data, whole.data[: 200 - -(-gone // SAMPLE_BYTES)])
    cuts_told = [note for note in cut.meta["notes"] if "damaged or cut at byte" in note]
    assert len(cuts_told) == (gone % SAMPLE_BYTES > 0)


def test_xdf_wrong_count(tmp_path: Path) -> None:
    """A chunk that claims more samples than lie within it ends the reading there, aloud."""
    path = write_xdf(tmp_path / "a.xdf", [eeg("A", 200)])
    blob, at = bytearray(path.read_bytes()), -50 * SAMPLE_BYTES + 12
    assert blob[at] == 1
    blob[at] = 200
    path.write_bytes(blob)
    recording = load(path)
    assert len(recording.times) == 150
    assert any("damaged or cut at byte" in note for note in recording.meta["notes"])
