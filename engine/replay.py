"""`bcistream replay`: a recording as a live LSL stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.player import Player
from streamer.sources.recording import Config as Recording


def replay(
    file: Path,
    speed: float | Literal["max"],
    name: str | None,
    stream: str | None,
    wait_s: float,
    *,
    progress: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Play a recording and its markers over LSL; return what was sent."""
    config = Recording(path=file, stream=stream)
    with (
        config.open() as source,
        Player(source, name=name or file.stem, speed=speed, wait_s=wait_s) as player,
    ):
        info = source.info
        say(
            f"stream {player.name!r}: {info.n_chans} {info.stype} channels, {info.sfreq:g} Hz; events as "
            f"'{player.name}-markers'; waiting up to {wait_s:g} s for a listener"
        )
        columns = (
            TextColumn("replay"),
            BarColumn(),
            TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        )
        with Progress(*columns, TimeRemainingColumn(), disable=not progress) as bar:
            task = bar.add_task("replay", total=(source.n_times or 0) / info.sfreq)
            player.run(on_progress=lambda seconds: bar.update(task, completed=seconds))
    return {"stream": player.name, "samples_out": player.samples_out, "markers_out": player.markers_out}
