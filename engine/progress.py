"""How far a recording is played, for the person at the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Played = Callable[[float, float], None]  # seconds played, seconds in all


def unseen(_played: float, _total: float) -> None:
    """Show nothing."""


@contextmanager
def progress_bar(what: str, shown: bool) -> Iterator[Played]:
    """Yield what draws a bar on standard error; it draws nothing before it is called, or unless ``shown``."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda played, total: bar.update(task, completed=played, total=total, visible=True)
