from __future__ import annotations

import numpy as np
import pytest
from scipy import signal
from stepping import apply, eeg

from streamer.dsp.notch import Config
from streamer.errors import StreamMismatch

INFO = eeg("C3")


def gain(config: Config, freq: float) -> float:
    """Return what is left of a sine once the filter has settled."""
    sine = np.sin(2 * np.pi * freq * np.arange(5000) / INFO.sfreq)[:, None]
    return float(apply(config, sine, INFO).data[2500:].std() / sine[2500:].std())


def test_equals_scipy() -> None:
    """One notch is SciPy's ``iirnotch``, started from the first sample."""
    noise = np.random.default_rng(0).standard_normal((2000, 1)).astype(np.float32)
    b, a = signal.iirnotch(50, 30, fs=250)
    wanted, _ = signal.lfilter(b, a, noise[:, 0].astype(float), zi=signal.lfilter_zi(b, a) * noise[0, 0])
    out = apply(Config(freqs=(50,), harmonics=False), noise, INFO)
    np.testing.assert_allclose(out.data[:, 0], wanted, atol=1e-6)


@pytest.mark.parametrize("freq", [50.0, 100.0])
def test_line_and_harmonics_are_gone(freq: float) -> None:
    """The line frequency and its multiples below half the sampling rate are taken out."""
    assert gain(Config(freqs=(50,)), freq) < 0.01


@pytest.mark.parametrize("freq", [10.0, 45.0, 55.0, 95.0])
def test_the_rest_stays(freq: float) -> None:
    """Five hertz from a notch nothing is lost."""
    assert gain(Config(freqs=(50,)), freq) == pytest.approx(1, abs=0.05)


def test_harmonics_can_be_left() -> None:
    """Without harmonics only the frequencies named are taken out."""
    assert gain(Config(freqs=(50,), harmonics=False), 100.0) == pytest.approx(1, abs=0.05)


def test_notch_beyond_nyquist_is_refused() -> None:
    """A frequency that the stream cannot carry is refused, by its name."""
    with pytest.raises(StreamMismatch, match=r"60 Hz.*100 Hz"):
        Config(freqs=(50, 60)).build(eeg("C3", sfreq=100.0))
