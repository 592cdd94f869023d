"""A probe's results as rows and as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

OTHERS = ("accuracy", "macro_f1", "kappa")  # what more than two classes are reported in beside
ABSENT = "–"  # the model takes no part at this fraction
Rows = list[dict[str, Any]]


def summary(results: Sequence[dict[str, Any]]) -> Rows:
    """Return one row per model and fraction: mean and SD over seeds, worst subject, gain over the twin."""
    models = list(dict.fromkeys(result["model"] for result in results))
    twins = {result["twin_of"]: result["model"] for result in results if result["twin_of"]}
    rows = []
    for model in models:
        for fraction in sorted({result["fraction"] for result in results if result["model"] == model}):
            mine = _of(results, model, fraction)
            row = {"model": model, "fraction": fraction, "n_labels": mine[0]["n_labels"], **_figures(mine)}
            row |= {key: mine[0][key] for key in ("twin_of", "series", "at") if mine[0].get(key) is not None}
            if model in twins:
                row["over_untrained"] = _gain(mine, _of(results, twins[model], fraction))
            rows.append(row)
    return rows


def markdown(document: dict[str, Any]) -> str:
    """Return the table for people, one row per model, one column per fraction."""
    task, rows = document["task"], document["summary"]
    fractions = sorted({row["fraction"] for row in rows})
    labels = {row["fraction"]: row["n_labels"] for row in rows}
    head = ["balanced accuracy", *(f"{f:.0%} ({labels[f]} labels)" for f in fractions)]
    lines = [_line(head), _line(["---"] * len(head))]
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = {row["fraction"]: _cell(row) for row in rows if row["model"] == model}
        lines.append(_line([model, *(cells.get(fraction, ABSENT) for fraction in fractions)]))
    for model in dict.fromkeys(row["model"] for row in rows if "over_untrained" in row):
        gains = {row["fraction"]: _gain_cell(row["over_untrained"]) for row in rows if row["model"] == model}
        lines.append(_line([f"{model} over untrained", *(gains.get(f, ABSENT) for f in fractions)]))
    about = (
        f"{task['folder']}: {' / '.join(task['classes'])}, windows of {task['window_s']:g} s, "
        f"{task['n_chans']} channels; {task['train_subjects']} subjects to learn from "
        f"({task['train_windows']} windows), {len(task['test_subjects'])} held out "
        f"({task['test_windows']} windows), {task['splits']} split{'s' if task['splits'] > 1 else ''}. "
        f"Mean ± SD over seeds; in brackets the area under the ROC curve, then the worst subject."
    )
    if len(task["classes"]) > 2 and any(_other_cell(row) != ABSENT for row in rows):
        lines += ["", *_others(rows, head)]
    return "\n".join([about, "", *lines, "", f"Protocol: {document['protocol']}.", ""])


def _others(rows: Rows, head: Sequence[str]) -> list[str]:
    """Return a table of accuracy, macro-F1 and kappa; results older than those figures have none."""
    lines = [_line(["accuracy / macro-F1 / kappa", *head[1:]]), _line(["---"] * len(head))]
    fractions = sorted({row["fraction"] for row in rows})
    for model in dict.fromkeys(row["model"] for row in rows):
        cells = {row["fraction"]: row for row in rows if row["model"] == model}
        lines.append(_line([model, *(_other_cell(cells.get(fraction, {})) for fraction in fractions)]))
    return lines


def _other_cell(row: dict[str, Any]) -> str:
    figures = [row.get(key) for key in OTHERS]
    if all(figure is None for figure in figures):
        return ABSENT
    return " / ".join(ABSENT if figure is None else f"{figure:.3f}" for figure in figures)


def _of(results: Sequence[dict[str, Any]], model: str, fraction: float) -> Rows:
    return [one for one in results if one["model"] == model and one["fraction"] == fraction]


def _figures(mine: Rows) -> dict[str, Any]:
    """Return mean and SD over seeds, and each subject's mean over seeds."""
    accuracy = [one["balanced_accuracy"] for one in mine]
    areas = [one["auroc"] for one in mine if one["auroc"] is not None]
    subjects = _by_subject(mine)
    return {
        "balanced_accuracy": round(float(np.mean(accuracy)), 4),
        "sd": _sd(accuracy),
        "auroc": round(float(np.mean(areas)), 4) if areas else None,
        "auroc_sd": _sd(areas) if areas else None,
        **{key: _mean([one.get(key) for one in mine]) for key in OTHERS},
        "worst": min(subjects.values()),
        "per_subject": subjects,
    }


def _by_subject(mine: Rows) -> dict[str, float]:
    names = mine[0]["per_subject"]
    return {
        name: round(float(np.mean([one["per_subject"][name]["balanced_accuracy"] for one in mine])), 4)
        for name in names
    }


def _gain(mine: Rows, twins: Rows) -> dict[str, Any]:
    """Return how much better a net is than its untrained twin, seed by seed and subject by subject."""
    from scipy.stats import wilcoxon

    pairs = [(a, b) for a in mine for b in twins if a["seed"] == b["seed"]]
    by_seed = np.array([a["balanced_accuracy"] - b["balanced_accuracy"] for a, b in pairs])
    before = _by_subject(twins)
    by_subject = np.array([value - before[name] for name, value in _by_subject(mine).items()])
    differ = bool(np.any(by_subject))
    return {
        "difference": round(float(by_seed.mean()), 4),
        "sd": _sd(by_seed.tolist()),
        "seeds_better": int((by_seed > 0).sum()),
        "seeds": len(by_seed),
        "subjects_better": int((by_subject > 0).sum()),
        "subjects": len(by_subject),
        "p": round(float(wilcoxon(by_subject).pvalue), 4) if differ else 1.0,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, None where a value is not there."""
    there = [value for value in values if value is not None]
    return round(float(np.mean(there)), 4) if len(there) == len(values) else None


def _sd(values: Sequence[float]) -> float:
    return round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else 0.0


def _cell(row: dict[str, Any]) -> str:
    area = "" if row["auroc"] is None else f"{row['auroc']:.3f}, "
    return f"{row['balanced_accuracy']:.3f} ± {row['sd']:.3f} ({area}{row['worst']:.3f})"


def _gain_cell(gain: dict[str, Any]) -> str:
    return (
        f"{gain['difference']:+.3f} ± {gain['sd']:.3f}, {gain['seeds_better']}/{gain['seeds']} seeds, "
        f"{gain['subjects_better']}/{gain['subjects']} subjects, p {gain['p']:.3f}"
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
