"""What a pretrained net is worth: few labels, new people; frozen under a linear read-out, and fine-tuned.

Every net is stepped over whole recordings as live (or, with ``pool: window``, looks at each window once), its
latents pooled over the labelled windows, and read by one logistic regression; beside it the same net
untrained, where asked for both of them trained on the same windows, EEGNet trained on them too, and features
that need no learning.  Results are kept as they come, so an interrupted probe goes on.

::

    OUTPUT/
      results.jsonl   one line per model, label fraction and seed: scores per tested subject
      features/       pooled latents
      probe.json      everything, as returned by `probe`
      probe.md        the table
      probe.png       balanced accuracy over the number of labels, of the models that are in no series
      probe_series.png   balanced accuracy over what changes within a series, where there is one
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from offline.probe.cache import Cache
from offline.probe.heads import scores
from offline.probe.nets import Contestant, check_unseen, contestants
from offline.probe.picture import draw, draw_series
from offline.probe.recipe import Recipe, Task, digest
from offline.probe.report import markdown, summary
from offline.probe.tasks import Index, Split, Windows, draw_labels, find_windows, splits
from offline.provenance import machine, versions
from offline.results import Results

Progress = Callable[[str, int, int], None]


def probe(recipe: Recipe, *, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Compare the recipe's models on its task and leave results, table and picture in its output folder.

    Returns
    -------
    dict
        ``task``, ``protocol``, ``summary`` (one row per model and fraction), ``results`` (one per model,
        fraction and seed), ``machine``, ``versions``, ``seconds``.

    Raises
    ------
    ConfigError, RecordingError, StreamMismatch, MissingDependency
        The task does not fit the recordings or the runs, or a model cannot be had here.
    """
    started = time.monotonic()
    windows = find_windows(recipe.task)
    parts = splits(recipe.task, windows)
    check_unseen(recipe, windows, parts)
    recipe.output.mkdir(parents=True, exist_ok=True)
    store = Results(recipe.output / "results.jsonl")
    entries = contestants(recipe, windows, Cache(recipe.output / "features", windows, recipe.task))
    results = []
    rounds = [
        (entry, seed, fraction)
        for entry in entries
        for seed in range(recipe.seeds)
        for fraction in recipe.fractions
        if fraction in (entry.fractions or recipe.fractions)
    ]
    for done, (entry, seed, fraction) in enumerate(rounds):
        progress(f"{entry.name}, {fraction:.0%} of the labels", done, len(rounds))
        results.append(_result(entry, seed, fraction, recipe.task, windows, parts, store))
    progress("", len(rounds), len(rounds))
    document = {
        "task": _about(recipe.task, windows, parts),
        "protocol": PROTOCOL,
        "at_label": recipe.at_label,
        "summary": summary(results),
        "results": results,
        "machine": machine(),
        "versions": versions("numpy", "scipy", "torch", "scikit-learn", "braindecode"),
        "seconds": round(time.monotonic() - started, 1),
    }
    _write(recipe.output, document)
    return document


PROTOCOL = (
    "windows of subjects held out, causal filters and nets stepped from each recording's first sample, anew "
    "after every hole, but nets with pool: window look at each window once and alone; frozen latents pooled "
    "over the window (mean and log SD per channel and dimension), "
    "logistic regression with its strength chosen by subject on the labelled windows; fine-tuned nets start "
    "from their weights, their twins from an initialisation, under the logistic regression of their latents, "
    "and are trained with it for one fixed number of steps, on crops that end with the window; EEGNet end to "
    "end for a fixed number of steps; labels drawn per class, smaller draws within larger ones; mean and SD "
    "over seeds; p: Wilcoxon signed-rank over tested subjects, pretrained against untrained, averaged over "
    "seeds"
)


def _result(
    entry: Contestant,
    seed: int,
    fraction: float,
    task: Task,
    windows: Windows,
    parts: list[Split],
    store: Results,
) -> dict[str, Any]:
    """Return the scores of one model at one fraction and seed, all splits together."""
    labelled = [part.train[draw_labels(windows.labels[part.train], fraction, seed)] for part in parts]
    rows = [[some.tolist(), part.test.tolist()] for some, part in zip(labelled, parts, strict=True)]
    key = digest(entry.identity(seed) + task.digest() + windows.digest() + json.dumps(rows))
    found = store.get(key, lambda: _score(entry, seed, labelled, windows, parts))
    about = {"model": entry.name, "twin_of": entry.twin_of, "fraction": fraction, "seed": seed}
    if entry.series is not None:
        about |= {"series": entry.series, "at": entry.at}
    return {**about, "n_labels": round(np.mean([len(rows) for rows in labelled])), **found}


def _score(
    entry: Contestant, seed: int, labelled: list[Index], windows: Windows, parts: list[Split]
) -> dict[str, Any]:
    started = time.monotonic()
    answers = [entry.answer(rows, part.test, seed) for rows, part in zip(labelled, parts, strict=True)]
    tested = np.concatenate([part.test for part in parts])
    probabilities, labels = np.concatenate(answers), windows.labels[tested]
    subjects = windows.subjects[tested]
    each = {
        str(name): scores(probabilities[subjects == name], labels[subjects == name])
        for name in np.unique(subjects)
    }
    seconds = round(time.monotonic() - started, 2)
    return {**scores(probabilities, labels), "per_subject": each, "seconds": seconds}


def _about(task: Task, windows: Windows, parts: list[Split]) -> dict[str, Any]:
    tested = np.concatenate([part.test for part in parts])
    return {
        "folder": task.folder.path.name,
        "classes": list(task.classes),
        "window_s": task.window_s,
        "n_chans": len(task.ch_names),
        "train_subjects": len(np.unique(windows.subjects[parts[0].train])),
        "train_windows": len(parts[0].train),
        "test_subjects": sorted(set(windows.subjects[tested].tolist())),
        "test_windows": len(tested),
        "splits": len(parts),
    }


def _write(folder: Path, document: dict[str, Any]) -> None:
    (folder / "probe.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "probe.md").write_text(markdown(document))
    draw(document, folder / "probe.png")
    if any(row.get("series") for row in document["summary"]):
        draw_series(document, folder / "probe_series.png")
