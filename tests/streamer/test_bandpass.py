from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import signal
from stepping import apply, eeg

from streamer.dsp.bandpass import Config
from streamer.errors import StreamMismatch

INFO = eeg("C3", "C4")
NOISE = np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32) + 50


@pytest.mark.parametrize(
    ("low", "high", "btype"), [(4.0, 40.0, "bandpass"), (0.5, None, "highpass"), (None, 30.0, "lowpass")]
)
def test_equals_scipy(low: float | None, high: float | None, btype: str) -> None:
    """The output is SciPy's, over the whole signal, started from the first sample."""
    corners = [freq for freq in (low, high) if freq is not None]
    sos = signal.butter(3, corners if len(corners) > 1 else corners[0], btype, fs=250.0, output="sos")
    zi = signal.sosfilt_zi(sos)[:, :, None] * NOISE[0].astype(float)
    wanted, _ = signal.sosfilt(sos, NOISE.astype(float), axis=0, zi=zi)
    out = apply(Config(low=low, high=high, order=3), NOISE, INFO)
    np.testing.assert_array_equal(out.data, wanted.astype(np.float32))


def test_offset_makes_no_transient() -> None:
    """A constant, however large, is gone from the first sample on."""
    out = apply(Config(low=1, high=40), np.full((500, 2), 1e5), INFO)
    np.testing.assert_allclose(out.data, 0, atol=1e-4)


def test_stable_at_a_narrow_band_and_a_high_rate() -> None:
    """0.5 to 40 Hz at 2 kHz, where transfer-function coefficients fail, keeps a 10-Hz sine as it is."""
    info = eeg("C3", sfreq=2000.0)
    sine = np.sin(2 * np.pi * 10 * np.arange(20000) / 2000)[:, None]
    out = apply(Config(low=0.5, high=40), sine, info).data[10000:, 0]
    assert np.std(out) == pytest.approx(np.sqrt(0.5), rel=0.01)


@pytest.mark.parametrize(
    ("corners", "freq"), [({"low": 4, "high": 40}, 12.6), ({"high": 30}, 15.0), ({"low": 8}, 31.6)]
)
def test_delay_is_the_lag_in_the_band(corners: dict[str, float], freq: float) -> None:
    """A burst in the middle of the band comes out ``delay`` samples later."""
    config = Config(**corners)
    t = np.arange(1000) - 500
    burst = np.exp(-((t / 60) ** 2)) * np.sin(2 * np.pi * freq * t / 250)
    out = apply(config, np.c_[burst, burst], INFO).data[:, 0]
    envelope = [np.abs(signal.hilbert(x)) for x in (burst, out)]
    lag = np.average(t, weights=envelope[1]) - np.average(t, weights=envelope[0])
    assert config.build(INFO).delay == pytest.approx(lag, abs=0.8)


@pytest.mark.parametrize("corners", [{"low": 4, "high": 125}, {"high": 200}, {"low": 125}])
def test_band_beyond_nyquist_is_refused(corners: dict[str, float]) -> None:
    """A corner that the stream cannot carry is refused, with the rate and the limit."""
    with pytest.raises(StreamMismatch, match=r"gives 250 Hz.*below 125 Hz"):
        Config(**corners).build(INFO)


@pytest.mark.parametrize("corners", [{}, {"low": 40, "high": 4}, {"low": 0, "high": 4}])
def test_no_band_is_refused(corners: dict[str, float]) -> None:
    """Corners that make no band are an error of the configuration."""
    with pytest.raises(ValidationError):
        Config(**corners)
