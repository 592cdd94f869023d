"""A benchmark as a picture: everybody's figure by every model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

OURS, OTHER = "#d95f02", "#1f77b4"


def draw(document: dict[str, Any], path: Path) -> None:
    """Write a picture: a row per model, a dot per person, the mean as a bar; ours in another colour."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = sorted(document["rows"], key=lambda row: row["mean"] or 0.0)
    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.42 * len(rows)), layout="constrained")
    rng = np.random.default_rng(0)
    for y, row in enumerate(rows):
        values = np.array(list(row["people"].values()))
        colour = OURS if row["ours"] else OTHER
        away = rng.uniform(-0.22, 0.22, len(values))
        axes.plot(values, y + away, "o", color=colour, ms=4, alpha=0.45, mew=0)
        axes.plot(values.mean(), y, "|", color="black", ms=18, mew=2)
        axes.annotate(
            f"{values.mean():.3f}", (1.01, y), xycoords=("axes fraction", "data"), va="center", size=9
        )
    axes.set_yticks(range(len(rows)), [row["model"] for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    task, what = document["task"], document["figure"].replace("_", " ")
    axes.set(xlabel=f"{what} of new people (dots; bar: their mean)", title=", ".join(task["classes"]))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
