"""LSL streams that do not answer, that are only looked at, that end before their time."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pylsl
import pytest
from live import ScriptedSource, every, info, record

from streamer import lsl
from streamer.errors import EndOfStream, StreamLost, StreamNotFound
from streamer.lsl import LslMarkers, find, predicate
from streamer.lsl_info import Replay, marker_info, tell_replay, to_lsl
from streamer.player import Player
from streamer.sources.lsl import Config, LslSource

PATIENCE_S = 10.0  # never waited for in full

pytestmark = pytest.mark.usefixtures("lsl_session")


@pytest.fixture
def name() -> str:
    """Return a name that nobody else has."""
    return f"quiet-{uuid.uuid4().hex[:8]}"


def silent(error: type[Exception]) -> Callable[..., Any]:
    """Return a call to a sender that does not answer."""

    def call(*_: object, **__: object) -> Any:
        raise error("the operation failed")

    return call


@pytest.mark.parametrize("error", [pylsl.util.TimeoutError, pylsl.util.LostError])
@pytest.mark.parametrize("call", ["open_stream", "info"])
def test_a_stream_that_does_not_answer_is_not_found(
    monkeypatch: pytest.MonkeyPatch, name: str, call: str, error: type[Exception]
) -> None:
    """Found and yet silent, samples or markers, is one message that names the ports and the sender."""
    outlet, markers = (
        pylsl.StreamOutlet(to_lsl(info(name=name))),
        pylsl.StreamOutlet(marker_info(f"{name}-m")),
    )
    monkeypatch.setattr(pylsl.StreamInlet, call, silent(error))
    told = f"found.*{name}.*does not answer: is TCP 16572-16604 open in the firewall, is the sender frozen"
    with pytest.raises(StreamNotFound, match=told):
        Config(name=name).open()
    if call == "open_stream":
        with pytest.raises(StreamNotFound, match=told):
            LslMarkers(f"{name}-m", PATIENCE_S)
    else:
        with pytest.raises(StreamNotFound, match=told):
            Config(name=name).look()
    del outlet, markers


def test_the_wait_for_a_stream_can_be_broken_off(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The wait comes back to Python at least four times a second, where Ctrl-C is answered."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(lsl.time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        find(predicate(name=name), PATIENCE_S)
    assert max(pauses) <= 0.25


def test_looking_does_not_subscribe(name: str) -> None:
    """A look returns what opening would, and a replay that waits for its reader goes on waiting."""
    tape = ScriptedSource(every(record(100), 10), live=False)
    tape.n_times = 100
    stop = threading.Event()
    with Player(tape, name=name, wait_s=PATIENCE_S, speed="max", linger_s=0) as player:
        thread = threading.Thread(target=player.run, args=(stop,))
        thread.start()
        try:
            looked = Config(source_id=name, channels=("a", "b", "c"), unit="mV").look()
            assert not player._samples.wait_for_consumers(0.2)
        finally:
            stop.set()
            thread.join()
    assert player.samples_out == 0
    assert (looked.name, looked.ch_names, looked.unit) == (name, ("a", "b", "c"), "mV")


def read_on(source: LslSource) -> int:
    """Read until the stream ends; return the number of rows."""
    rows = 0
    for _ in range(500):
        try:
            chunk = source.read(0.05)
        except EndOfStream:
            return rows
        rows += len(chunk) if chunk is not None else 0
    pytest.fail("the stream does not end")


def goes_away(name: str, speed: float) -> LslSource:
    """Return a source of a replay of 100 samples that is gone after 30, all read."""
    described = to_lsl(info(name=name))
    tell_replay(described, Replay(speed, 100))
    outlet = pylsl.StreamOutlet(described)
    source = Config(name=name, recover_s=3600).open()
    outlet.push_chunk(record(30).data)
    rows = 0
    while rows < 30:
        chunk = source.read(PATIENCE_S)
        assert chunk is not None
        rows += len(chunk)
    return source


@pytest.mark.parametrize("speed", [1.0, float("inf")])
def test_a_replay_that_is_stopped_is_lost(name: str, speed: float) -> None:
    """A player that is killed is gone right after a sample: what is missing is said, and nobody waits."""
    with goes_away(name, speed) as source:
        with pytest.raises(StreamLost, match=f"{name}' is lost: 70 of its 100 samples did not come"):
            read_on(source)
        with pytest.raises(StreamLost, match="closed"):
            source.read(0.0)
        assert source.n_times == 100


@pytest.mark.parametrize("speed", [1.0, float("inf")])
def test_a_replay_that_was_joined_late_is_over(
    name: str, speed: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Gone some time after its last sample it ended as it should; what its reader missed is said, once."""
    with goes_away(name, speed) as source:
        source._heard -= 2.0  # as long as a player stays at its end
        with caplog.at_level(logging.WARNING):
            assert read_on(source) == 0
            with pytest.raises(EndOfStream, match=name):
                source.read(0.0)
        assert source.n_times == 100
    (message,) = caplog.messages
    assert "70 of its 100 samples did not come: it was joined late" in message
