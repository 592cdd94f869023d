"""Decisions on the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field

from streamer.sinks import SinkConfig
from streamer.types import Decision, DecisionInfo

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BAR_WIDTH = 24


class Config(SinkConfig):
    """Show decisions on the terminal.

    Attributes
    ----------
    rate : float
        Screen updates per second, at most.
    """

    kind: Literal["console"] = "console"
    rate: Annotated[float, Field(gt=0, le=60)] = 10.0

    def open(self, info: DecisionInfo) -> ConsoleSink:
        """Start the display."""
        return ConsoleSink(info, self.rate)


class ConsoleSink:
    """A bar per class that moves; plain lines where the output is no terminal.

    Writes to standard error, which leaves standard output to ``--json``.  It is a display: it shows the
    newest decision at its own rate.  Drawing takes a millisecond and has a thread of its own, so that
    `write` only stores the decision.  Without a terminal a line is printed when the label changes.

    Parameters
    ----------
    info : DecisionInfo
        What is shown.
    rate : float
        Screen updates, or lines, per second, at most.
    console : rich.console.Console, optional
        Where to; for tests.
    """

    def __init__(self, info: DecisionInfo, rate: float = 10.0, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._info = info
        self._pause = 1 / rate
        self._newest: Decision | None = None
        self._shown: str | None = ""
        self._shown_at = -math.inf
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._table, refresh_per_second=rate, transient=True
            )
            self._live.start()

    def write(self, decision: Decision) -> None:
        """Show this decision next."""
        self._newest = decision
        if self._live is None and decision.label != self._shown:
            self._print(decision)

    def close(self) -> None:
        """End the display; may be called twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _print(self, decision: Decision) -> None:
        if decision.time < self._shown_at + self._pause:
            return
        self._shown, self._shown_at = decision.label, decision.time
        shares = "  ".join(
            f"{name} {share:.2f}"
            for name, share in zip(self._info.classes, decision.probabilities, strict=True)
        )
        self._console.print(f"{decision.time:.2f} s  {_word(decision)}  {shares}", markup=False)

    def _table(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table.grid(padding=(0, 1))
        decision = self._newest
        if decision is None:
            table.add_row(f"{self._info.name}: waiting for the first decision")
            return table
        for name, share in zip(self._info.classes, decision.probabilities, strict=True):
            full = share if math.isfinite(share) else 0.0
            mark = "●" if name == decision.label else " "
            table.add_row(mark, name, ProgressBar(total=1.0, completed=full, width=BAR_WIDTH), f"{share:.2f}")
        table.add_row("", _word(decision), f"{decision.time:.1f} s", "")
        return table


def _word(decision: Decision) -> str:
    if not decision.valid:
        return "not valid"
    return decision.label or "no decision"
