from __future__ import annotations

import numpy as np
import pytest
from stepping import apply, eeg

from streamer.dsp.reference import Config
from streamer.errors import StreamMismatch
from streamer.types import StreamInfo

INFO = StreamInfo("cap", "id", "EEG", 250.0, ("C3", "aux", "A1", "A2"), ("eeg", "misc", "eeg", "eeg"), "uV")
NOISE = np.random.default_rng(0).standard_normal((300, 4))


def test_average_sums_to_zero() -> None:
    """After an average reference the EEG channels sum to zero at every sample."""
    out = apply(Config(), NOISE, INFO)
    np.testing.assert_allclose(out.data[:, [0, 2, 3]].sum(axis=1), 0, atol=1e-5)


def test_named_channels_are_subtracted() -> None:
    """Linked mastoids: their mean is taken from every EEG channel."""
    out = apply(Config(channels=("A1", "A2")), NOISE, INFO).data
    np.testing.assert_allclose(out[:, 0], NOISE[:, 0] - NOISE[:, 2:].mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(out[:, 2], -out[:, 3], atol=1e-5)


@pytest.mark.parametrize("channels", ["average", ("A1",)])
def test_other_channels_stay(channels: str | tuple[str, ...]) -> None:
    """A channel that is not EEG is left as it is."""
    np.testing.assert_array_equal(
        apply(Config(channels=channels), NOISE, INFO).data[:, 1], NOISE[:, 1].astype(np.float32)
    )


def test_common_signal_does_not_show() -> None:
    """What is added to all EEG channels alike changes nothing."""
    info = eeg("C3", "C4", "Cz")
    common = NOISE[:, :1] * 100
    clean, shifted = (apply(Config(), NOISE[:, 1:] + x, info).data for x in (0, common))
    np.testing.assert_allclose(clean, shifted, atol=1e-4)


def test_unknown_channel_is_refused() -> None:
    """A reference that is not in the stream is refused with the names that are."""
    with pytest.raises(StreamMismatch, match=r"M1.*C3, aux, A1, A2"):
        Config(channels=("M1",)).build(INFO)


def test_stream_without_eeg_is_refused() -> None:
    """An armband has nothing to re-reference."""
    with pytest.raises(StreamMismatch, match="only emg"):
        Config().build(StreamInfo("arm", "id", "EMG", 200.0, ("1", "2"), ("emg", "emg"), "uV"))
