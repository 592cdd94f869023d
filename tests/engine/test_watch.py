"""What happens to a stream is said once, in words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engine.watch import Watch
from streamer.acquire import StreamCounters


class Watched:
    """A feed and a pipeline of which only what is watched exists."""

    def __init__(self) -> None:
        self.counters = StreamCounters()
        self.bad_channels: dict[str, str] = {}
        self.bad_s: dict[str, dict[str, float]] = {}
        self.info = SimpleNamespace(sfreq=160.0, unit="uV", name="cap")
        self.hop_s = 0.0625


def test_each_fault_is_said_once() -> None:
    """Counters that rose and channels that turned bad give one line each; a second look gives none."""
    lines: list[str] = []
    both: Any = Watched()
    watch = Watch(both, both, lines.append)
    watch.look(0.0, 4)
    assert lines == []
    both.counters = replace(both.counters, samples_lost=40, non_finite=3)
    both.bad_channels = {"C4": "railed", "C3": "flat"}
    watch.look(2.0, 4)
    watch.look(4.0, 4)
    assert len(lines) == 3
    assert lines[0].startswith("40 samples lost")
    assert lines[1].startswith("3 values that were not finite")
    assert lines[2] == "bad channels: C3 (flat), C4 (railed)"
    both.bad_channels = {}
    watch.look(6.0, 4)
    assert lines[3:] == ["all channels are good again"]


def test_the_unit_is_doubted_once() -> None:
    """Channels that are too large come and go with each movement; what to do about it is said once."""
    lines: list[str] = []
    both: Any = Watched()
    watch = Watch(both, both, lines.append)
    for now, bad in enumerate(({"C3": "too large"}, {}, {"C3": "too large", "C4": "too large"})):
        both.bad_channels = bad
        watch.look(2.0 * now, 4)
    assert sum(line.startswith("bad channels: ") for line in lines) == 2
    assert sum("is uV the unit of 'cap'?" in line for line in lines) == 1


def test_a_burst_is_one_line() -> None:
    """Within a second of the last look nothing is said; then everything at once."""
    lines: list[str] = []
    both: Any = Watched()
    watch = Watch(both, both, lines.append)
    for i in range(1, 11):
        both.counters = replace(both.counters, repaired=i)
        watch.look(i / 10 - 0.1, 4)
    assert lines == ["1 missing samples bridged"]
    watch.look(1.2, 4)
    assert lines[1:] == ["9 missing samples bridged"]


def test_a_file_is_looked_at_once_a_second_of_signal() -> None:
    """However fast it is played; what was wrong between two looks is said too, and nothing twice."""
    lines: list[str] = []
    both: Any = Watched()
    watch = Watch(both, both, lines.append, live=False)
    for _ in range(10):  # half a second of signal each, in no time
        watch.look(0.0, 80)
        both.bad_s = {"C4": {"flat": 1.0}}
    assert lines == ["bad channels: C4 (flat)"]
    both.bad_s = {"C4": {"flat": 2.0, "railed": 1.0}, "C3": {"flat": 1.0}}
    watch.look(0.0, 160)
    assert lines[1:] == ["bad channels: C3 (flat), C4 (railed)"]


@pytest.mark.parametrize(("rows", "told"), [(10, 0), (5, 0), (1, 0), (4, 1), (32, 1)])
def test_chunks_that_do_not_divide_the_hop_are_told_once(rows: int, told: int) -> None:
    """A hop of 10 samples waits for the rest of a chunk of 4 or 32, not of 10, 5 or 1."""
    lines: list[str] = []
    both: Any = Watched()
    watch = Watch(both, both, lines.append)
    for i in range(200):
        watch.look(i / 10, rows)
    assert len(lines) == told
