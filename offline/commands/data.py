"""`bcitrain data`: what recordings there are, and corpora made ready for training at scale."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.output import Output
from offline.commands._bar import bar
from offline.commands._folder import (
    Channels,
    Hold,
    Holes,
    Labels,
    SubjectPattern,
    UvPerCount,
    folder_of,
)
from offline.commands._shared import Json, keeping, need

MARKERS = 6  # of a recording that are listed

app = typer.Typer(help="Lists recordings, and turns them into shards.", no_args_is_help=True)


@app.command("list")
def list_(
    folder: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Folder of recordings, or a table of people: npz, csv, tsv."),
    ],
    subject_pattern: SubjectPattern = None,
    hold: Hold = None,
    uv_per_count: UvPerCount = None,
    holes: Holes = None,
    channels: Channels = None,
    labels: Labels = None,
    json: Json = False,
) -> None:
    """List what a folder of recordings, of any format, or a table of people holds."""
    out = Output(json)
    with out.errors():
        if folder.is_file():
            from offline.data.table_list import entries

            people = entries(folder)
            if json:
                out.document({"table": str(folder), "people": people})
            else:
                out.table(str(folder), people)
            return
        settings = folder_of(subject_pattern, hold, uv_per_count, holes, channels, labels)
        _recordings(out, folder, settings)


def _recordings(out: Output, path: Path, settings: dict[str, Any]) -> None:
    """Show a row per recording of a folder, and say which cannot be read."""
    from offline.data.listing import recordings
    from offline.data.sources import Folder

    with bar(out, "reading recordings") as progress:
        rows, unreadable = recordings(Folder(path=path, **settings), progress)
    if out.json:
        out.document({"folder": str(path), "recordings": rows, "unreadable": unreadable})
        return
    out.table(str(path), [_short(row) for row in rows])
    for one in unreadable:
        out.say(f"{one['recording']} cannot be read: {one['why']}")


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """Return what of a recording fits on a screen, its commonest markers first."""
    shown = {name: row[name] for name in ("subject", "recording", "seconds", "sfreq")}
    kinds = ", ".join(f"{count} {kind}" for kind, count in row["channels"].items())
    common = sorted(row["markers"].items(), key=lambda one: -one[1])
    markers = ", ".join(f"{count} {label}" for label, count in common[:MARKERS])
    return {**shown, "channels": kinds, "markers": markers + ", ..." * (len(common) > MARKERS)}


@app.command()
def prepare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML of the corpus; see configs/.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per processor.")] = None,
    json: Json = False,
) -> None:
    """Turn recordings into shards of preprocessed signal; started again, it goes on where it was stopped."""
    out = Output(json)
    with out.errors():
        need("webdataset")
        from offline.data.prepare import load
        from offline.data.prepare import prepare as run

        settings = load(config)
        with keeping(out, "the subjects that are done are kept. Go on: the same command"):
            report = run(settings, workers=workers, progress=not json, say=out.say)
        out.result(report)
