"""How a folder of recordings is read, as the commands that play one are told it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streamer.errors import ConfigError

SubjectPattern = Annotated[
    str | None, typer.Option(help="Regular expression on a file's path; its first group is the subject.")
]
Hold = Annotated[int | None, typer.Option(min=1, help="Rows for which the recorder repeats each sample.")]
UvPerCount = Annotated[
    float | None,
    typer.Option(min=0, help="µV per step, for recordings that tell no unit; refused where all do."),
]
Holes = Annotated[str | None, typer.Option(help="What becomes of holes: split or repeat.")]
TrialS = Annotated[
    float | None, typer.Option(min=0.1, help="How long trials last whose markers do not say it, s.")
]
Channels = Annotated[list[str] | None, typer.Option(help="A channel's new name, OLD=NEW; may be repeated.")]
Labels = Annotated[list[str] | None, typer.Option(help="A marker's new name, OLD=NEW; may be repeated.")]


def folder_of(
    subject_pattern: str | None,
    hold: int | None,
    uv_per_count: float | None,
    holes: str | None,
    channels: list[str] | None,
    labels: list[str] | None,
) -> dict[str, Any]:
    """Return what was given as ``folder`` of `offline.evaluate.recordings.Options`."""
    return given(
        subject=subject_pattern,
        hold=hold,
        uv_per_count=uv_per_count,
        holes=holes,
        channels=_renamed(channels, "--channels") or None,
        labels=_renamed(labels, "--labels") or None,
    )


def given(**settings: Any) -> dict[str, Any]:
    """Return the settings that are not None."""
    return {name: value for name, value in settings.items() if value is not None}


def _renamed(pairs: list[str] | None, option: str) -> dict[str, str]:
    """Return new names by old ones."""
    names = {}
    for pair in pairs or ():
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise ConfigError(f"{option} takes OLD=NEW, such as T1=left_fist; got {pair!r}.")
        names[old] = new
    return names
