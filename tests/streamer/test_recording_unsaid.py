"""What a file leaves open: how long a pause was, what its channels are called, in which unit it is."""

from __future__ import annotations

import logging
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from made_files import write_brainvision, write_edf, write_openbci, write_xdf
from pydantic import ValidationError

from streamer.acquire import feed
from streamer.dsp.quality import Config as Quality
from streamer.dsp.scale import Config as Scale
from streamer.errors import EndOfStream, RecordingError, StreamMismatch
from streamer.player import Player
from streamer.sources import Source
from streamer.sources.lsl import Config as Lsl
from streamer.sources.recording import Config, load
from streamer.types import Chunk

RNG = np.random.default_rng(0)


def brainvision(folder: Path) -> Path:
    """Write 250 rows at 250 Hz, a new segment at row 100."""
    return write_brainvision(folder / "a.vhdr", RNG.integers(-1000, 1000, (250, 2)))


def test_a_pause_of_unknown_length_is_a_gap(tmp_path: Path) -> None:
    """Times, index and the markers from there on move by the nominal length, and a note says so."""
    recording = load(brainvision(tmp_path))
    assert recording.breaks == (100,)
    np.testing.assert_allclose(recording.times, (np.arange(250) + 500 * (np.arange(250) >= 100)) / 250)
    np.testing.assert_array_equal(recording.index, np.arange(250) + 500 * (np.arange(250) >= 100))
    assert [(m.label, m.time) for m in recording.markers] == [("Stimulus/S  1", 0.2), ("New Segment/", 2.4)]
    assert any("for how long is not known: 2 s stand there" in note for note in recording.meta["notes"])


def test_stamps_that_go_back_are_a_pause_of_unknown_length(tmp_path: Path) -> None:
    """Where a file's clock was set back nobody knows how long it was: the same gap, the same note."""
    stamps = [f"{1.6e9 + i / 250 - 100 * (i >= 600):.4f}" for i in range(1200)]
    path = write_openbci(
        tmp_path / "a.txt", np.arange(1200) % 256, RNG.normal(size=(1200, 2)), stamps, old=False
    )
    recording = load(path)
    assert recording.breaks == (600,)
    assert recording.times[600] - recording.times[599] == pytest.approx(2 + 1 / 250, abs=1e-3)
    assert any("for how long is not known" in note for note in recording.meta["notes"])


def read_all(source: Source) -> list[Chunk]:
    """Return what comes through clock and repair, to the end."""
    chunks: list[Chunk] = []
    with feed(source) as samples:
        for _ in range(1000):
            try:
                chunk = samples.read(0.05)
            except EndOfStream:
                return chunks
            if chunk is not None:
                chunks.append(chunk)
    pytest.fail("the stream does not end")


@pytest.mark.usefixtures("lsl_session")
def test_a_pause_survives_lsl(tmp_path: Path) -> None:
    """A replay has the same rows, the same indices and the same discontinuity as the file itself."""
    path, name = brainvision(tmp_path), f"tape-{uuid.uuid4().hex[:8]}"
    with Config(path=path).open() as source:
        expected = read_all(source)
    stop = threading.Event()
    with Config(path=path).open() as tape, Player(tape, name=name, speed="max", linger_s=0.3) as player:
        thread = threading.Thread(target=player.run, args=(stop,))
        thread.start()
        try:
            with Lsl(source_id=name).open() as source:
                chunks = read_all(source)
        finally:
            stop.set()
            thread.join()
    for one in (chunks, expected):
        assert [c.index for c in one if c.discontinuity] == [600]
    np.testing.assert_array_equal(*(np.concatenate([c.data for c in one]) for one in (chunks, expected)))


def unnamed(folder: Path) -> Path:
    """Write two channels without names and unit."""
    values = RNG.normal(size=(200, 2)).astype(np.float32)
    stream = {"name": "A", "type": "EEG", "rate": 100, "stamps": 50 + np.arange(200) / 100, "values": values}
    return write_xdf(folder / "a.xdf", [stream])


def test_names_and_unit_can_be_told(tmp_path: Path) -> None:
    """``channels`` and ``unit`` fill in what the file does not say; its values stay."""
    path = unnamed(tmp_path)
    with Config(path=path, channels=("C3", "C4"), unit="mV").open() as source:
        assert (source.info.ch_names, source.info.unit) == (("C3", "C4"), "mV")
        chunk = source.read(0.0)
    assert chunk is not None
    np.testing.assert_array_equal(chunk.data, load(path).data[: len(chunk)])


def test_a_wrong_number_of_names_lists_both(tmp_path: Path) -> None:
    """Names that are not as many as the channels are refused with the names of either."""
    with pytest.raises(RecordingError, match=r"3 names .*\(C3, C4, Cz\).* has 2 channels \(1, 2\)"):
        Config(path=unnamed(tmp_path), channels=("C3", "C4", "Cz")).open()
    with pytest.raises(ValidationError, match="unit"):
        Config(path=tmp_path / "a.xdf", unit="volts")


def test_a_file_that_tells_its_unit_is_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A unit that contradicts the file changes nothing and is said to."""
    path = write_edf(tmp_path / "a.edf", [RNG.integers(-99, 99, (2, 100))], ["C3"])
    with caplog.at_level(logging.WARNING), Config(path=path, unit="V").open() as source:
        assert source.info.unit == "uV"
    assert "unit 'V' is not needed" in caplog.text


@pytest.mark.parametrize("step", [Scale(), Quality()])
def test_a_missing_unit_is_asked_for_where_it_can_be_said(tmp_path: Path, step: Scale | Quality) -> None:
    """The message names the key of the source block, which then helps."""
    path = unnamed(tmp_path)
    with Config(path=path).open() as source, pytest.raises(StreamMismatch, match="Set `unit:` in the source"):
        step.build(source.info)
    for unit in ("uV", 10.0):
        with Config(path=path, unit=unit).open() as source:
            step.build(source.info)
    with pytest.raises(ValidationError, match="greater than 0"):
        Config(path=path, unit=0)
