"""What the person who calibrates sees in the terminal: what to do, for how long yet, and how far it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from engine.cues import Show

WIDTH = 30


@contextmanager
def prompt(shown: bool) -> Iterator[Show]:
    """Yield what shows a step of `engine.cues`; it says nothing unless ``shown``."""
    if not shown:
        yield lambda words, left, done: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield lambda words, left, done: live.update(Text(line(words, left, done)), refresh=True)


def line(words: str, left: float, done: float) -> str:
    """Return the line; ``left`` in seconds, ``done`` a share."""
    filled = round(WIDTH * min(max(done, 0.0), 1.0))
    return f"{words.upper():<28} {math.ceil(left):>3} s   {'█' * filled}{'·' * (WIDTH - filled)} {done:.0%}"
