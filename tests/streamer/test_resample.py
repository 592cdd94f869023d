from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal
from stepping import apply, chunk_of, eeg

from streamer.dsp.resample import Config
from streamer.errors import StreamMismatch

RATES = [(250, 160, 16, 25), (160, 250, 25, 16), (512, 250, 125, 256), (1000, 200, 1, 5), (128, 256, 2, 1)]


def sine(freq: float, sfreq: float, seconds: float = 8.0) -> np.ndarray:
    """Return a sine, (n_times, 1)."""
    return np.sin(2 * np.pi * freq * np.arange(round(seconds * sfreq)) / sfreq)[:, None]


@pytest.mark.parametrize(("source", "target", "up", "down"), RATES)
def test_equals_scipy(source: int, target: int, up: int, down: int) -> None:
    """The output is SciPy's polyphase filter with the same taps, fed the first sample for ever before."""
    noise = np.random.default_rng(0).standard_normal((1000, 1)).astype(np.float32)
    taps = Config(sfreq=target)._taps(up, down)
    lead = down * (len(taps) // down // up + 1)  # rows of the past, whole output samples of them
    padded = np.concatenate([np.repeat(noise[:1], lead, axis=0), noise])[:, 0].astype(float)
    wanted = signal.upfirdn(taps, padded, up, down)[lead * up // down :]
    out = apply(Config(sfreq=target), noise, eeg("C3", sfreq=source)).data[:, 0]
    assert len(out) == -(-1000 * up // down)
    np.testing.assert_allclose(out, wanted[: len(out)], atol=1e-6)


@pytest.mark.parametrize(("source", "target", "up", "down"), RATES)
def test_delay_is_the_lag(source: int, target: int, up: int, down: int) -> None:
    """A sine comes out as the same sine, ``delay`` output samples late."""
    info = eeg("C3", sfreq=source)
    step = Config(sfreq=target).build(info)
    out = step(chunk_of(sine(10, source), info)).data
    wanted = np.roll(sine(10, target), step.delay, axis=0)
    np.testing.assert_allclose(out[target:], wanted[target : len(out)], atol=0.003)


@pytest.mark.parametrize(("source", "target", "up", "down"), RATES)
def test_flat_below_and_silent_above(source: int, target: int, up: int, down: int) -> None:
    """Within 0.02 dB up to 0.30 of the lower rate, 60 dB down from 0.60 of it: what the settings promise."""
    freqs, gain = signal.freqz(Config(sfreq=target)._taps(up, down) / up, worN=1 << 15, fs=source * up)
    db = 20 * np.log10(np.abs(gain) + 1e-12)
    lower = min(source, target)
    assert np.abs(db[freqs <= 0.30 * lower]).max() < 0.02
    assert db[freqs >= 0.60 * lower].max() < -59.9
    assert db[np.argmin(np.abs(freqs - 0.45 * lower))] == pytest.approx(-6, abs=0.5)


@pytest.mark.parametrize(("source", "target"), [(250, 160), (160, 250)])
def test_offset_stays_an_offset(source: int, target: int) -> None:
    """A constant comes out as the constant, from the first sample on and in every phase."""
    out = apply(Config(sfreq=target), np.full((500, 1), 1e5), eeg("C3", sfreq=source))
    np.testing.assert_allclose(out.data, 1e5, rtol=1e-7)


def test_what_would_fold_is_gone() -> None:
    """A sine above the new half rate does not come back at its mirror."""
    out = apply(Config(sfreq=160), sine(120, 250), eeg("C3")).data[160:]
    assert np.abs(out).max() < 2e-3


def test_same_rate_is_identity() -> None:
    """At the right rate already, the chunk passes untouched and undelayed."""
    info = eeg("C3")
    step = Config(sfreq=250).build(info)
    chunk = chunk_of(sine(10, 250), info)
    assert step(chunk) is chunk
    assert step.delay == 0
    assert step.info == info


@pytest.mark.parametrize("index", [0, 1, 7, 1000])
def test_grid_is_the_stream_s(index: int) -> None:
    """Row m is input position m * down / up, wherever the stream begins; its time is its position's."""
    info = eeg("C3")
    out = Config(sfreq=160).build(info)(chunk_of(sine(10, 250), info, index=index))
    assert out.index == -(-index * 16 // 25)
    np.testing.assert_allclose(out.times, (out.index + np.arange(len(out))) / 160, atol=1e-9)


def test_a_sample_that_is_not_valid_shows_around_its_lag() -> None:
    """Rows under whose central taps a repaired sample lies are not valid; a tenth of a second on, all are."""
    info = eeg("C3")
    valid = np.ones(500, dtype=bool)
    valid[200] = False
    step = Config(sfreq=160).build(info)
    out = step(replace(chunk_of(sine(10, 250, 2.0), info), valid=valid))
    bad = np.flatnonzero(~out.valid)
    assert abs(bad.mean() - (200 * 160 / 250 + step.delay)) < 1
    assert 4 <= len(bad) <= 16
    assert len(bad) == np.ptp(bad) + 1


@pytest.mark.parametrize(("source", "target"), [(249.87, 250.0), (1.0, 5000.0), (44100.0, 0.5)])
def test_silly_ratio_is_refused(source: float, target: float) -> None:
    """Rates in no ratio of small numbers are refused, with the rate that came."""
    with pytest.raises(StreamMismatch, match=f"gives {source:g} Hz"):
        Config(sfreq=target).build(eeg("C3", sfreq=source))
