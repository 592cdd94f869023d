"""What each reader makes of a file, on small files made here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from made_files import (
    write_brainvision,
    write_edf,
    write_epochs,
    write_muse,
    write_npz,
    write_openbci,
    write_rows,
)

from streamer.clean import Cleaner
from streamer.errors import ConfigError, EndOfStream, RecordingError
from streamer.sources._grid import from_stamps
from streamer.sources._names import channel_type, tidy_name, unique_names
from streamer.sources.recording import RecordingSource, load
from streamer.types import Marker

RNG = np.random.default_rng(0)


def codes(n_records: int, count: int) -> np.ndarray:
    """Return digital values of one channel, shape (n_records, count)."""
    return RNG.integers(-1000, 1000, (n_records, count))


def test_edf_interrupted(tmp_path: Path) -> None:
    """An EDF+D's records lie where they say, its pauses are breaks, its annotations on the same axis."""
    channel = codes(4, 50)
    onsets = [3.0, 4.0, 9.5, 10.5]  # 4.5 s are missing after the second record
    recording = load(
        write_edf(tmp_path / "a.edf", [channel], ["Fc5."], onsets=onsets, notes=[(10.0, 0.5, "T1")])
    )
    assert recording.breaks == (100,)
    np.testing.assert_allclose(recording.times[[0, 99, 100, 199]], [0, 1.98, 6.5, 8.48])
    assert np.diff(recording.index)[99] == 226
    assert recording.markers == (Marker(7.0, "T1", 0.5),)
    np.testing.assert_array_equal(recording.data[:, 0], channel.ravel().astype(np.float32))


def test_edf_rates(tmp_path: Path) -> None:
    """Channels at another rate than most are left out, and said to be."""
    blocks = [codes(3, 100), codes(3, 10), codes(3, 100)]
    recording = load(write_edf(tmp_path / "a.edf", blocks, ["EEG C3", "EEG Oz", "ECG"]))
    assert recording.info.ch_names == ("C3", "ECG")
    assert recording.info.ch_types == ("eeg", "ecg")
    assert recording.meta["left_out"] == {"EEG Oz": "its rate is 10 Hz, the recording's 100 Hz"}
    assert recording.meta["original_names"] == {"C3": "EEG C3"}


def test_edf_stimulus_channel(tmp_path: Path) -> None:
    """A stimulus channel becomes markers at its changes; one that carries noise is left out aloud."""
    code = np.zeros((2, 100), int)
    code[0, 30:40], code[1, 10:20] = 7, 9
    labels = ["C3", "Status", "Trigger"]
    recording = load(write_edf(tmp_path / "a.edf", [codes(2, 100), code, codes(2, 100)], labels))
    assert recording.info.ch_names == ("C3",)
    assert recording.markers == (Marker(0.3, "7"), Marker(1.1, "9"))
    assert recording.meta["left_out"]["Trigger"].endswith("carries no codes")


@pytest.mark.parametrize(
    ("unit", "factor", "told"), [("mV", 1e3, "uV"), ("V", 1e6, "uV"), ("", 1, "unknown"), ("G", 1, "unknown")]
)
def test_units(tmp_path: Path, unit: str, factor: float, told: str) -> None:
    """Voltages come in µV; another or no unit is left as it is and called unknown."""
    channel = codes(2, 50)
    recording = load(write_edf(tmp_path / "a.edf", [channel], ["C3"], unit=unit))
    assert recording.info.unit == told
    np.testing.assert_allclose(recording.data[:, 0], channel.ravel() * factor, rtol=1e-6)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("lost", [0, 1, 40])
def test_openbci_lost_packets(tmp_path: Path, old: bool, lost: int) -> None:
    """The sample index, wrapping at 255, shows how many packets were lost, in either style of header."""
    index = np.delete(np.arange(1, 901), np.arange(250, 250 + lost))
    data = RNG.normal(size=(len(index), 4)).round(2)
    recording = load(write_openbci(tmp_path / "a.txt", index % 256, data, None, old=old))
    np.testing.assert_array_equal(recording.index, index - 1)
    assert recording.breaks == ((250,) if lost else ())
    np.testing.assert_allclose(recording.data, data, rtol=1e-6)
    assert recording.info.ch_names[0] == "EXG Channel 0"


def time_of_day(seconds: float) -> str:
    """Return a time that starts two seconds before midnight."""
    passed = (seconds - 2) % 86400
    return f"{passed // 3600:02.0f}:{passed // 60 % 60:02.0f}:{passed % 60:06.3f}"


@pytest.mark.parametrize(
    ("stamp", "old"),
    [
        (lambda seconds: f"{1.6e12 + seconds * 1000:.0f}", False),
        (lambda seconds: f"{1.6e9 + seconds:.4f}", True),
        (time_of_day, True),
    ],
    ids=["ms", "s", "over midnight"],
)
def test_openbci_stamps(tmp_path: Path, stamp: Callable[[float], str], old: bool) -> None:
    """A pause of a whole turn of the counter is found by the time stamps, in each of their styles."""
    index = np.delete(np.arange(2000), np.arange(700, 700 + 256))
    stamps = [stamp(place / 250) for place in index]
    data = RNG.normal(size=(len(index), 2))
    recording = load(write_openbci(tmp_path / "a.txt", index % 256, data, stamps, old=old))
    assert recording.breaks == (700,)
    np.testing.assert_allclose(recording.index, index, atol=1)


def test_openbci_counter_beside_stamps(tmp_path: Path) -> None:
    """Three lost packets, too few for the stamps to show, are holes where the counter shows them."""
    index = np.delete(np.arange(900), [500, 501, 502])
    stamps = [f"{1.6e9 + place / 250 + 0.01 * RNG.random():.4f}" for place in index]
    path = write_openbci(tmp_path / "a.txt", index % 256, RNG.normal(size=(897, 2)), stamps, old=False)
    np.testing.assert_array_equal(load(path).index, index)


def test_stamps_that_are_no_times() -> None:
    """Stamps that are not numbers or span ages are an error; a known reset is a break in any case."""
    stamps = np.arange(1000) / 100
    for wrong in (np.nan, np.inf, 1e200):
        with pytest.raises(ValueError, match="they are no times"):
            from_stamps(np.append(stamps, wrong), 100)
    assert from_stamps(stamps, 100, resets=[0, 400]).breaks == (400,)


def brainflow_rows(n_columns: int, stamp_column: int, sfreq: float) -> np.ndarray:
    """Return rows as a board of so many rows leaves them, the counter first."""
    rows = RNG.normal(size=(1000, n_columns))
    rows[:, 0] = np.arange(1000) % 256
    rows[:, stamp_column] = 1.7e9 + np.arange(1000) / sfreq
    rows[:, stamp_column + 1] = 0
    return rows


def test_brainflow_board(tmp_path: Path) -> None:
    """Columns and rate name the board where they can, ``board_id`` where they cannot."""
    cyton = load(write_rows(tmp_path / "cyton.csv", brainflow_rows(24, 22, 250)))
    assert (cyton.meta["board_id"], cyton.info.n_chans, cyton.info.sfreq) == (0, 8, 250)
    muse = write_rows(tmp_path / "muse.csv", brainflow_rows(8, 6, 254))
    with pytest.raises(RecordingError, match=r"8 columns and does not name its board: boards .*Muse"):
        load(muse)
    assert load(muse, board_id=38).info.ch_names == ("TP9", "AF7", "AF8", "TP10")
    with pytest.raises(RecordingError, match=r"board 0 \(Cyton\) writes 24"):
        load(muse, board_id=0)
    with pytest.raises(RecordingError, match="no board 12345"):
        load(muse, board_id=12345)


def test_muse_csv(tmp_path: Path) -> None:
    """A CSV of muse-lsl gives its channels in µV, its marker column as markers, its stamps as one line."""
    stamps = 9000 + np.arange(1000) / 256 + RNG.uniform(-0.01, 0.01, 1000)
    data, marks = RNG.normal(size=(1000, 5)).round(3), np.zeros(1000, int)
    marks[[512, 768]] = 1, 2
    recording = load(write_muse(tmp_path / "a.csv", stamps, data, marks))
    assert recording.info.ch_names == ("TP9", "AF7", "AF8", "TP10", "Right AUX")
    assert (recording.info.sfreq, recording.info.unit, recording.breaks) == (256, "uV", ())
    assert [(m.label, round(m.time, 1)) for m in recording.markers] == [("1", 2.0), ("2", 3.0)]
    np.testing.assert_allclose(recording.data, data, rtol=1e-6)


def test_muse_motion(tmp_path: Path) -> None:
    """A muse-lsl file of the accelerometer is read for what it is: no EEG, no voltage."""
    path = tmp_path / "a.csv"
    path.write_text("timestamps,X,Y,Z\n" + "".join(f"{i / 52:.3f},1,2,{i}\n" for i in range(200)))
    info = load(path).info
    assert (info.stype, info.sfreq, info.unit, info.ch_types) == ("MOTION", 52, "unknown", ("misc",) * 3)


def test_npz(tmp_path: Path) -> None:
    """A prepared recording is scaled, and its events are markers under their names where they have one."""
    data = RNG.integers(-100, 100, (3, 400)).astype(np.int16)
    recording = load(write_npz(tmp_path / "a.npz", data))
    np.testing.assert_array_equal(recording.data, 2 * data.T.astype(np.float32))
    assert recording.markers == (Marker(0.5, "fist", 0.25), Marker(1.0, "7"))
    assert recording.info.stype == "EMG"


@pytest.mark.parametrize("others", [{"meta": '{"continuous": false}'}, {"sfreq": None}, {"ch_names": None}])
def test_npz_that_is_no_recording(tmp_path: Path, others: dict[str, object]) -> None:
    """An npz without the arrays of a recording, or that says it is not continuous, is refused."""
    with pytest.raises(RecordingError, match="not a continuous recording"):
        load(write_npz(tmp_path / "a.npz", np.zeros((1, 9)), **others))


def test_npz_of_epochs(tmp_path: Path) -> None:
    """Epochs lie where their onsets say, with a break before each that does not follow the last."""
    data = RNG.integers(-100, 100, (4, 500)).astype(np.int16)
    path = write_epochs(tmp_path / "a.npz", data, [60, 90, 95, 120], [0, 2, 2, 7], ["W", "N1", "N2"])
    recording = load(path)
    assert recording.info.ch_names == ("Fpz-Cz",)
    assert (recording.info.stype, recording.info.unit, recording.breaks) == ("EEG", "uV", (500, 1500))
    np.testing.assert_allclose(recording.times[[0, 499, 500, 1499, 1500]], [0, 4.99, 30, 39.99, 60])
    np.testing.assert_array_equal(recording.data[:, 0], data.ravel() * np.float32(0.5) + 1)
    told = [(marker.time, marker.label, marker.duration) for marker in recording.markers]
    assert told == [(0, "W", 5), (30, "N2", 5), (35, "N2", 5), (60, "7", 5)]


def test_replayed_epochs_reset_what_is_downstream(tmp_path: Path) -> None:
    """Each hole between epochs comes out as a discontinuity, whatever the chunks, and is counted."""
    data = RNG.integers(-100, 100, (4, 500)).astype(np.int16)
    path = write_epochs(tmp_path / "a.npz", data, [0, 30, 35, 60], [0, 1, 1, 0], ["W", "N1"])
    for chunk in (64, 3000):
        source = RecordingSource(load(path), chunk=chunk)
        cleaner, played = Cleaner(source, None, None), []
        with suppress(EndOfStream):
            while True:
                played += cleaner.read(0.0)
        played += cleaner.rest()
        assert [one.index for one in played if one.discontinuity] == [3000, 6000]
        counted = cleaner.counters()
        assert (counted.discontinuities, counted.samples_lost, counted.samples_in) == (2, 4500, 2000)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"epoch_onset_s": np.array([0.0, 3.0])}, "epoch 1 begins before"),
        ({"epoch_onset_s": np.array([0.0])}, "onsets and 2 labels"),
        ({"ch_names": ["C3", "C4"]}, "2 channel names"),
        ({"epoch_onset_s": None}, "not a continuous recording"),
    ],
)
def test_npz_of_epochs_that_do_not_fit(tmp_path: Path, others: dict[str, object], message: str) -> None:
    """Epochs that overlap, or whose arrays do not belong together, are refused with the reason."""
    path = write_epochs(tmp_path / "a.npz", np.zeros((2, 500)), [0, 30], [0, 1], ["W", "N1"], **others)
    with pytest.raises(RecordingError, match=message):
        load(path)


def test_npz_with_pickles(tmp_path: Path) -> None:
    """An npz that would run code on loading is refused."""
    path = write_npz(tmp_path / "a.npz", np.zeros((1, 9)), events=np.array([print], dtype=object))
    with pytest.raises(RecordingError, match="allow_pickle"):
        load(path)


def test_brainvision(tmp_path: Path) -> None:
    """A BrainVision recording comes in µV, with its markers, and a new segment is a break."""
    values = RNG.integers(-1000, 1000, (250, 2))
    recording = load(write_brainvision(tmp_path / "a.vhdr", values))
    np.testing.assert_allclose(recording.data, values / 2, rtol=1e-6)
    assert (recording.info.sfreq, recording.breaks) == (250, (100,))
    assert [m.label for m in recording.markers] == ["Stimulus/S  1", "New Segment/"]
    (tmp_path / "a.eeg").unlink()
    with pytest.raises(RecordingError, match=r"samples are in a\.eeg, which is not next to it"):
        load(tmp_path / "a.vhdr")


def test_fif(tmp_path: Path) -> None:
    """A FIF file comes in µV with its annotations, however late its first sample, stimuli as markers."""
    import mne

    volts = 1e-5 * RNG.normal(size=(3, 500))
    volts[2] = 0
    volts[2, 200:210] = 5
    info = mne.create_info(["Fz", "Cz", "STI 014"], 100.0, ["eeg", "eeg", "stim"])
    with mne.use_log_level("ERROR"):
        raw = mne.io.RawArray(volts, info, first_samp=1000)
        raw.set_annotations(mne.Annotations([1.0], [0.5], ["left"]))
        raw.save(tmp_path / "a_raw.fif", fmt="double")
    recording = load(tmp_path / "a_raw.fif")
    np.testing.assert_allclose(recording.data, volts[:2].T * 1e6, rtol=1e-6)
    assert recording.markers == (Marker(1.0, "left", 0.5), Marker(2.0, "5"))


def test_names_and_types() -> None:
    """Electrodes get their standard names whatever their spelling; the file's own type comes first."""
    assert [tidy_name(label) for label in ("Fc5.", "C5..", "EEG FP1-REF", "afz", "EEG Fpz-Cz", "EMG 1")] == [
        "FC5",
        "C5",
        "Fp1",
        "AFz",
        "Fpz-Cz",
        "EMG 1",
    ]
    assert unique_names(["F1", "F2", "F1", "F1-1", "F1"]) == ["F1", "F2", "F1-1", "F1-1-1", "F1-2"]
    types = {"VEOG": "eog", "EKG": "ecg", "Right AUX": "misc", "acc1": "other", "DIG DTRIG": "stim"}
    assert {label: channel_type(label) for label in types} == types
    assert channel_type("VEOG", "emg") == "emg"
    assert channel_type("TP9", "accelerometer") == "other"


def test_board_id_of_another_format(tmp_path: Path) -> None:
    """A board for a file that needs none is an error, as the user means another file."""
    with pytest.raises(ConfigError, match=r"a\.edf is EDF: leave it out"):
        load(write_edf(tmp_path / "a.edf", [codes(1, 10)], ["C3"]), board_id=0)


def test_text_cut_within_its_last_number(tmp_path: Path) -> None:
    """The line that a crash cut is left out and said to be; what comes before it is read."""
    data = RNG.normal(size=(300, 2))
    path = write_openbci(
        tmp_path / "a.txt", np.arange(300), data, [f"{1.6e12 + 4 * i:.0f}" for i in range(300)], old=False
    )
    path.write_bytes(path.read_bytes()[:-6])
    recording = load(path)
    assert len(recording.times) == 299
    assert "the last line is cut and was left out" in recording.meta["notes"]
