"""A benchmark's document as Markdown: `markdown`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Table = dict[str, Any]
SHOWN = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "kappa",
    "macro_f1": "macro-F1",
    "auroc": "AUROC",
    "auc_pr": "AUC-PR",
    "ece": "ECE",
}
LIVE = {
    "hop_balanced_accuracy": "balanced accuracy of hops",
    "hits": "hits",
    "false_activations_per_min": "false activations/min",
    "falsely_on": "share of idle time falsely on",
    "median_time_to_decision_s": "median time to decision (s)",
    "hits_better_half": "hits, better half of the people",
    "false_better_half": "their false activations/min",
    "median_s_better_half": "their median time (s)",
}


def markdown(document: Table) -> str:
    """Return the tables for people: scores, differences, live use, calibration, every person."""
    rows, task = document["rows"], document["task"]
    n = len({name for fold in document["people"] for name in fold["test"]})
    parts = [
        f"{task['folder']}: {', '.join(task['classes'])}; {n} people tested in {len(document['people'])} "
        f"folds, {task['protocol']}. ± over seeds; worst and SD are over people.",
        *_missing(document["missing"]),
        _table(_scores(rows, document["figure"])),
        f"Best baseline: {document['best_baseline'] or 'none yet'}.",
    ]
    if document["differences"]:
        parts += [_PAIRED.format(figure=SHOWN[document["figure"]]), _table(_differences(document))]
    if any(row["idle"] for row in rows):
        parts += ["In live use, the idle class included:", _table(_live(rows))]
    if any(row["calibrated"] for row in rows):
        parts += [_CALIBRATED.format(figure=SHOWN[document["figure"]])]
        parts += [_table(_calibrated(rows))]
    if rows:
        parts += [f"{SHOWN[document['figure']].capitalize()} of every person, mean over seeds:"]
        parts += [_table(_people(rows))]
    parts += [f"- {row['model']}: {note}" for row in rows for note in row["notes"]]
    return "\n\n".join(parts) + "\n"


_PAIRED = (
    "{figure}, first minus second, person by person: mean, 95-% bootstrap interval over people, exact "
    "Wilcoxon signed-rank p corrected by Holm:"
)

_CALIBRATED = (
    "Given the beginning of each person's recordings, for a head of their own or, in classical decoders, to "
    "take features less those of their rest: {figure} of what follows, before and after:"
)


def _missing(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return [f"Not done yet, {len(names)} cells: {'; '.join(names[:8])}{more}."]


def _scores(rows: Sequence[Table], figure: str) -> list[Table]:
    names = [name for name in SHOWN if any(row["figures"][name]["mean"] is not None for row in rows)]
    return [
        {
            "model": f"**{row['model']}**" if row["ours"] else row["model"],
            "seeds": row["seeds"],
            "people": len(row["people"]),  # fewer than all where cells are missing: not to be compared
            **{SHOWN[name]: _pm(row["figures"].get(name)) for name in names},
            "SD": row["over_people"]["sd"],
            f"worst ({SHOWN[figure]})": _worst(row["over_people"]["worst"]),
        }
        for row in rows
    ]


def _differences(document: Table) -> list[Table]:
    return [
        {
            "difference": f"{one['first']} − {one['second']}",
            "people": one["n"],
            "mean": f"{one['difference']:+.3f} [{one['interval'][0]:+.3f}, {one['interval'][1]:+.3f}]",
            "better/equal/worse": f"{one['better']}/{one['equal']}/{one['worse']}",
            "p": one["wilcoxon_p"],
            "p (Holm)": one["holm_p"],
        }
        for one in document["differences"]
    ]


def _live(rows: Sequence[Table]) -> list[Table]:
    return [
        {"model": row["model"], **{title: _pm(row["idle"][name]) for name, title in LIVE.items()}}
        for row in rows
        if row["idle"]
    ]


def _calibrated(rows: Sequence[Table]) -> list[Table]:
    kept = ("before", "after", "gain", "worst_gain", "auroc_before", "auroc_after")
    return [
        {"model": row["model"], **{name: row["calibrated"][name] for name in kept}}
        for row in rows
        if row["calibrated"]
    ]


def _people(rows: Sequence[Table]) -> list[Table]:
    names = sorted({name for row in rows for name in row["people"]})
    own = [row for row in rows if row["calibrated"]]
    return [
        {
            "person": name,
            **{row["model"]: row["people"].get(name) for row in rows},
            **{
                f"{row['model']}, {side}": row["calibrated"]["people"].get(name, {}).get(side)
                for row in own
                for side in ("before", "after")
            },
        }
        for name in names
    ]


def _pm(spread: Table | None) -> str:
    if spread is None or spread["mean"] is None:
        return "–"
    return f"{spread['mean']:.3f}" + (f" ± {spread['sd']:.3f}" if spread["sd"] is not None else "")


def _worst(worst: Table | None) -> str:
    return f"{worst['value']:.3f} ({worst['name']})" if worst else "–"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[Table]) -> str:
    if not rows:
        return "No cell is done yet."
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(one) for one in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
