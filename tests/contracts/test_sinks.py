"""The contract of every sink found in ``streamer.sinks``.

A new kind needs one entry in `FACTORIES`: a context manager that opens a sink, and yields it with a function
that returns what arrived at the other end, or None for a display, which may leave decisions out.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from streamer.components import modules
from streamer.sinks import Sink, SinkConfig, console, jsonl, lsl
from streamer.types import Decision, DecisionInfo, StreamInfo

KINDS = modules("streamer.sinks")
SOURCE = StreamInfo("cap", "cap-1", "EEG", 250.0, ("C3", "C4"), ("eeg", "eeg"), "uV")
CLASSES = ("left_fist", "right_fist", "rest")
PATIENCE_S = 10.0

Received = Callable[[int], list[Decision]] | None
Opened = tuple[Sink, Received]


def run_info() -> DecisionInfo:
    """Describe a run of a name that nobody else has."""
    return DecisionInfo(f"run-{uuid.uuid4().hex[:8]}", CLASSES, 16.0, SOURCE, {"bundle": "toy"})


@contextmanager
def open_lsl(request: pytest.FixtureRequest, path: Path) -> Iterator[Opened]:
    """Open the sink and an inlet on its stream."""
    request.getfixturevalue("lsl_session")
    import pylsl

    info = run_info()
    with lsl.Config().open(info) as sink:
        (found,) = pylsl.resolve_byprop("name", info.name, timeout=PATIENCE_S)
        inlet = pylsl.StreamInlet(found, recover=False)
        inlet.open_stream(PATIENCE_S)
        heard: list[Decision] = []

        def received(n: int) -> list[Decision]:
            while len(heard) < n:
                rows, stamps = inlet.pull_chunk(PATIENCE_S, min_samples=1)
                assert rows, f"{len(heard)} of {n} decisions came"
                heard.extend(from_sample(row, stamp) for row, stamp in zip(rows, stamps, strict=True))
            return heard

        yield sink, received


def from_sample(row: list[float], stamp: float) -> Decision:
    """Return the decision that a sample of the LSL stream stands for."""
    *shares, number, confidence, valid, index = row
    label = None if number < 0 else CLASSES[int(number)]
    return Decision(int(index), stamp, tuple(shares), label, confidence, bool(valid))


@contextmanager
def open_jsonl(request: pytest.FixtureRequest, path: Path) -> Iterator[Opened]:
    """Open the sink on a file and read it back."""
    file = path / f"{uuid.uuid4().hex}.jsonl"

    def received(n: int) -> list[Decision]:
        _, *rows = [json.loads(line) for line in file.read_text().splitlines()]
        return [Decision(**{**row, "probabilities": tuple(row["probabilities"].values())}) for row in rows]

    with jsonl.Config(path=file).open(run_info()) as sink:
        yield sink, received


@contextmanager
def open_console(request: pytest.FixtureRequest, path: Path) -> Iterator[Opened]:
    """Open the sink on a terminal that nobody sees."""
    terminal = Console(file=io.StringIO(), force_terminal=True)
    with console.ConsoleSink(run_info(), console=terminal) as sink:
        yield sink, None


Factory = Callable[[pytest.FixtureRequest, Path], AbstractContextManager[Opened]]
FACTORIES: dict[str, Factory] = {"console": open_console, "jsonl": open_jsonl, "lsl": open_lsl}

share = st.floats(0, 1)
decisions = st.lists(
    st.builds(
        Decision,
        index=st.integers(0, 2**53),
        time=st.floats(1.0, 1e9),
        probabilities=st.tuples(share, share, share),
        label=st.sampled_from([*CLASSES, None]),
        confidence=share,
        valid=st.booleans(),
    ),
    max_size=20,
)


@pytest.fixture(params=sorted(KINDS))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Open each kind in turn."""
    if request.param not in FACTORIES:
        pytest.fail(f"sink {request.param!r} has no factory: add one to FACTORIES")
    with FACTORIES[request.param](request, tmp_path) as both:
        yield both


def test_every_kind_has_a_factory() -> None:
    """Every module in the slot is opened by this suite, and the suite names no other."""
    assert set(FACTORIES) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_config_says_its_kind(kind: str) -> None:
    """A sink's config is frozen, refuses unknown keys, and its kind is the name of its module."""
    config = KINDS[kind].Config
    assert issubclass(config, SinkConfig)
    assert config.model_fields["kind"].default == kind
    assert "open" in vars(config)
    with pytest.raises(ValidationError, match="no_such_key"):
        config(no_such_key=1)


@given(sent=decisions)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_decision_is_lost_or_changed(opened: Opened, sent: list[Decision]) -> None:
    """What is written arrives, complete, in order and to the bit; displays at least take it."""
    sink, received = opened
    before = len(received(0)) if received else 0
    for decision in sent:
        sink.write(decision)
    if received:
        assert received(before + len(sent))[before:] == sent


def test_what_is_lost_is_counted(opened: Opened) -> None:
    """Every sink says how many decisions it could not keep: none so far."""
    sink, _ = opened
    assert sink.lost == 0


def test_figures_that_are_no_numbers_are_taken(opened: Opened) -> None:
    """A decision gone wrong does not take the run down."""
    sink, _ = opened
    nan = float("nan")
    sink.write(Decision(0, 1.0, (nan, nan, nan), None, nan, False))


def test_close_twice(opened: Opened) -> None:
    """Closing again, or leaving the context after closing, does nothing; no decision need have come."""
    sink, _ = opened
    sink.close()
    sink.close()
    with sink as same:
        assert same is sink


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_description_is_not_changed(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink leaves what it is opened with as it is."""
    request.getfixturevalue("lsl_session")
    monkeypatch.chdir(tmp_path)
    info = run_info()
    before = repr(info)
    config = KINDS[kind].Config(**({"path": "decisions.jsonl"} if kind == "jsonl" else {}))
    with config.open(info) as sink:
        sink.write(Decision(5, 1.0, (0.2, 0.3, 0.5), "rest", 0.5, True))
    assert repr(info) == before
    np.testing.assert_array_equal(info.classes, CLASSES)
