"""By what a recording is known: all that a decoder is fed, and for what was asked the markers, too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offline.data.fingerprint import asked_of, content_of
from streamer.sources.recording import Recording
from streamer.types import Marker, StreamInfo

INFO = StreamInfo("one", "one", "EEG", 100.0, ("C3", "C4"), ("eeg", "eeg"), "uV")


def recording(**changes: Any) -> Recording:
    """A second of two channels and a marker, changed."""
    data = np.random.default_rng(1).normal(size=(100, 2)).astype(np.float32)
    plain = Recording(INFO, data, np.arange(100) / 100.0, markers=(Marker(0.2, "left", 0.5),))
    return replace(plain, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": recording().data[::-1]},
        {"times": recording().times + np.where(np.arange(100) < 50, 0.0, 0.5)},  # a hole
        {"info": replace(INFO, sfreq=200.0)},
        {"info": replace(INFO, ch_names=("C4", "C3"))},
        {"info": replace(INFO, ch_types=("eeg", "eog"))},
        {"info": replace(INFO, unit="V")},
    ],
)
def test_all_that_a_decoder_is_fed_is_content(changes: dict[str, Any]) -> None:
    """With another of it what was kept is not taken; called otherwise it is the same recording."""
    assert content_of(recording(**changes)) != content_of(recording())
    named = replace(INFO, name="other", source_id="other")
    assert content_of(recording(info=named)) == content_of(recording())


@pytest.mark.parametrize("marker", [Marker(0.3, "left", 0.5), Marker(0.2, "right", 0.5), Marker(0.2, "left")])
def test_markers_are_asked_and_are_no_content(marker: Marker) -> None:
    """When, what and for how long: each makes it another question about the same signal."""
    other = recording(markers=(marker,))
    assert content_of(other) == content_of(recording())
    assert asked_of(other) != asked_of(recording())
