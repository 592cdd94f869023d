"""The contract of every source found in ``streamer.sources``.

A new kind needs one entry in `FACTORIES`: a context manager that opens a tiny instance with something to
read.  It gets pytest's ``request``, for fixtures such as ``lsl_session``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from streamer.components import modules
from streamer.errors import EndOfStream
from streamer.sources import Source, SourceConfig, brainflow, lsl, synthetic
from streamer.sources.recording import Recording, RecordingSource
from streamer.types import Chunk, Marker, StreamInfo

KINDS = modules("streamer.sources")
ENOUGH, PATIENCE, TIMEOUT_S = 5, 400, 0.05  # chunks to look at, reads until they are there, one read's wait


@contextmanager
def open_recording(request: pytest.FixtureRequest) -> Iterator[Source]:
    """Open a made-up recording of one second with a hole and two markers."""
    info = StreamInfo("made-up", "made-up-1", "EEG", 100.0, ("C3", "C4"), ("eeg", "eeg"), "uV")
    data = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    times = np.arange(100) / 100 + 0.5 * (np.arange(100) >= 43)
    with RecordingSource(Recording(info, data, times, (43,), (Marker(0.1, "a"), Marker(0.9, "b")))) as source:
        yield source


@contextmanager
def open_synthetic(request: pytest.FixtureRequest) -> Iterator[Source]:
    """Open a simulated subject of two electrodes, as fast as it is read."""
    with synthetic.Config(speed="max", sfreq=100.0, ch_names=("C3", "C4"), seconds=20.0).open() as source:
        yield source


@contextmanager
def open_lsl(request: pytest.FixtureRequest) -> Iterator[Source]:
    """Open a stream of this machine into which ten samples are pushed every few milliseconds."""
    request.getfixturevalue("lsl_session")
    import pylsl

    outlet = pylsl.StreamOutlet(pylsl.StreamInfo("contract", "EEG", 2, 250.0, "float32", "contract-1"))
    stop = threading.Event()

    def push() -> None:
        while not stop.wait(0.005):
            outlet.push_chunk(np.ones((10, 2), dtype=np.float32))

    pusher = threading.Thread(target=push)
    pusher.start()
    try:
        with lsl.Config(source_id="contract-1").open() as source:
            yield source
    finally:
        stop.set()
        pusher.join()


@contextmanager
def open_brainflow(request: pytest.FixtureRequest) -> Iterator[Source]:
    """Open BrainFlow's synthetic board."""
    with brainflow.Config(board="SYNTHETIC_BOARD").open() as source:
        yield source


Factory = Callable[[pytest.FixtureRequest], AbstractContextManager[Source]]
FACTORIES: dict[str, Factory] = {
    "brainflow": open_brainflow,
    "lsl": open_lsl,
    "recording": open_recording,
    "synthetic": open_synthetic,
}


def read(source: Source, n_chunks: int = ENOUGH) -> list[Chunk]:
    """Return the first chunks, fewer where the source ends; fails when none comes."""
    chunks: list[Chunk] = []
    for _ in range(PATIENCE):
        try:
            chunk = source.read(TIMEOUT_S)
        except EndOfStream:
            break
        if chunk is not None:
            chunks.append(chunk)
        if len(chunks) == n_chunks:
            break
    assert chunks, "nothing came"
    return chunks


@pytest.fixture(params=sorted(KINDS))
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """Open each kind in turn."""
    if request.param not in FACTORIES:
        pytest.fail(f"source {request.param!r} has no factory: add one to FACTORIES")
    with FACTORIES[request.param](request) as opened:
        yield opened


def test_every_kind_has_a_factory() -> None:
    """Every module in the slot is opened by this suite, and the suite names no other."""
    assert set(FACTORIES) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_config_says_its_kind(kind: str) -> None:
    """A source's config is frozen, refuses unknown keys, and its kind is the name of its module."""
    config = KINDS[kind].Config
    assert issubclass(config, SourceConfig)
    assert config.model_fields["kind"].default == kind
    assert "open" in vars(config)
    with pytest.raises(ValidationError, match="no_such_key"):
        config(no_such_key=1)


def test_chunks_are_well_formed(source: Source) -> None:
    """Chunks are float32 rows of the stream's channels, each with a time and a verdict."""
    for chunk in read(source):
        assert chunk.data.dtype == np.float32
        assert chunk.data.shape == (len(chunk), source.info.n_chans)
        assert chunk.times.dtype == np.float64
        assert chunk.times.shape == (len(chunk),)
        assert chunk.valid.dtype == np.bool_
        assert chunk.valid.shape == (len(chunk),)
        assert np.all(np.isfinite(chunk.times))


def test_index_never_goes_back(source: Source) -> None:
    """A chunk starts where the last one ended or after it: missing samples are missing indices."""
    for before, after in pairwise(read(source)):
        assert after.index >= before.index + len(before)


def test_info_is_constant(source: Source) -> None:
    """What the stream says of itself at the start holds while it is read."""
    info = source.info
    read(source)
    assert source.info == info
    assert isinstance(source.live, bool)


def test_chunks_are_not_written_to_later(source: Source) -> None:
    """A chunk that is kept does not change when more is read."""
    (first,) = read(source, 1)
    kept = first.data.copy(), first.times.copy()
    read(source, 2)
    np.testing.assert_array_equal(first.data, kept[0])
    np.testing.assert_array_equal(first.times, kept[1])


def test_no_time_to_wait_is_no_error(source: Source) -> None:
    """A read that may not wait returns a chunk or None."""
    chunk = source.read(0.0)
    assert chunk is None or isinstance(chunk, Chunk)


def test_markers_are_in_time_order(source: Source) -> None:
    """Markers are known at any time and sorted."""
    read(source)
    times = [marker.time for marker in source.markers()]
    assert times == sorted(times)


def test_close_twice(source: Source) -> None:
    """Closing again, or leaving the context after closing, does nothing."""
    read(source, 1)
    source.close()
    source.close()
    with source:
        pass
