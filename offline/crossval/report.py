"""A cross-validation's results as Markdown tables and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#666666", "#a6761d", "#000000")


def markdown(document: dict[str, Any]) -> str:
    """Return the tables for people: scores, differences, and what the pretrainings say of themselves."""
    who = document["people"]
    folds = f"{who['folds']} folds" + (", each of a site" if who["split"] == "sites" else "")
    about = (
        f"{who['table']}: {who['n_positive']} people labelled {' / '.join(who['positive'])} against "
        f"{who['n_negative']} labelled {' / '.join(who['negative'])}; {who['repeats']} repeats of {folds}. "
        "Mean ± SD over repeats, in brackets the 95 % interval over people."
    )
    scores = [
        [
            row["row"],
            f"{row['balanced_accuracy']:.3f} ± {row['sd']:.3f} {_brackets(row['interval'])}",
            f"{row['auroc']:.3f} ± {row['auroc_sd']:.3f} {_brackets(row['auroc_interval'])}",
        ]
        for row in document["rows"]
    ]
    parts = [about, "", *_table(["model", "balanced accuracy", "area under the ROC curve"], scores)]
    if document["differences"]:
        parts += ["", *_differences(document["differences"])]
    if document["pretraining"]:
        parts += ["", *_pretrainings(document["pretraining"])]
    return "\n".join([*parts, "", f"Protocol: {document['protocol']}.", ""])


def draw(document: dict[str, Any], path: Path) -> None:
    """Write a picture: a row per model, a dot per repeat, the mean and its interval over people."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows, who = document["rows"], document["people"]
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.42 * len(rows)), layout="constrained")
    groups = list(dict.fromkeys(row["row"].split(",")[0] for row in rows))
    for place, row in enumerate(rows):
        colour = COLOURS[groups.index(row["row"].split(",")[0]) % len(COLOURS)]
        low, high = row["interval"]
        y = len(rows) - place
        axes.plot([low, high], [y, y], color=colour, lw=2, alpha=0.5, solid_capstyle="butt")
        spread = np.linspace(-0.14, 0.14, len(row["per_repeat"])) if len(row["per_repeat"]) > 1 else [0.0]
        axes.plot(row["per_repeat"], y + np.asarray(spread), "o", color=colour, ms=3.5, alpha=0.8, mew=0)
        axes.plot(row["balanced_accuracy"], y, "|", color="black", ms=13, mew=1.6)
    axes.axvline(0.5, color="#999999", lw=1, ls=":")
    axes.annotate("chance", (0.5, 1.0), xycoords=("data", "axes fraction"), va="bottom", ha="center", size=8)
    axes.set_yticks(range(len(rows), 0, -1), [row["row"] for row in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.set(
        xlabel="balanced accuracy of new people (dots: repeats; bars: 95 % over people)",
    )
    axes.set_title(_who(who), pad=16)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _who(who: dict[str, Any]) -> str:
    positive, negative = (" / ".join(who[name]) for name in ("positive", "negative"))
    return f"{who['n_positive']} {positive} against {who['n_negative']} {negative}"


def _differences(differences: Sequence[dict[str, Any]]) -> list[str]:
    head = ["difference", "balanced accuracy", "repeats better", "area under the ROC curve", "p"]
    lines = [
        [
            f"{one['row']} − {one['against']}",
            f"{one['balanced_accuracy']:+.3f} {_brackets(one['interval'], '+')}",
            f"{one['repeats_better']}/{one['repeats']}",
            f"{one['auroc']:+.3f} {_brackets(one['auroc_interval'], '+')}",
            f"{one['corrected_p']:.3f}",
        ]
        for one in differences
    ]
    return _table(head, lines)


def _pretrainings(pretrainings: Sequence[dict[str, Any]]) -> list[str]:
    figures = list(dict.fromkeys(name for one in pretrainings for name in one if name != "model"))
    lines = [
        [one["model"], *(f"{one[name]:.4g}" if name in one else "–" for name in figures)]
        for one in pretrainings
    ]
    return _table(["pretraining (mean over folds)", *figures], lines)


def _brackets(interval: Sequence[float], sign: str = "") -> str:
    low, high = interval
    return f"[{low:{sign}.3f}, {high:{sign}.3f}]"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]
