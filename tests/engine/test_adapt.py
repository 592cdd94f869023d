"""A stream that does not fit is refused with every reason and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_bundle import CHANNELS

from engine.adapt import fit
from engine.bundle import Bundle, load
from streamer.errors import BundleError, StreamMismatch
from streamer.types import StreamInfo

GOOD = StreamInfo("amp", "amp-1", "EEG", 160.0, CHANNELS, ("eeg",) * len(CHANNELS), "uV")


def renamed(*names: str) -> StreamInfo:
    return replace(GOOD, ch_names=names, ch_types=("eeg",) * len(names))


def test_a_stream_that_fits_needs_only_the_bundles_own_steps(toy: Bundle) -> None:
    """Same channels, rate and unit: nothing is adapted."""
    assert fit(toy, GOOD).notes == ()


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (replace(GOOD, sfreq=50.0), "50 Hz"),
        (replace(GOOD, sfreq=160.0061), "160"),
        (replace(GOOD, unit="unknown"), "unknown"),
        (replace(GOOD, stype="EMG"), "carries EMG"),
        (renamed("C3", "C4"), "CP3"),
        (renamed(*(f"ch{i}" for i in range(8))), "ch0"),
        (renamed("C3", "C4", "Cz", "C3"), "C3"),
    ],
    ids=["slow", "odd-rate", "unit", "type", "too-few", "no-names", "duplicate"],
)
def test_what_does_not_fit_is_refused_in_words(toy: Bundle, stream: StreamInfo, said: str) -> None:
    """Wrong rate, unit, kind, names or number of channels: one message names all."""
    with pytest.raises(StreamMismatch) as error:
        fit(toy, stream)
    assert "'amp'" in str(error.value)
    assert "toy 1" in str(error.value)
    assert said in str(error.value)


def test_all_reasons_at_once(toy: Bundle) -> None:
    """A stream wrong in three ways is told three reasons."""
    with pytest.raises(StreamMismatch) as error:
        fit(toy, replace(renamed("C3", "C4"), sfreq=50.0, unit="unknown"))
    assert str(error.value).count("\n  - ") == 3


@pytest.mark.parametrize(
    "dsp",
    [[{"kind": "resample", "sfreq": 80.0}], [{"kind": "montage", "ch_names": ["C3"]}]],
    ids=["rate", "channels"],
)
def test_a_dsp_list_that_misses_the_graph_is_refused(toy_writer, dsp: list[dict[str, object]]) -> None:
    """What the bundle's own list makes of a stream must be what its graph takes."""
    with pytest.raises(BundleError, match="its DSP list ends in"):
        fit(load(toy_writer(**{"input.dsp": dsp})), GOOD)
