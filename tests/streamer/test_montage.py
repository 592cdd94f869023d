from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from stepping import apply, eeg

from streamer.dsp.montage import Config
from streamer.errors import StreamMismatch
from streamer.montage import clean_name, interpolation_matrix, located, positions
from streamer.types import StreamInfo

# Centre of the sphere that fits MNE's template best, metres in the head frame; the table is seen from there.
ORIGIN = np.array([-0.00093, 0.01459, 0.04083])
IV_2A = tuple(
    "Fz FC3 FC1 FCz FC2 FC4 C5 C3 C1 Cz C2 C4 C6 CP3 CP1 CPz CP2 CP4 P1 Pz P2 POz".split()  # noqa: SIM905
)


def mne_raw(ch_names: list[str], data: np.ndarray) -> Any:
    """Return an MNE recording of (n_chans, n_times) on its 10-05 template, whichever name that has."""
    import mne

    new = "colin27_1005" in mne.channels.get_builtin_montages()
    info = mne.create_info(ch_names, 100.0, "eeg")
    with mne.utils.use_log_level("error"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = mne.io.RawArray(data, info)
        return raw.set_montage("colin27_1005" if new else "standard_1005")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("EEG Fp1-Ref", "Fp1"),
        ("Fc5.", "FC5"),
        ("Cz..", "Cz"),
        ("FP2", "Fp2"),
        ("EEG-Fz", "Fz"),
        ("eeg c3-le", "C3"),
        ("C3-A2", "C3"),
        ("T3", "T7"),
        ("EEG T6-REF", "P8"),
        (" cpz ", "CPz"),
        ("Fpz-Cz", "Fpz-Cz"),
        ("EMG 1", "EMG 1"),
        ("EXG Channel 0", "EXG Channel 0"),
        ("A2-A1", "A2-A1"),
    ],
)
def test_names_are_cleaned(written: str, name: str) -> None:
    """What recorders write around a 10-05 name is looked through; other names stay."""
    assert clean_name(written) == name


def test_positions_are_mne_s() -> None:
    """The table holds every electrode of MNE's template, as directions from the centre of the head."""
    import mne

    raw = mne_raw(["Cz"], np.zeros((1, 1)))
    new = "colin27_1005" in mne.channels.get_builtin_montages()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = mne.channels.make_standard_montage("colin27_1005" if new else "standard_1005").ch_names
    raw = mne_raw(names, np.zeros((len(names), 1)))
    seen = np.array([channel["loc"][:3] for channel in raw.info["chs"]]) - ORIGIN
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    np.testing.assert_allclose(positions(names), seen, atol=1e-7)


def test_positions_point_where_they_should() -> None:
    """The nose is y, the right ear x, the top z."""
    fpz, t8, cz = positions(["FPZ", "T4", "EEG Cz-Ref"])
    assert fpz[1] > 0.99
    assert t8[0] > 0.99
    assert cz[2] > 0.98


def test_unknown_place_is_refused() -> None:
    """A name without a place on the scalp is refused by name."""
    assert not located("EMG 1")
    with pytest.raises(StreamMismatch, match="EMG 1"):
        positions(["C3", "EMG 1"])


def test_interpolation_is_mne_s() -> None:
    """Missing electrodes come out as ``raw.interpolate_bads`` gives them."""
    missing = ["C3", "FC1", "Pz"]
    here = [name for name in IV_2A if name not in missing]
    data = np.random.default_rng(0).standard_normal((22, 22)) @ np.random.default_rng(1).standard_normal(
        (22, 300)
    )
    raw = mne_raw(list(IV_2A), data * 1e-5)
    raw.info["bads"] = missing
    raw.interpolate_bads(origin=ORIGIN, reset_bads=False, verbose="error")
    wanted = raw.get_data(missing) * 1e5
    got = data[[IV_2A.index(name) for name in here]].T @ interpolation_matrix(here, missing)
    np.testing.assert_allclose(got.T, wanted, atol=1e-6 * wanted.std())


def test_interpolation_keeps_what_is_common() -> None:
    """A potential that is the same everywhere is the same at the missing electrodes."""
    weights = interpolation_matrix(["Fp1", "O2", "C3", "T8"], ["Cz", "Oz"])
    np.testing.assert_allclose(weights.sum(axis=0), 1)


def test_channels_are_found_and_reordered() -> None:
    """Whatever order and spelling, the channels leave in the montage's, bit for bit."""
    info = eeg("EEG T3-Ref", "c4", "Fz.", "EEG Cz")
    x = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    config = Config(ch_names=("Cz", "C4", "T7"))
    out = apply(config, x, info)
    np.testing.assert_array_equal(out.data, x[:, [3, 1, 0]])
    assert config.build(info).info.ch_names == ("Cz", "C4", "T7")
    assert config.build(info).interpolated == ()


def test_missing_channels_are_interpolated_from_all() -> None:
    """All EEG channels of the stream help, also those that the montage leaves out; an input A1 does not."""
    names = ("C3", "C4", "Fz", "Pz", "A1", "Cz")
    info = StreamInfo("cap", "id", "EEG", 250.0, names, ("eeg",) * 4 + ("misc", "eeg"), "uV")
    x = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    config = Config(ch_names=("C3", "CP3", "C4"))
    step = config.build(info)
    assert step.interpolated == ("CP3",)
    eeg_columns = [0, 1, 2, 3, 5]
    wanted = x[:, eeg_columns] @ interpolation_matrix([names[i] for i in eeg_columns], ["CP3"])
    np.testing.assert_allclose(apply(config, x, info).data[:, 1], wanted[:, 0], atol=1e-5)


def test_real_electrodes_are_estimated_well(data_dir: Any) -> None:
    """In a real recording, an electrode interpolated from the 21 others correlates above 0.9 with itself."""
    recording = np.load(data_dir / "eegmmidb" / "S007" / "S007R04.npz")
    names = [clean_name(str(name)) for name in recording["ch_names"]]
    scaled = recording["data"][:, :4000] * recording["scale"][:, None]
    x = scaled[[names.index(name) for name in IV_2A]].T
    others = tuple(name for name in IV_2A if name != "C3")
    out = apply(Config(ch_names=IV_2A), x[:, [IV_2A.index(n) for n in others]], eeg(*others, sfreq=160.0))
    assert np.corrcoef(out.data[:, 7], x[:, 7])[0, 1] > 0.9


def test_too_few_channels_are_refused() -> None:
    """Fewer than half of the channels, or than ``min_present``: refused, with what is missing and needed."""
    with pytest.raises(StreamMismatch, match=r"misses C4, Cz.*at least 2 of 3.*has 1 channels: C3"):
        Config(ch_names=("C3", "C4", "Cz")).build(eeg("C3"))
    with pytest.raises(StreamMismatch, match=r"misses Cz.*at least 3 of 3"):
        Config(ch_names=("C3", "C4", "Cz"), min_present=3).build(eeg("C3", "C4", "Pz"))
    assert Config(ch_names=("C3", "C4", "Cz"), min_present=1).build(eeg("C3", "Pz")).interpolated == (
        "C4",
        "Cz",
    )


def test_channel_without_a_place_is_refused() -> None:
    """A missing channel that cannot be interpolated is refused, however many others are there."""
    with pytest.raises(StreamMismatch, match=r"not being 10-05 electrodes, EMG 2"):
        Config(ch_names=("C3", "C4", "EMG 2")).build(eeg("C3", "C4"))


def test_armband_is_taken_in_order() -> None:
    """By order, the first channels get the montage's names and keep their type."""
    info = StreamInfo("arm", "id", "EMG", 200.0, ("a", "b", "c"), ("emg", "emg", "misc"), "uV")
    config = Config(ch_names=("ch1", "ch2"), by="order")
    out = apply(config, [[1, 2, 3]], info)
    np.testing.assert_array_equal(out.data, [[1, 2]])
    assert config.build(info).info.ch_types == ("emg", "emg")
    with pytest.raises(StreamMismatch, match="4 channels are needed"):
        Config(ch_names=("1", "2", "3", "4"), by="order").build(info)


@pytest.mark.parametrize(
    "names",
    [
        ("C3", "C4", "C3"),
        ("C3", "C4", "c3"),
        ("EEG C3-Ref", "C4", "C3."),
        ("C3", "C4", "C3-1"),  # as a reader of recordings tells namesakes apart
        ("C4", "C3", "C3-3", "C3-4"),  # as LSL's does
        ("C4", "C3-0", "C3-1"),  # as MNE's do
        ("EEG C3-Ref", "C4", "EEG C3-Ref-3"),
    ],
)
def test_an_electrode_that_is_there_twice_is_refused(names: tuple[str, ...]) -> None:
    """Which of the two is meant nobody knows: both are named, and what to do."""
    with pytest.raises(StreamMismatch, match=r"C3 is there .* times .*`channels:`") as error:
        Config(ch_names=("C3", "C4"), min_present=1).build(eeg(*names))
    assert all(name in str(error.value) for name in names if "3" in name)


@pytest.mark.parametrize(
    "names",
    [
        ("C3", "C4", "n/a", "n/a"),
        ("C3", "C4", "Status", "Status-1"),
        ("C3", "C4", "Fz", "Fz"),
        ("C3", "C4", "C3-A2"),  # what is called C3 itself goes before what could be called so
        ("C3", "C4", "C3-P3"),
    ],
)
def test_namesakes_that_are_not_used_do_not_matter(names: tuple[str, ...]) -> None:
    """Channels that the montage leaves out may be called as they like."""
    assert Config(ch_names=("C3", "C4")).build(eeg(*names)).used == (0, 1)


def test_namesakes_that_are_all_wanted_are_no_mistake() -> None:
    """A bundle for any montage asks for every channel under the name that tells it apart."""
    names = ("C3", "C3-1", "EMG", "EMG-1")
    assert Config(ch_names=names).build(eeg(*names, "n/a")).used == (0, 1, 2, 3)


def test_a_refusal_names_the_source_block_as_a_remedy() -> None:
    """Whoever cannot rename in the recorder can name the channels in the config."""
    with pytest.raises(StreamMismatch, match=r"`channels:` in the source block"):
        Config(ch_names=("C3", "C4", "Cz")).build(eeg("1", "2", "3"))
