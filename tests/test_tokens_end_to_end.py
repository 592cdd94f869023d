"""The whole way: a recording over LSL, coded in one session, decoded in another, read as a waveform."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_codec import HOP, N_CODEBOOKS, SFREQ, decoded, write_decoder, write_tokenizer

from engine.config import ListenConfig, TokensConfig, parse_as
from engine.listen import Wave, run_listen
from engine.session import Observer
from engine.token_stream import TokenFrame
from engine.tokens import run_tokens
from streamer.lsl import Drain
from streamer.player import Player
from streamer.sources.recording import Recording, RecordingSource
from streamer.types import StreamInfo

NAMES = ("Fz", "C3", "Cz", "C4", "Pz")
SECONDS, HOLE_AT, HOLE_S = 12, 1500, 0.5
SPEED = 6.0
PATIENCE_S = 20.0


@dataclass
class Sides:
    """What both ends heard and reported."""

    tokens: list[TokenFrame] = field(default_factory=list)
    waves: list[Wave] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    coded: dict[str, Any] = field(default_factory=dict)
    listened: dict[str, Any] = field(default_factory=dict)


def recording() -> Recording:
    """Twelve seconds of noise with half a second missing in the middle."""
    n = int(SECONDS * SFREQ)
    data = (30 * np.random.default_rng(8).normal(size=(n, len(NAMES)))).astype(np.float32)
    times = np.arange(n) / SFREQ
    times[HOLE_AT:] += HOLE_S
    info = StreamInfo("cap", "cap-1", "EEG", SFREQ, NAMES, ("eeg",) * len(NAMES), "uV")
    return Recording(info, data, times, breaks=(HOLE_AT,))


class Tape:
    """A source that is open already, as a config."""

    def open(self) -> RecordingSource:
        return RecordingSource(recording())


def started(pool: ThreadPoolExecutor, run: Callable[..., dict[str, Any]], **options: Any) -> Future[Any]:
    """Start a session in a thread; return when it has said all that comes before the first sample."""
    ready = threading.Event()

    def say(line: str) -> None:
        if line.startswith("delay"):
            ready.set()

    future = pool.submit(run, say=say, **options)
    future.add_done_callback(lambda _: ready.set())
    assert ready.wait(PATIENCE_S)
    if future.done():
        future.result()  # raises what went wrong
    return future


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("codec")
    return write_tokenizer(folder / "tokenizer"), write_decoder(folder / "decoder")


@pytest.fixture(scope="module")
def direct(folders: tuple[Path, Path]) -> list[TokenFrame]:
    """The codes without LSL, at full speed."""
    heard: list[TokenFrame] = []
    raw = {"source": {"kind": "lsl"}, "bundle": str(folders[0]), "lsl": False}
    config = parse_as(TokensConfig, raw, "test").model_copy(update={"source": Tape()})
    report = run_tokens(config, extra=Observer(heard.append))
    assert report["resets"] == 1
    return heard


@pytest.fixture(scope="module")
def sides(folders: tuple[Path, Path], lsl_session: str) -> Sides:
    """Play the recording over LSL, code it in one thread and decode it in another."""
    import pylsl

    uid = uuid.uuid4().hex[:8]
    cap, codes, wave = f"cap-{uid}", f"codes-{uid}", f"wave-{uid}"
    sending = parse_as(
        TokensConfig,
        {"name": codes, "source": {"kind": "lsl", "name": cap}, "bundle": str(folders[0])},
        "test",
    )
    hearing = parse_as(
        ListenConfig,
        {"name": wave, "source": {"name": codes, "recover_s": 0.1}, "bundle": str(folders[1])},
        "test",
    )
    found = Sides()
    with (
        ThreadPoolExecutor(2) as pool,
        RecordingSource(recording()) as source,
        Player(source, name=cap, speed=SPEED) as player,
    ):
        coding = started(pool, run_tokens, config=sending, extra=Observer(found.tokens.append))
        listening = started(pool, run_listen, config=hearing, extra=Observer(found.waves.append))
        (stream,) = pylsl.resolve_byprop("name", wave, timeout=PATIENCE_S)
        inlet = pylsl.StreamInlet(stream, max_buflen=60, recover=False)
        inlet.open_stream(PATIENCE_S)
        found.labels = inlet.info(PATIENCE_S).get_channel_labels()
        reader = Drain(lambda timeout: inlet.pull_chunk(timeout, min_samples=1))
        player.run()
        found.coded = coding.result(PATIENCE_S)
        found.listened = listening.result(PATIENCE_S)
        with contextlib.suppress(pylsl.util.LostError):
            while (fetched := reader.get(1.0)) is not None:
                found.rows += fetched[0]
        reader.close()
    return found


def bare(frames: list[TokenFrame]) -> list[tuple[Any, ...]]:
    return [(f.index, f.frame, f.invalid, *f.values.tolist()) for f in frames]


def offline(frames: list[TokenFrame]) -> np.ndarray:
    """Return what the codes decode to in NumPy, from fresh wherever the count starts again: (T, C)."""
    n_codes = len(NAMES) * N_CODEBOOKS
    starts = [i for i, frame in enumerate(frames) if frame.frame == 0]
    parts = []
    for a, b in zip(starts, [*starts[1:], len(frames)], strict=True):
        values = np.array([frame.values for frame in frames[a:b]])
        parts.append(decoded(values[:, :n_codes].reshape(b - a, len(NAMES), -1), values[:, n_codes:]))
    return np.concatenate(parts)


def test_codes_over_lsl_are_those_of_the_file(sides: Sides, direct: list[TokenFrame]) -> None:
    """Every row that was coded live is the file's; the hole resets once, and nothing else is lost."""
    assert bare(sides.tokens) == bare(direct)
    assert len(direct) == HOLE_AT // HOP + (int(SECONDS * SFREQ) - HOLE_AT) // HOP
    assert sides.coded["resets"] == 1
    assert sides.coded["samples_lost"] == HOLE_S * SFREQ
    assert sides.coded["dropped"] == 0
    assert sides.coded["ended"] == "end of stream"


def test_the_far_end_decodes_what_was_coded(sides: Sides, direct: list[TokenFrame]) -> None:
    """The waveform is that of the codes decoded offline, bit for bit, with the hole where it was."""
    heard = np.concatenate([wave.data for wave in sides.waves])
    assert np.array_equal(heard, offline(direct))
    assert sides.listened["frames"] == len(direct)
    assert (sides.listened["resets"], sides.listened["missing"]) == (1, 0)


def test_the_waveform_is_a_stream_with_the_electrodes_of_the_first_one(sides: Sides) -> None:
    """A third program reads the samples, named as the electrodes are."""
    assert sides.labels == list(NAMES)
    heard = np.concatenate([wave.data for wave in sides.waves])
    received = np.array(sides.rows, dtype=np.float32)
    assert len(received) > 0.9 * len(heard)  # the very end may be gone with the stream
    assert np.array_equal(received, heard[: len(received)])


def test_stamps_survive_the_way(sides: Sides) -> None:
    """Each frame's stamp is that of its last sample, at both ends; the hole is a hole in them."""
    sent = np.array([frame.time for frame in sides.tokens])
    assert np.array_equal([wave.time for wave in sides.waves], sent)
    times = np.concatenate([wave.times for wave in sides.waves])
    steps = np.diff(times)
    assert np.argmax(steps) == HOLE_AT - 1
    assert steps.max() == pytest.approx(HOLE_S + 1 / SFREQ, abs=2e-3)
    assert np.delete(steps, HOLE_AT - 1) == pytest.approx(1 / SFREQ, rel=0.02)
