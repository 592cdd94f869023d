"""Runs a benchmark, cell by cell: `benchmark`; goes on where it was interrupted.

::

    OUTPUT/
      cells/, models/     what is done: see `offline.benchmark.cells`
      benchmark.json      every figure, as returned
      benchmark.md        the tables
      *.png               the pictures
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offline.benchmark.cells import Cell, plain
from offline.benchmark.memo import Memo
from offline.benchmark.models import Bench, answer, identity
from offline.benchmark.people import Fold, Recordings, folds_of
from offline.benchmark.recipe import Classical, Finetuned, Recipe, Trained
from offline.benchmark.report import document, write
from offline.data.fingerprint import refuse_copies
from offline.probe.recipe import digest
from streamer.errors import ConfigError

Progress = Callable[[str, int, int], None]
UNTRAINED = {"test", "calibrate"}  # what of a cell's settings changes no weight
REMEMBERED = 1000  # recordings behind steps, and features: what the decoders of one fold share


@dataclass(frozen=True, slots=True)
class _Round:
    """A cell and what fills it."""

    model: Trained | Finetuned | Classical
    fold: Fold
    seed: int
    cell: Cell
    trained: Path


def benchmark(
    recipe: Recipe,
    *,
    only: Sequence[str] | None = None,
    report_only: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Fill the cells that are not there yet and leave the report in the recipe's output folder.

    Parameters
    ----------
    only : sequence of str, optional
        Names of the models to run; the report is of every cell that is there.
    report_only : bool
        Run none.

    Returns
    -------
    dict
        See `offline.benchmark.report.document`.

    Raises
    ------
    ConfigError, RecordingError, StreamMismatch
        The recipe does not fit the recordings, a model does not fit the task, or there is no such model; or
        two people have the same samples; or ``report_only``, and there is nothing to report.
    """
    wanted = _chosen(recipe, only)
    recordings = Recordings(recipe.task.origin, recipe.task.stype)
    folds = folds_of(recipe, recordings.names, recordings.where)
    people = sorted({name for fold in folds for name in (*fold.train, *fold.validate, *fold.test)})
    bench = Bench(recipe, recordings, Memo(REMEMBERED))
    _read(bench, folds, progress)
    refuse_copies((one, who, called) for who in people for one, called in recordings.named(who).items())
    rounds = list(_rounds(bench, folds))
    for done, one in enumerate(rounds):
        progress(f"{one.model.name}, seed {one.seed}, fold {one.fold.number + 1}", done, len(rounds))
        if one.model.name in wanted and not report_only and not one.cell.done:
            one.trained.mkdir(parents=True, exist_ok=True)
            one.cell.keep(answer(one.model, bench, one.fold, one.seed, one.trained))
    if report_only and not any(one.cell.done for one in rounds):
        raise ConfigError(_nothing_done(rounds, recipe))
    progress("report", len(rounds), len(rounds))
    made = document(recipe, folds, [one.cell for one in rounds])
    write(made, recipe.output)
    return made


def _nothing_done(rounds: Sequence[_Round], recipe: Recipe) -> str:
    """Say why there is nothing to report: no cell is there, or all are of something else."""
    there = sum(one.cell.folder.is_dir() for one in rounds)
    if not there:
        return f"{recipe.output} holds no cell of this benchmark: run it without --report."
    return (
        f"None of the {there} cells in {recipe.output} is of these settings, these recordings and this "
        "version of bcistream, so nothing is written over what is there. Run it without --report to make "
        "them anew, or give the settings that they were made with."
    )


def _chosen(recipe: Recipe, only: Sequence[str] | None) -> set[str]:
    names = [model.name for model in recipe.models]
    if unknown := sorted(set(only or ()) - set(names)):
        raise ConfigError(f"There is no model {unknown[0]!r} in the benchmark; there are {', '.join(names)}.")
    return set(only or names)


def _read(bench: Bench, folds: Sequence[Fold], progress: Progress) -> None:
    """Read everybody once: what a cell is of is told by the samples."""
    people = sorted({name for fold in folds for name in (*fold.train, *fold.validate, *fold.test)})
    for done, name in enumerate(people):
        progress(f"reading {name}", done, len(people))
        bench.recordings.fingerprints(name)


def _rounds(bench: Bench, folds: Sequence[Fold]) -> Iterator[_Round]:
    """Yield all cells, seed by seed and fold by fold, so that what is interrupted can be compared."""
    recipe = bench.recipe
    for seed in range(recipe.seeds):
        for fold in folds:
            for model in recipe.models:
                if seed and isinstance(model, Classical):
                    continue
                told = identity(model, bench, fold, seed)
                name, place = plain(model.name), f"seed{seed}_fold{fold.number}"
                cell = Cell(model.name, seed, fold.number, told, recipe.output / "cells" / name / place)
                weights = digest(repr(sorted((k, v) for k, v in told.items() if k not in UNTRAINED)))
                trained = recipe.output / "models" / name / f"{place}_{weights[:8]}"
                yield _Round(model, fold, seed, cell, trained)
