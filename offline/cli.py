"""The `bcitrain` command: everything one does with recordings, from training to a scored bundle."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.output import Output
from streamer.errors import MissingDependency

app = typer.Typer(
    help="Trains, exports and evaluates the models that bcistream runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
BundleRef = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or the name of a shipped one.")
]
DataFolder = Annotated[Path, typer.Option(help="Folder of recordings: one sub-folder per subject.")]
Subjects = Annotated[
    list[str] | None, typer.Option(help="Only these: a name or a range, S065-S080; may be repeated.")
]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML of the training; see configs/.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    json: Json = False,
) -> None:
    """Train a model; its weights, scores and logs go to the recipe's output folder."""
    out = Output(json)
    with out.errors():
        need("torch", "lightning")
        quiet("lightning.pytorch")
        from offline.recipe import load
        from offline.train import train as run_training

        settings = load(recipe)
        run = run_training(settings, resume=resume, progress=not json)
        out.result(
            {
                "output": str(settings.output),
                **run.scores,
                "temperature": run.temperature,
                "seconds": run.seconds,
            }
        )
        out.say(f"Next: bcitrain export {settings.output} FOLDER")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The output folder of a training.")],
    bundle: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the bundle goes.")],
    json: Json = False,
) -> None:
    """Write a trained model as a bundle, after checking that the exported step equals the model."""
    out = Output(json)
    with out.errors():
        need("torch", "lightning", "onnx", "onnxscript")
        quiet("torch.onnx._internal.exporter._registration")
        from offline.export import export as write_bundle
        from offline.export import real_probe
        from offline.train import load_run

        finished = load_run(run)
        written = write_bundle(finished, bundle, probe=real_probe(finished))
        graph = written.manifest.graph
        out.result(
            {
                "bundle": written.label,
                "folder": str(bundle),
                "hop": graph.hop,
                "left_context": graph.left_context,
                "delay": graph.delay,
                "bytes": sum(path.stat().st_size for path in bundle.iterdir() if path.is_file()),
            }
        )


@app.command()
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


@app.command()
def draw(
    bundle: BundleRef,
    recording: Annotated[Path, typer.Argument(help="An .npz recording with cues.")],
    picture: Annotated[Path, typer.Argument(help="The PNG to write.")],
    start_s: Annotated[float, typer.Option(min=0.0, help="Where the picture begins, s.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="How much of the recording it shows.")] = 60.0,
    json: Json = False,
) -> None:
    """Draw what a bundle decided over a recording, beside what the subject was asked to do."""
    out = Output(json)
    with out.errors():
        need("matplotlib")
        from engine.bundle import load
        from offline.data.corpus import read
        from offline.picture import draw as paint

        out.result(paint(load(bundle), read(recording), picture, start_s, seconds))


@app.command()
def data(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of recordings.")],
    json: Json = False,
) -> None:
    """List what a folder of recordings holds."""
    out = Output(json)
    with out.errors():
        from offline.data.corpus import Corpus, read

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


def need(*packages: str) -> None:
    """Raise MissingDependency unless these can be imported; nothing is imported yet."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingDependency(
            f"This command needs {', '.join(missing)}, not installed here: pip install 'bcistream[offline]'"
        )


def quiet(*loggers: str) -> None:
    """Keep libraries from talking about themselves; what they warn of is raised, not logged."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)


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
