"""Decisions on the terminal."""

from __future__ import annotations

import io
import logging
import math
from typing import IO, TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field

from streamer.errors import ConfigError
from streamer.sinks import SinkConfig
from streamer.types import Decision, DecisionInfo

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

log = logging.getLogger(__name__)

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

    def of_stream(self, name: str) -> Self:
        """Refuse: several displays would write over each other."""
        raise ConfigError("A console sink shows one stream: take it out of a run of several.")


class ConsoleSink:
    """A bar per class that moves; plain lines where the output is no terminal.

    Times are seconds since the first decision.  Writes to standard error, which leaves standard output to
    ``--json``.  It is a display: it shows the newest decision at its own rate.  Drawing takes a millisecond
    and has a thread of its own, so that `write` only stores the decision.  Without a terminal a line is
    printed when the label changes.  When the terminal is gone (a pipe closed, a disk full) the display ends,
    and the session does not.

    Parameters
    ----------
    info : DecisionInfo
        What is shown.
    rate : float
        Screen updates, or lines, per second, at most.
    console : rich.console.Console, optional
        Where to; for tests.

    Attributes
    ----------
    lost : int
        0: a display keeps nothing.
    """

    def __init__(self, info: DecisionInfo, rate: float = 10.0, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._info = info
        self._pause = 1 / rate
        self._newest: Decision | None = None
        self._began: float | None = None
        self._shown: str | None = ""
        self._shown_at = -math.inf
        self.lost = 0
        self._console = console or Console(stderr=True, highlight=False)
        self._console.file = _Terminal(self._console.file)  # type: ignore[assignment]
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._table, refresh_per_second=rate, transient=True
            )
            self._live.start()

    def write(self, decision: Decision) -> None:
        """Show this decision next."""
        self._newest = decision
        if self._began is None:
            self._began = decision.time
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
        self._console.print(
            f"{decision.time - (self._began or 0.0):.2f} s  {_word(decision)}  {shares}", markup=False
        )

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
        table.add_row("", _word(decision), f"{decision.time - (self._began or 0.0):.1f} s", "")
        return table


class _Terminal(io.TextIOBase):
    """A text file that takes everything; what it cannot pass on any more it drops, and says so once."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._gone = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the file behind."""
        return getattr(self._file, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Say whether it is a terminal."""
        return self._file.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the file behind."""
        return self._file.fileno()

    def write(self, text: str) -> int:
        """Pass the text on."""
        if not self._gone:
            try:
                self._file.write(text)
            except OSError as error:
                self._end(error)
        return len(text)

    def flush(self) -> None:
        """Pass on what is held back."""
        if not self._gone:
            try:
                self._file.flush()
            except OSError as error:
                self._end(error)

    def _end(self, error: OSError) -> None:
        self._gone = True
        log.warning("decisions can no longer be shown (%s): the session goes on without", error.strerror)


def _word(decision: Decision) -> str:
    if not decision.valid:
        return "not valid"
    return decision.label or "no decision"
