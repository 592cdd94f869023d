"""Sinks that share a name, a file or a terminal that is gone."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from streamer.sinks.console import ConsoleSink
from streamer.sinks.jsonl import Config as Jsonl
from streamer.sinks.lsl import Config as Lsl
from streamer.types import Decision, DecisionInfo, StreamInfo

SOURCE = StreamInfo("cap", "cap-1", "EEG", 250.0, ("C3", "C4"), ("eeg", "eeg"), "uV")
LEFT = Decision(1000, 17.25, (0.7, 0.3), "left", 0.7, True)


def run_info() -> DecisionInfo:
    """Describe a run of a name that nobody else has."""
    return DecisionInfo(f"run-{uuid.uuid4().hex[:8]}", ("left", "right"), 16.0, SOURCE, {"bundle": "toy 2"})


@pytest.mark.usefixtures("lsl_session")
def test_a_second_stream_of_decisions_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A run whose stream's id is taken says that readers cannot tell the two apart; others say nothing."""
    info = run_info()
    with caplog.at_level(logging.WARNING), Lsl().open(info) as first:
        first._look.join()
        with Lsl(name=f"{info.name}-other").open(info):
            pass  # closing waits for the look
        assert not caplog.messages
        with Lsl().open(info):
            pass
        (message,) = caplog.messages
    assert f"'{info.name}-decisions'" in message
    assert "cannot tell" in message


def test_a_stream_has_a_name() -> None:
    """An empty name is refused when the configuration is read."""
    with pytest.raises(ValidationError, match="at least 1 character"):
        Lsl(name="")


def test_each_run_has_a_header(tmp_path: Path) -> None:
    """Before the decisions of a run one line says whose they are; equal runs write equal files."""
    path, info = tmp_path / "decisions.jsonl", run_info()
    for _ in range(2):
        with Jsonl(path=path).open(info) as sink:
            sink.write(LEFT)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0] == {"run": info.name, "bundle": "toy 2", "classes": ["left", "right"], "source": "cap"}
    assert rows[1]["index"] == 1000
    assert rows[2:] == rows[:2]


class Gone(io.StringIO):
    """A terminal that was closed."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.tries, self._error = 0, error

    def write(self, text: str) -> int:
        self.tries += 1
        raise self._error

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("code", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_a_terminal_that_is_gone_ends_the_display_only(
    code: int, terminal: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the system says to writing, bars or lines, the session goes on and the log says it once."""
    out = Gone(OSError(code, os.strerror(code)))
    shown = Console(file=out, force_terminal=terminal)
    with caplog.at_level(logging.WARNING), ConsoleSink(run_info(), console=shown) as sink:
        for i in range(5):
            sink.write(replace(LEFT, time=20.0 + i, label=("left", "right")[i % 2]))
            if sink._live is not None:
                sink._live.refresh()
    assert len(caplog.messages) == 1
    assert os.strerror(code) in caplog.messages[0]
    assert out.tries == 1
