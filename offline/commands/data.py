"""`bcitrain data`: what recordings there are, and corpora made ready for training at scale."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.output import EXIT_INTERRUPTED, Output
from offline.commands._shared import Json, need

app = typer.Typer(help="Lists recordings, and turns them into shards.", no_args_is_help=True)


@app.command("list")
def list_(
    folder: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Folder of recordings, or a table of people: npz, csv, tsv."),
    ],
    json: Json = False,
) -> None:
    """List what a folder of recordings or a table of people holds."""
    out = Output(json)
    with out.errors():
        from offline.data.corpus import Corpus, read

        if folder.is_file():
            from offline.data.table_list import entries

            people = entries(folder)
            if json:
                out.document({"table": str(folder), "people": people})
            else:
                out.table(str(folder), people)
            return
        corpus = Corpus(folder)
        rows = [
            {
                "subject": subject,
                "recording": recording.name,
                "seconds": round(len(recording) / recording.info.sfreq, 1),
                "sfreq": recording.info.sfreq,
                "n_chans": recording.info.n_chans,
                "task": recording.meta.get("task"),
                "events": len(recording.markers),
                "fingerprint": recording.fingerprint,
            }
            for subject in corpus.subjects
            for recording in map(read, corpus.files(subject))
        ]
        if json:
            out.document({"folder": str(folder), "recordings": rows})
        else:
            out.table(str(folder), rows)


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
        try:
            report = run(settings, workers=workers, progress=not json, say=out.say)
        except KeyboardInterrupt:
            out.say("interrupted: the subjects that are done stay; the same command goes on from there")
            raise SystemExit(EXIT_INTERRUPTED) from None
        out.result(report)
