"""Subject-wise cross-validation with a pretraining in every fold: what fMRI, seen before, is worth to EEG.

Each repeat deals the people anew into folds, alike in label and site.  For each fold every net is pretrained
without its test subjects, neither their EEG nor their fMRI, and what tells the classes apart is learned from
the connectomes of EEG of the training subjects.  At the test there is EEG only.  Results are kept as they
come, so an interrupted cross-validation goes on.

::

    OUTPUT/
      results.jsonl    one line per row, repeat and fold: probability of each tested person
      folds/MODEL/REPEAT_FOLD/   run folders of the pretrainings
      crossval.json    everything, as returned by `crossval`
      crossval.md      the tables
      crossval.png     balanced accuracy per repeat, with intervals
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from offline.crossval import heads as crossval_heads
from offline.crossval import nets as crossval_nets
from offline.crossval.baselines import Features, features
from offline.crossval.folds import Fold, People, folds_of, read_people
from offline.crossval.nets import Answer
from offline.crossval.recipe import Baseline, PretrainedNet, Reading, Recipe, UntrainedNet
from offline.crossval.report import draw, markdown
from offline.crossval.statistics import Resamples, difference, score
from offline.probe.recipe import digest
from offline.provenance import machine, versions
from offline.results import Results
from offline.run_folder import RUN

Progress = Callable[[str, int, int], None]

SPLITS = {
    "people": "folds are stratified by label and site",
    "sites": "each site is left out in turn, repeats differ in the initialisation only",
}
PROTOCOL = (
    "every person is tested once per repeat; {split}; test subjects take no "
    "part in their fold's pretraining, neither with EEG nor with fMRI; at the test there is EEG only; "
    "frozen: logistic regression on the embedding of the EEG branch, its strength chosen inside the training "
    "fold by log loss; trained: branch and head end to end for a fixed number of steps, the head from that "
    "regression, for pretrained and scratch alike; scores over everybody of a repeat together; ±: SD over "
    "repeats; brackets: 95 % bootstrap interval over people (drawn by class), which holds what was learned "
    "as given and so is rather too narrow; p: corrected resampled t-test over the folds of all repeats, "
    "which are not independent (Nadeau & Bengio 2003)"
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of results: how a model answers in a fold, and what decides the answer."""

    name: str
    answer: Callable[[Fold], Answer]
    identity: Callable[[Fold], str]


def crossval(recipe: Recipe, *, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Cross-validate the recipe's models and leave results, tables and picture in its output folder.

    Returns
    -------
    dict
        ``people``, ``protocol``, ``rows`` (one per model and reading), ``differences``, ``pretraining``
        (means over folds), ``results`` (one per row, repeat and fold), ``machine``, ``versions``,
        ``seconds``.

    Raises
    ------
    ConfigError, RecordingError, MissingDependency
        The recipe does not fit the table or the pretraining, or a table cannot be read.
    """
    started = time.monotonic()
    people = read_people(recipe)
    folds = folds_of(people, recipe)
    rows = [row for model in recipe.models for row in _rows(recipe, model, people)]
    recipe.output.mkdir(parents=True, exist_ok=True)
    store = Results(recipe.output / "results.jsonl")
    rounds = [(fold, row) for fold in folds for row in rows]
    results = []
    for done, (fold, row) in enumerate(rounds):
        progress(f"{row.name}, repeat {fold.repeat + 1}, fold {fold.number + 1}", done, len(rounds))
        results.append(_result(row, fold, people, store))
    progress("", len(rounds), len(rounds))
    document = {
        "people": _about(recipe, people, 1 + max(fold.number for fold in folds)),
        "protocol": PROTOCOL.format(split=SPLITS[recipe.split]),
        **_summary(recipe, people, results),
        "pretraining": _pretrainings(recipe, people, folds),
        "results": results,
        "machine": machine(),
        "versions": versions("numpy", "scipy", "torch", "scikit-learn", "lightning"),
        "seconds": round(time.monotonic() - started, 1),
    }
    _write(recipe.output, document)
    return document


def _rows(recipe: Recipe, model: PretrainedNet | UntrainedNet | Baseline, people: People) -> Iterator[_Row]:
    """Yield the rows of a model, named as `offline.crossval.recipe.rows_of` has them."""
    if not isinstance(model, PretrainedNet | UntrainedNet):
        seen, identity = features(model, people), model.model_dump_json()
        yield _Row(model.name, partial(_regression, seen, people), lambda fold: identity)
        return
    for reading in model.readings:
        yield _Row(
            f"{model.name}, {reading}",
            partial(_net_answer, recipe, model, reading, people),
            partial(_net_identity, recipe, model, reading, people),
        )


def _regression(seen: Features, people: People, fold: Fold) -> Answer:
    head = crossval_heads.fit(seen[fold.train], people.labels[fold.train], _seed(fold))
    return head.probabilities(seen[fold.test]), {"strength": head.strength}


def _net_answer(
    recipe: Recipe, model: PretrainedNet | UntrainedNet, reading: Reading, people: People, fold: Fold
) -> Answer:
    settings = crossval_nets.fold_recipe(recipe, model, people, fold)
    if isinstance(model, PretrainedNet):
        branch = partial(crossval_nets.trained_branch, settings, people, fold)
    else:
        branch = partial(crossval_nets.initial_branch, settings)
    return crossval_nets.answer(branch, reading, recipe.training, people, fold, _seed(fold))


def _net_identity(
    recipe: Recipe, model: PretrainedNet | UntrainedNet, reading: Reading, people: People, fold: Fold
) -> str:
    settings = crossval_nets.fold_recipe(recipe, model, people, fold)
    course = (
        settings.course() if isinstance(model, PretrainedNet) else settings.system.model_dump(mode="json")
    )
    training = recipe.training.model_dump_json() if reading == "trained" else ""
    return json.dumps([model.kind, reading, course, settings.seed, training])


def _seed(fold: Fold) -> int:
    """Return the seed of what is learned in a fold, the same for every model."""
    return fold.repeat * 1000 + fold.number


def _result(row: _Row, fold: Fold, people: People, store: Results) -> dict[str, Any]:
    """Return the probabilities of a fold's test subjects by one row."""
    train, test = ([people.fingerprints[i] for i in rows] for rows in (fold.train, fold.test))
    labels = people.labels[fold.train].tolist()
    key = digest(json.dumps([row.name, row.identity(fold), train, test, labels, _seed(fold)]))
    found = store.get(key, lambda: _answered(row, fold, people))
    return {"row": row.name, "repeat": fold.repeat, "fold": fold.number, **found}


def _answered(row: _Row, fold: Fold, people: People) -> dict[str, Any]:
    started = time.monotonic()
    probabilities, figures = row.answer(fold)
    by_name = {people.names[i]: round(float(p), 6) for i, p in zip(fold.test, probabilities, strict=True)}
    return {"probabilities": by_name, **figures, "seconds": round(time.monotonic() - started, 2)}


def _summary(recipe: Recipe, people: People, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return scores of each row, and the differences that the recipe asks for."""
    place = {name: i for i, name in enumerate(people.names)}
    names = list(dict.fromkeys(result["row"] for result in results))
    found = {name: np.full((recipe.repeats, len(people)), np.nan) for name in names}
    fold_of = np.zeros((recipe.repeats, len(people)), dtype=np.int64)
    for result in results:
        for name, probability in result["probabilities"].items():
            found[result["row"]][result["repeat"], place[name]] = probability
            fold_of[result["repeat"], place[name]] = result["fold"]
    resamples = Resamples(people.labels, recipe.resamples)
    return {
        "rows": [{"row": name, **score(found[name], people.labels, resamples)} for name in names],
        "differences": [
            {"row": a, "against": b} | difference(found[a], found[b], people.labels, fold_of, resamples)
            for a, b in recipe.compare
        ],
    }


def _pretrainings(recipe: Recipe, people: People, folds: list[Fold]) -> list[dict[str, Any]]:
    """Return the mean over folds of what each pretraining says of itself."""
    rows = []
    for model in recipe.models:
        if isinstance(model, PretrainedNet):
            folders = [crossval_nets.fold_recipe(recipe, model, people, fold).output for fold in folds]
            each = [crossval_nets.figures_of(folder) for folder in folders if (folder / RUN).is_file()]
            names = sorted({name for one in each for name in one})
            means = {n: round(float(np.mean([one[n] for one in each if n in one])), 4) for n in names}
            rows.append({"model": model.name, "folds": len(each), **means})
    return rows


def _about(recipe: Recipe, people: People, n_folds: int) -> dict[str, Any]:
    return {
        "table": recipe.people.path.name,
        "negative": list(recipe.negative),
        "positive": list(recipe.positive),
        "n_negative": int((people.labels == 0).sum()),
        "n_positive": int((people.labels == 1).sum()),
        "split": recipe.split,
        "folds": n_folds,
        "repeats": recipe.repeats,
    }


def _write(folder: Path, document: dict[str, Any]) -> None:
    (folder / "crossval.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "crossval.md").write_text(markdown(document))
    draw(document, folder / "crossval.png")
