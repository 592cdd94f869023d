"""`bcitrain evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.output import Output
from offline.commands._shared import BundleRef, DataFolder, Json, Subjects, need


def evaluate(
    bundle: BundleRef,
    data: DataFolder,
    subjects: Subjects = None,
    baselines: Annotated[
        bool,
        typer.Option("--baselines", help="Also train and score the classical baselines; needs --train-data."),
    ] = False,
    train_data: Annotated[
        Path | None, typer.Option(help="Folder that holds the recordings the bundle was trained on.")
    ] = None,
    json: Json = False,
) -> None:
    """Score a bundle on recordings through the live pipeline; those it was trained on are left out."""
    out = Output(json)
    with out.errors():
        from engine.bundle import load
        from offline.data.corpus import Corpus
        from offline.evaluate import play_all, report

        loaded = load(bundle)
        with _bar(out) as progress:
            result = play_all(loaded, Corpus(data), subjects, progress=progress)
            document = report(loaded, result)
            if baselines:
                need("sklearn", "pyriemann")
                from offline.baselines import score_baselines

                document["baselines"] = score_baselines(
                    loaded, train_data, [played.recording for played in result.played]
                )
        if json:
            out.document(document)
        else:
            _show(out, document)


@contextmanager
def _bar(out: Output) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar on standard error, unless the output is for scripts."""
    if out.json:
        yield lambda subject, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=None)

        def progress(subject: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=subject or "scoring")

        yield progress


def _show(out: Output, document: dict[str, Any]) -> None:
    """Print the report for people: figures, then subjects, then baselines."""
    hidden = {"per_subject", "idle", "baselines"}
    out.result({key: value for key, value in document.items() if key not in hidden})
    out.result({key: value for key, value in document["idle"].items() if key != "curve"})
    rows = [{"subject": subject, **values} for subject, values in document["per_subject"].items()]
    for name, figures in document.get("baselines", {}).items():
        for row in rows:
            row[name] = figures["per_subject"].get(row["subject"], {}).get("accuracy")
    out.table("per subject", rows)
    out.table("hits against false activations", document["idle"]["curve"])
    if "baselines" in document:
        out.table(
            "baselines",
            [{"name": name, "accuracy": f["accuracy"]} for name, f in document["baselines"].items()],
        )
