"""A benchmark's results as figures and as files: `document`, `write`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.files import replacing
from offline.benchmark.cells import Cell
from offline.benchmark.people import Fold
from offline.benchmark.picture import draw
from offline.benchmark.recipe import Model, Recipe
from offline.benchmark.rows import Row, figure_of, row_of
from offline.benchmark.tables import markdown
from offline.evaluate.compare import holm, paired
from offline.evaluate.plots import draw_all
from offline.provenance import machine

JSON, MARKDOWN = "benchmark.json", "benchmark.md"
PICTURED = 6  # models in a picture of curves: more are a fog


def document(recipe: Recipe, folds: Sequence[Fold], cells: Sequence[Cell]) -> dict[str, Any]:
    """Return every figure of the cells that are there.

    Returns
    -------
    dict
        ``task``, ``people`` by fold, ``figure`` (what is ranked and compared), ``rows`` (one per model, and
        one per model whose seeds answer together), ``best_baseline``, ``differences``, ``missing`` (cells
        that are not there), ``machine``, ``versions``.
    """
    rows = [row for model in recipe.models for row in _rows(recipe, model, cells)]
    best = _best(rows, recipe)
    task = recipe.task
    return {
        "task": {
            "folder": Path(task.origin.where).name,
            "classes": list(task.classes),
            "idle": task.idle,
            "protocol": task.protocol.told(),
        },
        "people": [
            {"fold": fold.number, "train": fold.train, "validate": fold.validate, "test": fold.test}
            for fold in folds
        ],
        "figure": figure_of(task),
        "rows": [row.document() for row in rows],
        "best_baseline": best,
        "differences": _differences(recipe, rows, best),
        "missing": [f"{one.model}, seed {one.seed}, fold {one.fold + 1}" for one in cells if not one.done],
        "machine": machine(),
        "versions": _made_with(cells),
    }


def _made_with(cells: Sequence[Cell]) -> dict[str, str]:
    """Return the versions of what filled the cells: all of them, where they differ."""
    found: dict[str, set[str]] = {}
    for cell in cells:
        for name, number in (cell.about().get("versions", {}) if cell.done else {}).items():
            found.setdefault(name, set()).add(number)
    return {name: ", ".join(sorted(numbers)) for name, numbers in found.items()}


def write(content: dict[str, Any], folder: Path) -> None:
    """Write document, tables and pictures; the first two are there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((JSON, json.dumps(content, indent=1) + "\n"), (MARKDOWN, markdown(content))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text)
    if content["rows"]:
        draw(content, folder / "people.png")
        ranked = sorted(content["rows"], key=lambda row: -(row["mean"] or 0.0))[:PICTURED]
        draw_all({"evaluations": [row["scores"] for row in ranked]}, folder)


def _rows(recipe: Recipe, model: Model, cells: Sequence[Cell]) -> list[Row]:
    """Return a model's row and, of several seeds, that of all together; none where no cell is there."""
    mine = [cell for cell in cells if cell.model == model.name and cell.done]
    if not mine:
        return []
    seeds = sorted({cell.seed for cell in mine})
    by_seed = [[cell.read() for cell in mine if cell.seed == seed] for seed in seeds]
    rows = [row_of(recipe.task, model, by_seed)]
    folds = {tuple(cell.fold for cell in mine if cell.seed == seed) for seed in seeds}
    if len(seeds) > 1 and len(folds) == 1:  # else they did not answer for the same people
        rows.append(row_of(recipe.task, model, by_seed, together=True))
    return rows


def _best(rows: Sequence[Row], recipe: Recipe) -> str | None:
    """Return the best baseline: of the rows that are none of ours, seeds apart, the highest mean.

    Of an unfinished benchmark only those that answered for as many people as any: few may be easy ones.
    """
    ours = {model.name for model in recipe.models if model.ours}
    known = [row for row in rows if row.name not in ours and not row.together and row.mean is not None]
    most = max((len(row.people()) for row in known), default=0)
    whole = [row for row in known if len(row.people()) == most]
    return max(whole, key=lambda row: row.mean or 0.0).name if whole else None


def _differences(recipe: Recipe, rows: Sequence[Row], best: str | None) -> list[dict[str, Any]]:
    """Return the pairs asked for and each of ours against the best baseline, over the people of both."""
    by_name = {row.name: row for row in rows if not row.together}  # else one net is compared with several
    ours = [model.name for model in recipe.models if model.ours]
    wanted = dict.fromkeys([*recipe.compare, *((name, best) for name in ours if best is not None)])
    made = []
    for first, second in wanted:
        if first in by_name and second in by_name and first != second:
            one, other = by_name[first].people(), by_name[second].people()
            shared = sorted(one.keys() & other.keys())
            if shared:
                values = ([some[name] for name in shared] for some in (one, other))
                made.append({"first": first, "second": second, **_paired(*values)})
    corrected = holm([row["wilcoxon_p"] for row in made])
    return [{**row, "holm_p": p} for row, p in zip(made, corrected, strict=True)]


def _paired(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    import numpy as np

    return paired(np.array(first), np.array(second))
