"""A progress bar on standard error for commands that go through a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.output import Output

Progress = Callable[[str, int, int], None]


@contextmanager
def bar(out: Output, title: str) -> Iterator[Progress]:
    """Yield what takes (what is being done, done, total); nothing is shown when the output is for scripts."""
    if out.json:
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None)

        def progress(what: str, done: int, total: int) -> None:
            shown.update(task, completed=done, total=total, description=what or title)

        yield progress
