from __future__ import annotations

import numpy as np
import pytest
from stepping import apply, eeg

from streamer.dsp.scale import Config
from streamer.errors import StreamMismatch
from streamer.units import told_unit


@pytest.mark.parametrize(("unit", "gain"), [("V", 1e6), ("mV", 1e3), ("uV", 1.0)])
def test_units_are_converted(unit: str, gain: float) -> None:
    """A stream in volts, millivolts or microvolts leaves in microvolts."""
    info = eeg("C3", unit=unit)
    assert Config().build(info).info.unit == "uV"
    np.testing.assert_allclose(apply(Config(), [[2.0], [-3.0]], info).data[:, 0], [2 * gain, -3 * gain])


def test_counts_are_so_many_microvolts() -> None:
    """What a source block says of one count holds, to the last digit."""
    one = 0.02235174445
    info = eeg("C3", unit=told_unit(one))
    assert apply(Config(), [[2.0]], info).data[0, 0] == np.float32(2 * one)
    assert Config(unit="V").build(info).info.unit == "V"


@pytest.mark.parametrize("unit", ["unknown", "counts", "0 uV", "-1 uV", "nan uV", "ten uV", "10 mV", "10"])
def test_unknown_unit_is_refused(unit: str) -> None:
    """A stream that does not say its unit is refused, and the message says how to say it."""
    with pytest.raises(StreamMismatch, match=r"Set `unit:` .* microvolts one count is"):
        Config().build(eeg("C3", unit=unit))


def test_assumed_unit_is_used_where_none_is_said() -> None:
    """``assume`` speaks for a silent stream and never against one that speaks."""
    config = Config(assume="V")
    assert apply(config, [[1.0]], eeg("C3", unit="unknown")).data[0, 0] == 1e6
    assert apply(config, [[1.0]], eeg("C3", unit="mV")).data[0, 0] == 1e3


def test_factor_leaves_no_unit() -> None:
    """Tens of microvolts are a scale of their own: the unit is unknown after a factor."""
    config = Config(factor=0.1)
    assert config.build(eeg("C3")).info.unit == "unknown"
    assert apply(config, [[50.0]], eeg("C3")).data[0, 0] == 5.0
