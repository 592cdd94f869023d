"""What the console sink does beyond the contract of sinks."""

from __future__ import annotations

import io
import uuid
from dataclasses import replace

from rich.console import Console

from streamer.sinks.console import ConsoleSink
from streamer.types import Decision, DecisionInfo, StreamInfo

PATIENCE_S = 10.0
SOURCE = StreamInfo("cap", "cap-1", "EEG", 250.0, ("C3", "C4"), ("eeg", "eeg"), "uV")
LEFT = Decision(1000, 17.25, (0.7, 0.3), "left", 0.7, True)
NONE = replace(LEFT, index=1016, time=17.3, label=None)


def run_info() -> DecisionInfo:
    """Describe a run of a name that nobody else has."""
    return DecisionInfo(f"run-{uuid.uuid4().hex[:8]}", ("left", "right"), 16.0, SOURCE, {"bundle": "toy"})


def test_lines_where_there_is_no_terminal() -> None:
    """Into a pipe goes a line for each change of the label, at most so many a second, without markup."""
    out = io.StringIO()
    with ConsoleSink(run_info(), rate=10.0, console=Console(file=out, width=200)) as sink:
        for decision in (LEFT, replace(LEFT, time=17.3), replace(NONE, time=17.31), replace(NONE, time=17.5)):
            sink.write(decision)
        sink.write(replace(LEFT, time=18.0, valid=False, label="right"))
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["0.00 s", "left"],
        ["0.25 s", "no decision"],
        ["0.75 s", "not valid"],
    ]
    assert "left 0.70  right 0.30" in lines[0]


def test_bars_on_a_terminal() -> None:
    """A terminal shows a bar per class and the newest decision, and is left clean."""
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=80)
    with ConsoleSink(run_info(), console=terminal) as sink:
        terminal.print(sink._table())
        sink.write(LEFT)
        terminal.print(sink._table())
        sink.write(replace(LEFT, time=LEFT.time + 3.0, probabilities=(float("nan"), 0.5)))
        terminal.print(sink._table())
    shown = out.getvalue()
    assert "waiting for the first decision" in shown
    assert "●" in shown
    assert "0.70" in shown
    assert "3.0 s" in shown
