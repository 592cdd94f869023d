from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from stepping import chunk_of, eeg

from streamer.dsp.quality import Config, Quality
from streamer.errors import StreamMismatch
from streamer.sources.recording import load
from streamer.types import Chunk, make_chunk

INFO = eeg("Fz", "C3", "C4", "Pz")


def clean(seconds: float = 4.0) -> np.ndarray:
    """Return a second-scale signal of 10 µV, (n_times, 4), float32."""
    noise = np.random.default_rng(0).standard_normal((round(seconds * 250), 4))
    return (10 * noise + [0, 5e4, -5e4, 0]).astype(np.float32)


def watch(x: np.ndarray, **settings: Any) -> tuple[Quality, Chunk]:
    """Return the step after the samples, and what came out."""
    step = Config(**settings).build(INFO)
    return step, step(chunk_of(x, INFO))


def test_good_signal_passes() -> None:
    """A good signal, offsets included, passes bit for bit with nothing found."""
    step, out = watch(clean())
    np.testing.assert_array_equal(out.data, clean())
    assert out.valid.all()
    assert step.bad == {}
    assert not any(step.counts.values())


def test_flat_channel_is_found() -> None:
    """A channel that stops moving is flat within a window and an update."""
    x = clean()
    x[500:, 2] = -5e4
    step, out = watch(x)
    assert step.bad == {"C4": "flat"}
    assert step.counts["flat"] == 1
    assert out.valid.all()


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_how_long_a_channel_was_bad_is_kept(chunk: int) -> None:
    """Each reason by itself, behind a reset and after it is good again, however the signal is cut."""
    x = clean()
    x[250:625, 2] = -5e4
    step = Config().build(INFO)
    for _ in range(2):
        for start in range(0, len(x), chunk):
            step(chunk_of(x[start : start + chunk], INFO))
        step.reset()
    assert step.bad_s == {"C4": {"flat": pytest.approx(2 * 2 * 62 / 250)}}


def test_clipping_is_railed_without_knowing_the_rail() -> None:
    """A channel that spends much of its time at one extreme value is railed."""
    x = clean()
    x[:, 0] = np.minimum(x[:, 0], 5)
    assert watch(x)[0].bad == {"Fz": "railed"}


def test_known_rail_is_found() -> None:
    """A channel at or over the amplifier's limit is railed, constant or not."""
    x = clean()
    x[500:, 3] = 187_500
    assert watch(x, rail_uv=187_500)[0].bad == {"Pz": "railed"}


@pytest.mark.parametrize("freq", [50.0, 60.0])
def test_line_noise_is_told_and_leaves_rows_valid(freq: float) -> None:
    """Line noise on every channel is named; the rows stay valid, as filters take it out."""
    t = np.arange(1000)[:, None] / 250
    step, out = watch(clean() + 200 * np.sin(2 * np.pi * freq * t).astype(np.float32))
    assert set(step.bad.values()) == {"line noise"}
    assert len(step.bad) == 4
    assert out.valid.all()


@pytest.mark.parametrize("n_times", [400, 600, 1000])
def test_drift_does_not_hide_line_noise(n_times: int) -> None:
    """A channel that runs away at 20 mV a second still shows its line noise, whenever one looks."""
    t = np.arange(1000)[:, None] / 250
    x = clean() + 2e4 * t + 300 * np.sin(2 * np.pi * 50 * t)
    assert set(watch(x[:n_times].astype(np.float32))[0].bad.values()) == {"line noise"}


def test_line_noise_of_a_quiet_signal_is_no_fault() -> None:
    """A tenth of a microvolt of line, in a signal without anything else there, is not bad."""
    t = np.arange(1000)[:, None] / 250
    x = 20 * np.sin(2 * np.pi * 10 * t) + 0.1 * np.sin(2 * np.pi * 50 * t) * np.ones(4)
    assert watch(x.astype(np.float32))[0].bad == {}


def test_numbers_that_are_none_repeat_the_last() -> None:
    """NaN and infinities become the channel's last finite value, 0 before there is one, and are counted."""
    x = clean()
    x[:3, 0] = np.nan
    x[600:605, 1] = [np.inf, -np.inf, np.nan, np.nan, np.inf]
    step, out = watch(x)
    assert not out.data[:3, 0].any()
    np.testing.assert_array_equal(out.data[600:605, 1], np.repeat(x[599, 1], 5))
    np.testing.assert_array_equal(out.data[605:], x[605:])
    assert step.counts["non-finite"] == 8


def test_replacing_does_not_depend_on_chunks() -> None:
    """A run of NaN that goes on from chunk to chunk repeats the value before it."""
    x = clean()
    x[40:90, 1] = np.nan
    whole = watch(x)[1]
    step = Config().build(INFO)
    cut = [step(chunk_of(x[i : i + 7], INFO, index=i)).data for i in range(0, len(x), 7)]
    np.testing.assert_array_equal(np.concatenate(cut), whole.data)


def test_channel_that_gives_no_numbers_is_bad() -> None:
    """A channel of nothing but NaN is named; the others go on."""
    x = clean()
    x[300:, 1] = np.nan
    step, out = watch(x)
    assert step.bad == {"C3": "non-finite"}
    assert out.valid.all()


def test_rows_are_not_valid_when_too_many_channels_are_bad() -> None:
    """Beyond ``max_bad`` of the channels, rows are marked from the verdict on, and counted."""
    x = clean()
    x[500:, :2] = 0
    step, out = watch(x, max_bad=0.25)
    first = int(np.flatnonzero(~out.valid)[0])
    assert 700 <= first <= 500 + 250 + 63
    assert not out.valid[first:].any()
    assert step.counts["rows"] == 1000 - first


def test_row_of_no_numbers_is_not_valid_at_once() -> None:
    """A row whose channels are mostly NaN is marked itself, before any verdict."""
    x = clean()
    x[100, 1:] = np.nan
    np.testing.assert_array_equal(np.flatnonzero(~watch(x)[1].valid), [100])


def test_recovered_channel_is_good_again() -> None:
    """A channel that comes back is no longer bad a window later."""
    x = clean(6)
    x[250:700, 2] = 0
    step, _ = watch(x)
    assert step.bad == {}
    assert step.counts["flat"] == 1


def test_counts_outlive_a_reset() -> None:
    """A reset forgets the verdict and keeps the counts: nothing is lost in silence."""
    x = clean()
    x[:, 2] = np.nan
    step, _ = watch(x)
    step.reset()
    assert step.bad == {}
    assert step.counts["non-finite"] == 1000


@pytest.mark.parametrize(("unit", "scale"), [("V", 1e-6), ("10 uV", 0.1)])
def test_limits_are_microvolts_in_any_unit(unit: str, scale: float) -> None:
    """The same signal in volts, or in counts, is judged alike."""
    x = clean() * np.float32(scale)
    x[500:, 2] = 0
    step = Config().build(eeg("Fz", "C3", "C4", "Pz", unit=unit))
    step(chunk_of(x, step.info))
    assert step.bad == {"C4": "flat"}


def test_unknown_unit_is_refused() -> None:
    """Without a unit there are no microvolts to judge by: refused, with the key to set."""
    with pytest.raises(StreamMismatch, match="Set `unit:` in the source block"):
        Config().build(eeg("C3", unit="unknown"))


def test_real_recording_is_good(data_dir: Any) -> None:
    """In a real recording of good quality no channel is dead at any time."""
    recording = np.load(data_dir / "eegmmidb" / "S007" / "S007R04.npz")
    x = (recording["data"] * recording["scale"][:, None]).T[:18000]
    info = eeg(*map(str, recording["ch_names"]), sfreq=160.0)
    step = Config().build(info)
    assert step(chunk_of(x, info)).valid.all()
    assert step.counts["flat"] == step.counts["railed"] == step.counts["non-finite"] == 0


def brain(seconds: float = 4.0, uv: float = 5.0) -> np.ndarray:
    """Return quiet EEG on four channels, float32."""
    return (clean(seconds) - np.float32([0, 5e4, -5e4, 0])) * np.float32(uv / 10)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_unit_a_thousand_times_too_large_is_found(chunk: int) -> None:
    """Of quiet EEG, too: nanovolts called microvolts are not decided on once three seconds were heard.

    So it is behind a reset, too, which forgets those seconds.
    """
    x = brain(8.0, uv=5000.0)
    step = Config().build(INFO)
    for _ in range(2):
        valid = [step(chunk_of(x[i : i + chunk], INFO, index=i)).valid for i in range(0, len(x), chunk)]
        assert step.bad == dict.fromkeys(INFO.ch_names, "too large")
        judged = np.concatenate(valid)
        assert judged[:750].all()
        assert not judged[930:].any()
        step.reset()


@pytest.mark.parametrize("chunk", [1, 7, 2000])
@pytest.mark.parametrize("steps", [[500], [500, 625], [500, 640, 750]])
def test_steps_of_an_offset_are_not_too_large(steps: list[int], chunk: int) -> None:
    """A touched electrode of a DC-coupled amplifier jumps by 20 mV and back: the unit is right all the same.

    Line noise beneath is told as ever.
    """
    t = np.arange(2000)[:, None] / 250
    x = brain(8.0) + 300 * np.sin(2 * np.pi * 50 * t)
    for n, at in enumerate(steps):
        x[at:] += 2e4 * (-1) ** n
    step = Config().build(INFO)
    valid = [
        step(chunk_of(x[i : i + chunk].astype(np.float32), INFO, index=i)).valid
        for i in range(0, len(x), chunk)
    ]
    assert np.concatenate(valid).all()
    assert step.counts["too large"] == 0
    assert set(step.bad.values()) == {"line noise"}


def test_what_stayed_too_large_is_so_at_once_when_it_comes_again() -> None:
    """A muscle that rests for a while in a wrong unit is not heard for three seconds each time it moves."""
    x = brain(12.0, uv=5000.0)
    x[1250:1750] /= 1000
    step, out = watch(x)
    assert out.valid[1570:1750].all()
    assert not out.valid[1750 + 125 :].any()
    assert step.counts["too large"] == 2 * 4


def test_muscles_may_be_larger_than_brains() -> None:
    """What is too large for EEG is not for EMG, which has a limit of its own; a setting goes before both."""
    info = replace(INFO, ch_types=("emg",) * 4)
    for uv, settings, bad in ((5e3, {}, False), (3e4, {}, True), (5e3, {"large_uv": 1e3}, True)):
        step = Config(**settings).build(info)
        step(chunk_of(brain(uv=uv), info))
        assert bool(step.bad) == bad


@pytest.mark.parametrize("unit", ["V", "mV", "uV", "10 uV"])
def test_real_amplitudes_are_not_too_large_in_any_unit(unit: str) -> None:
    """Half a millivolt of EEG, with offsets, drifts of 50 mV/s and 10 mV of line noise, is decided on."""
    t = np.arange(1000)[:, None] / 250
    x = brain(uv=500.0) + 5e4 * t + 1e4 * np.sin(2 * np.pi * 50 * t)
    info = eeg(*INFO.ch_names, unit=unit)
    step = Config().build(info)
    per_uv = {"V": 1e-6, "mV": 1e-3, "uV": 1.0, "10 uV": 0.1}[unit]
    assert step(chunk_of((x * per_uv).astype(np.float32), info)).valid.all()
    assert step.counts["too large"] == 0


def test_without_a_line_in_reach_amplitudes_are_still_judged() -> None:
    """At 64 Hz neither 50 nor 60 Hz can be looked for."""
    info = eeg(*INFO.ch_names, sfreq=64.0)
    step = Config().build(info)
    step(chunk_of(brain(uv=5000.0), info))
    assert set(step.bad.values()) == {"too large"}


@pytest.mark.parametrize(
    "name",
    [
        "eegmmidb/S079/S079R12.npz",
        "muse_lsl/visual_P300_subject2_session1_run01.npz",
        "eegmat/Subject02_1.npz",
        "originals/openbci/OpenBCI_GUI-v6-blinks-jawClench-alpha.txt",
    ],
)
def test_no_real_eeg_is_too_large(data_dir: Any, name: str) -> None:
    """Of the largest of each kind, artefacts, drifts and an unplugged electrode included, none is."""
    recording = load(data_dir / name)
    step = Config().build(recording.info)
    step(make_chunk(recording.data, 0, recording.times))
    assert step.counts["too large"] == 0
