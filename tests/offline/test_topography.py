"""Activation patterns on the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_bundle import CHANNELS, toy_graph, toy_manifest, write_bundle

from engine.bundle import Bundle, load
from offline.evaluate import topography
from offline.evaluate.played import Played
from offline.probe.tasks import Session
from streamer.errors import ConfigError, RecordingError
from streamer.sources.recording import Recording
from streamer.types import StreamInfo

SFREQ, SECONDS = 160.0, 60


def session_of(names: tuple[str, ...] = CHANNELS) -> Session:
    """A minute of noise; 20 Hz at C3 comes and goes every ten seconds."""
    rng = np.random.default_rng(1)
    times = np.arange(int(SFREQ * SECONDS)) / SFREQ
    data = rng.normal(size=(len(times), len(names)))
    if "C3" in names:
        loud = 1 + 10 * (times % 20 > 10)
        data[:, names.index("C3")] += loud * np.sin(2 * np.pi * 20 * times)
    info = StreamInfo("one", "one", "EEG", SFREQ, names, ("eeg",) * len(names), "uV")
    return Session("S", "one", Recording(info, data.astype(np.float32), times), "0" * 16)


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return load(write_bundle(tmp_path, toy_manifest(toy_graph()), toy_graph()))


def test_the_pattern_is_where_and_in_what_band_the_evidence_comes_from(
    toy: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Log-odds that follow a rhythm of 20 Hz at C3 have their largest pattern there, in the beta band."""

    def follow(*_: object) -> Played:
        times = np.arange(1, 10 * SECONDS) / 10
        odds = np.where(times % 20 > 10, 1.0, -1.0)
        logs = np.log(np.stack([np.ones_like(odds), np.exp(odds), np.ones_like(odds)], axis=1))
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
        n = len(times)
        true, none = np.ones(n, dtype=bool), np.full(n, -1)
        return Played("S", "one", times, logs.astype(np.float32), true, none, (), float(SECONDS))

    monkeypatch.setattr(topography, "play", follow)
    found = topography.patterns(toy, [session_of()])
    band, contrast, place = np.unravel_index(int(found.values.argmax()), found.values.shape)
    assert found.bands[band].startswith("beta")
    assert found.contrasts[contrast].startswith("left fist")
    assert found.ch_names[place] == "C3"
    pytest.importorskip("matplotlib")
    topography.draw_topography(toy, [session_of()], tmp_path / "head.png")
    assert (tmp_path / "head.png").stat().st_size > 0


def test_what_has_no_place_on_the_head_is_refused(toy: Bundle, tmp_path: Path) -> None:
    """Too few electrodes, or a bundle of EMG, are refused in words."""
    with pytest.raises(RecordingError, match="share 2: C3, C4"):
        topography.patterns(toy, [session_of(("C3", "C4", "X1", "X2"))])
    manifest = toy_manifest(toy_graph())
    manifest["input"]["stype"] = "EMG"
    emg = load(write_bundle(tmp_path / "emg", manifest, toy_graph()))
    with pytest.raises(ConfigError, match="only EEG"):
        topography.patterns(emg, [session_of()])
