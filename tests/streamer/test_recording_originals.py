"""Every real file at hand opens as it should or is refused with a reason."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import RecordingError
from streamer.sources.recording import Recording, load, streams


@dataclass(frozen=True)
class Opens:
    """What is expected of a file that can be replayed; ``level`` bounds the median absolute amplitude."""

    n_chans: int
    sfreq: float
    n_times: int
    unit: str = "uV"
    level: tuple[float, float] = (1, 100)
    stype: str = "EEG"
    n_markers: int = 0


OFFSET = (1e3, 1e6)  # µV: recorded with the electrodes' offset
TEST_SIGNAL = (1e-3, 1e7)
EXPECTED: dict[str, Opens | str] = {
    "bdf/mne_multiple_annotation_chans.bdf": Opens(15, 125, 30875, level=OFFSET, n_markers=10),
    "bdf/mne_test.bdf": Opens(72, 2048, 2048, level=OFFSET, n_markers=1),
    "bdf/mne_test_bdf_stim_channel.bdf": Opens(3, 500, 5000, level=OFFSET, n_markers=9),
    "brainvision/test_NO.eeg": "open test_NO.vhdr instead",
    "brainvision/test_NO.vhdr": Opens(65, 5000, 2238, level=OFFSET),
    "brainvision/test_NO.vmrk": "open test_NO.vhdr instead",
    "edf/eegmat_Subject01_2.edf": Opens(21, 500, 31000, n_markers=1),
    "edf/eegmmidb_S001R02.edf": Opens(64, 160, 9760, n_markers=1),
    "edf/eegmmidb_S007R04.edf": Opens(64, 160, 20000, n_markers=30),
    "edf/mne_duplicate_channel_labels.edf": Opens(3, 250, 2500),
    "edf/mne_test.edf": Opens(138, 512, 3072, n_markers=18),
    "edf/mne_test_edf_stim_channel.edf": Opens(24, 128, 1228, level=OFFSET, n_markers=12),
    "edf/mne_test_reduced.edf": Opens(125, 512, 3072, n_markers=18),
    "edf/mne_test_uneven_samp.edf": Opens(1, 100, 11000, level=TEST_SIGNAL),
    "edf/mne_test_utf8_annotations.edf": Opens(11, 200, 2000, level=TEST_SIGNAL, n_markers=2),
    "edf/sleepedf_SC4001EC-Hypnogram.edf": "annotations only and no signal",
    "gdf/graz_sample_mi.gdf": Opens(4, 256, 97419, n_markers=200),
    "gdf/mne_test_1ch.gdf": Opens(1, 150, 4500, stype="ECG"),
    "muse_csv/muselsl_SSVEP.csv": Opens(5, 256, 30732, n_markers=32),
    "openbci/Ganglion_1minEyesOpen-1minEyesClosed.txt": Opens(4, 256, 33688, level=OFFSET),
    "openbci/OpenBCI_GUI-v6-blinks-jawClench-alpha.txt": Opens(8, 250, 22490, level=OFFSET),
    "openbci/brainflow_test_data.csv": Opens(16, 250, 2502),
    "xdf/example_clock_resets.xdf": Opens(8, 92.8934, 27815, "unknown", TEST_SIGNAL, n_markers=175),
    "xdf/example_double_string_marker.xdf": Opens(64, 1000, 1, "unknown", (0, 0), n_markers=2),
    "xdf/example_empty_streams.xdf": Opens(1, 1, 10, "unknown", stype="DATA", n_markers=1),
    "xdf/example_minimal.xdf": Opens(3, 10, 9, "unknown", n_markers=9),
    "xdf/muse_eeg_acc_gyro_ppg_sub-P001.xdf": Opens(5, 256, 2820),
    "xdf/muse_eeg_acc_gyro_ppg_sub-P031.xdf": Opens(5, 256, 1284),
    "xdf/muse_eeg_acc_gyro_ppg_sub-P050.xdf": Opens(5, 256, 2316),
}
# The first file of each kind of prepared data set, and what it is; none of the others is read here.
PREPARED: dict[str, Opens | str] = {
    "eegmmidb/S007/S007R04.npz": Opens(64, 160, 20000, n_markers=30),
    "eegmmidb/S006/S006R04.npz": Opens(22, 160, 19680, n_markers=30),
    "eegmat/Subject01_2.npz": Opens(21, 128, 7936, n_markers=1),
    "muse_lsl/auditory_P300_subject1_session1_run01.npz": Opens(5, 256, 30732, n_markers=196),
    "emg_uci_myo36/subject01_series1.npz": Opens(8, 1000, 63196, stype="EMG", n_markers=12),
    "emg_myo_cote/eval_Female0_Test0.npz": Opens(8, 200, 27924, "unknown", stype="EMG", n_markers=28),
    "sleep_edf20_5s/SC4001E0.npz": Opens(1, 100, 420500, n_markers=841),
    "eegfmri_tle_connectomes/connectomes_desikan68.npz": "not a continuous recording",
    "fmri_abide_aal/abide_aal116.npz": "not a continuous recording",
}


def test_every_original_is_listed(data_dir: Path) -> None:
    """No file of the originals is left out of the table."""
    folder = data_dir / "originals"
    found = {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}
    assert found == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_original(
    data_dir: Path, name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An original opens with the channels, rate, unit and events it has, or is refused; nothing leaks."""
    with caplog.at_level(logging.WARNING):
        check(data_dir / "originals" / name, EXPECTED[name])
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", PREPARED)
def test_prepared(data_dir: Path, name: str) -> None:
    """A prepared data set replays if it is signal in time, and is refused if not."""
    check(data_dir / name, PREPARED[name])


def test_prepared_recordings_open(data_dir: Path) -> None:
    """Every tenth file of each data set of signals opens."""
    for folder in ("eegmmidb", "eegmat", "muse_lsl", "emg_uci_myo36", "emg_myo_cote", "sleep_edf20_5s"):
        for path in sorted((data_dir / folder).rglob("*.npz"))[::10]:
            assert load(path).info.stype in ("EEG", "EMG"), path


def check(path: Path, expected: Opens | str) -> None:
    """Compare what comes out of a file with the table."""
    if isinstance(expected, str):
        with pytest.raises(RecordingError, match=expected):
            load(path)
        return
    recording = load(path)
    info = recording.info
    found = (info.n_chans, info.sfreq, len(recording.times), info.unit, info.stype, len(recording.markers))
    assert found == (
        expected.n_chans,
        pytest.approx(expected.sfreq),
        expected.n_times,
        expected.unit,
        expected.stype,
        expected.n_markers,
    )
    low, high = expected.level
    assert low <= np.median(np.abs(recording.data)) <= high
    check_times(recording)


def check_times(recording: Recording) -> None:
    """Times start at 0 and go on by the sample, but for the breaks."""
    steps = np.delete(np.diff(recording.times), [row - 1 for row in recording.breaks])
    assert recording.times[0] == 0
    np.testing.assert_allclose(steps, 1 / recording.info.sfreq, rtol=0.01)


@pytest.mark.parametrize(
    "name", [n for n, e in EXPECTED.items() if isinstance(e, Opens) and n[:3] in ("edf", "bdf", "gdf", "bra")]
)
def test_values_are_those_of_mne(data_dir: Path, name: str) -> None:
    """Samples equal MNE's own reading to the last bit, and its annotations are among the markers."""
    import mne

    path = data_dir / "originals" / name
    recording = load(path)
    with mne.use_log_level("ERROR"):
        raw = mne.io.read_raw(path)
        volts = raw.get_data()
    labels = [recording.meta["original_names"].get(label, label) for label in recording.info.ch_names]
    if "duplicate" in name:
        labels = ["EEG F1-Ref-0", "EEG F2-Ref", "EEG F1-Ref-1"]
    unit = 1.0 if "graz" in name else 1e6  # its "µV" is not known to MNE, which calls the values volts
    theirs = volts[[raw.ch_names.index(label) for label in labels]].T * unit
    np.testing.assert_array_equal(recording.data, theirs.astype(np.float32))
    ours = {(round(marker.time, 3), marker.label) for marker in recording.markers}
    assert {(round(float(a["onset"]), 3), str(a["description"])) for a in raw.annotations} <= ours


def test_values_are_those_of_the_prepared_file(data_dir: Path) -> None:
    """The EDF of S007R04 and its prepared copy agree sample for sample, event for event."""
    original = load(data_dir / "originals/edf/eegmmidb_S007R04.edf")
    prepared = load(data_dir / "eegmmidb/S007/S007R04.npz")
    assert original.info.ch_names == prepared.info.ch_names
    np.testing.assert_array_equal(original.data, prepared.data)
    names = {"T0": "rest", "T1": "left_fist", "T2": "right_fist"}
    for ours, theirs in zip(original.markers, prepared.markers, strict=True):
        assert names[ours.label] == theirs.label
        assert (ours.time, ours.duration) == pytest.approx((theirs.time, theirs.duration), abs=1 / 160)


@pytest.mark.parametrize("name", [n for n in EXPECTED if n.startswith("xdf")])
def test_values_are_those_of_pyxdf(data_dir: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Samples, and stamps without their jitter, equal pyxdf's own reading; a clock reset is a break."""
    import pyxdf

    path = data_dir / "originals" / name
    recording = load(path)
    with caplog.at_level(logging.CRITICAL, "pyxdf"):
        found = pyxdf.load_xdf(path)[0]
    (theirs,) = (s for s in found if str(s["info"]["stream_id"]) == recording.meta["stream"])
    np.testing.assert_array_equal(recording.data, theirs["time_series"].astype(np.float32))
    np.testing.assert_allclose(
        recording.times, theirs["time_stamps"] - theirs["time_stamps"][0], rtol=0, atol=1e-6
    )
    assert not any(note.startswith("pyxdf") for note in recording.meta["notes"])
    assert list(recording.breaks) == [start for start, _ in theirs["info"]["segments"]][1:]


def test_lost_packets_of_the_ganglion(data_dir: Path) -> None:
    """The one place in the Ganglion's file where 20 packets were lost is a hole of 20 samples."""
    recording = load(data_dir / "originals/openbci/Ganglion_1minEyesOpen-1minEyesClosed.txt")
    assert recording.breaks == (6279,)
    assert recording.index[-1] == len(recording.times) - 1 + 20


def test_streams_of_a_file(data_dir: Path) -> None:
    """What a file holds is told, with the reason for what cannot be replayed."""
    found = streams(data_dir / "originals/xdf/muse_eeg_acc_gyro_ppg_sub-P001.xdf")
    assert [(e.stype, e.n_times, e.why_not) for e in found] == [
        ("ACC", 573, ""),
        ("GYRO", 573, ""),
        ("PPG", 0, "it has no samples"),
        ("EEG", 2820, ""),
    ]
    (only,) = streams(data_dir / "originals/edf/eegmmidb_S007R04.edf")
    assert (only.stype, only.n_chans, only.n_times) == ("EEG", 64, 20000)
