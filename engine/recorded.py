"""`--file`: a recording in the place of the source that a YAML names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from streamer.errors import ConfigError, RecordingError
from streamer.sources import SourceConfig

if TYPE_CHECKING:
    from engine.config import SignalConfig
    from streamer.sources.recording import Config as Recording

log = logging.getLogger(__name__)
Taking = TypeVar("Taking", bound="SignalConfig")
Holes = Literal["split", "repeat"]
PACE = {"speed", "chunk"}  # of a source itself, not of its signal


def from_file(
    settings: Taking,
    file: Path | None,
    speed: str | None = None,
    chunk: int | None = None,
    holes: Holes | None = None,
) -> Taking:
    """Return the settings with a recording as their source, if one is given.

    Parameters
    ----------
    speed, chunk, holes : optional
        What is said beside ``file``, and goes before what the source block says.

    Raises
    ------
    ConfigError
        Something is said beside a file that is not given.
    """
    pace = None if speed is None else parse_speed(speed)
    options = {"speed": pace, "chunk": chunk, "holes": holes}
    given = {key: value for key, value in options.items() if value is not None}
    if file is None:
        if given:
            raise ConfigError(
                "--speed, --chunk and --holes go with --file; a source has its own in the YAML, or none."
            )
        return settings
    return settings.model_copy(update={"source": recording_for(settings.source, file, given)})


def recording_for(source: SourceConfig, file: Path, given: dict[str, Any]) -> Recording:
    """Return the recording of this file, with what the block of the source that it stands for tells.

    Of another recording that is all but its path; of any other kind, what is said of the signal: its unit,
    the board that it came from, and the names of its channels, unless the file names its electrodes itself.
    """
    from streamer.sources.recording import Config as Recording

    told = {key: getattr(source, key) for key in source.model_fields_set if key in Recording.model_fields}
    if not isinstance(source, Recording):
        told = {key: value for key, value in told.items() if key not in PACE} | _board(source, file)
        if "channels" in told and "board_id" not in told and _named(file):
            log.warning("%s names its electrodes itself: 'channels' of the source block is left out", file)
            del told["channels"]
    return Recording.model_validate(told | {"kind": "recording", "path": file} | given)


def parse_speed(text: str) -> float | Literal["max"]:
    """Return a positive factor or ``"max"``; ConfigError otherwise."""
    if text == "max":
        return "max"
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise ConfigError(f"--speed is a positive number or 'max', not {text!r}.")
    return factor


def _named(file: Path) -> bool:
    """Say whether a file tells where its channels were."""
    from streamer.montage import located
    from streamer.sources.recording import load

    try:
        return any(located(name) for name in load(file).info.ch_names)
    except RecordingError:
        return False  # opening it will say what is wrong


def _board(source: SourceConfig, file: Path) -> dict[str, int]:
    """Return the number of the board behind rows of BrainFlow, which do not tell it themselves."""
    from streamer.sources.brainflow import Config as BrainFlow
    from streamer.sources.recording import of_brainflow

    if not isinstance(source, BrainFlow) or not of_brainflow(file):
        return {}
    return {"board_id": source.board_id}
