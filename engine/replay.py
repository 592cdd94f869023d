"""`bcistream replay`: a recording as a live LSL stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from engine.progress import progress_bar
from streamer.player import Player
from streamer.sources.recording import Config as Recording
from streamer.sources.recording import Holes


def replay(
    file: Path,
    speed: float | Literal["max"],
    name: str | None,
    stream: str | None,
    wait_s: float,
    *,
    holes: Holes = "split",
    progress: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Play a recording and its markers over LSL; return what was sent."""
    config = Recording(path=file, stream=stream, holes=holes)
    with (
        config.open() as source,
        Player(source, name=name or file.stem, speed=speed, wait_s=wait_s) as player,
    ):
        info = source.info
        say(
            f"stream {player.name!r}: {info.n_chans} {info.stype} channels, {info.sfreq:g} Hz; events as "
            f"'{player.name}-markers'; waiting up to {wait_s:g} s for a listener"
        )
        with progress_bar("replay", progress) as bar:
            player.run(on_progress=lambda seconds: bar(seconds, source.seconds))
    return {"stream": player.name, "samples_out": player.samples_out, "markers_out": player.markers_out}
