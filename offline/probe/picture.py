"""A probe's results as pictures: over the number of labels, and over what changes within a series of nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#666666", "#a6761d", "#000000")
Rows = list[dict[str, Any]]


def draw(document: dict[str, Any], path: Path) -> None:
    """Write a picture: balanced accuracy over the number of labels, a line per model, bars of one SD.

    Nets of a series are left to `draw_series`; nothing is written where there is no other.
    """
    rows: Rows = [row for row in document["summary"] if not row.get("series")]
    if not rows:
        return
    plt, task = _pyplot(), document["task"]
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    twins = {result["model"]: result["twin_of"] for result in document["results"]}
    colours: dict[str, str] = {}
    for i, model in enumerate(dict.fromkeys(row["model"] for row in rows)):
        own = twins.get(model) or model
        colours.setdefault(own, COLOURS[len(colours) % len(COLOURS)])
        mine = [row for row in rows if row["model"] == model]
        x = np.array([row["n_labels"] for row in mine]) * (1 + 0.012 * i)  # bars beside each other
        style = {"ls": "--", "mfc": "white"} if twins.get(model) else {"ls": "-"}
        _line(axes, x, mine, colours[own], model, **style)
    _chance(axes, task)
    shown = sorted({row["n_labels"] for row in rows})
    fractions = {row["n_labels"]: row["fraction"] for row in rows}
    axes.set_xscale("log")
    axes.set_xticks(shown, [f"{n}\n{fractions[n]:.0%}" for n in shown])
    axes.minorticks_off()
    axes.set(
        xlabel="labelled windows",
        ylabel="balanced accuracy, new subjects",
        title=f"{task['folder']}: {len(task['classes'])} classes, windows of {task['window_s']:g} s",
    )
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_series(document: dict[str, Any], path: Path) -> None:
    """Write a picture: balanced accuracy over the series' setting, a panel per share of the labels.

    A line per series, bars of one SD over seeds; a net of a series that was also scored untrained leaves a
    band, its mean and one SD to either side.
    """
    plt = _pyplot()
    rows: Rows = [row for row in document["summary"] if row.get("series")]
    fractions = sorted({row["fraction"] for row in rows})
    size = (1.6 + 3.4 * len(fractions), 3.8)
    figure, panels = plt.subplots(
        1, len(fractions), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, fraction in zip(panels[0], fractions, strict=True):
        mine = [row for row in rows if row["fraction"] == fraction]
        _panel(axes, mine)
        axes.set_title(f"{fraction:.0%} of the labels ({mine[0]['n_labels']})", fontsize=10)
        axes.set_xlabel(document["at_label"])
        axes.spines[["top", "right"]].set_visible(False)
    chance = 1 / len(document["task"]["classes"])  # far below all lines: as one it would press them flat
    panels[0][0].set_ylabel(f"balanced accuracy, new subjects (chance {chance:.2f})")
    entries = {
        label: handle
        for axes in panels[0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), frameon=False, loc="outside right upper", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(axes: Any, rows: Rows) -> None:
    """Draw the lines of a panel's trained nets and the bands of its untrained ones."""
    series = list(dict.fromkeys(row["series"] for row in rows))
    shift = 0.006 * float(np.ptp([row["at"] for row in rows]))  # bars beside each other
    for i, name in enumerate(series):
        mine = [row for row in rows if row["series"] == name and not row.get("twin_of")]
        mine = sorted(mine, key=lambda row: float(row["at"]))
        x = np.array([row["at"] for row in mine]) + shift * (i - (len(series) - 1) / 2)
        _line(axes, x, mine, COLOURS[i % len(COLOURS)], name)
    twins = [row for row in rows if row.get("twin_of")]
    for i, row in enumerate(twins):
        low, high = row["balanced_accuracy"] - row["sd"], row["balanced_accuracy"] + row["sd"]
        grey, label = str(0.75 - 0.25 * (i % 3)), row["model"] if len(twins) > 1 else "untrained"
        axes.axhspan(low, high, color=grey, alpha=0.5, lw=0, label=label)
        axes.axhline(row["balanced_accuracy"], color=grey, lw=1)
    axes.set_xticks(sorted({row["at"] for row in rows}))


def _pyplot() -> Any:
    """Return pyplot, drawing to files."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _line(axes: Any, x: Any, rows: Rows, colour: str, label: str, **style: Any) -> None:
    """Draw the rows' means at ``x``, with bars of one SD."""
    y, sd = (np.array([row[key] for row in rows], dtype=float) for key in ("balanced_accuracy", "sd"))
    axes.errorbar(x, y, sd, color=colour, marker="o", ms=5, lw=1.6, capsize=3, label=label, **style)


def _chance(axes: Any, task: dict[str, Any]) -> None:
    chance = 1 / len(task["classes"])
    axes.axhline(chance, color="#999999", lw=1, ls=":")
    axes.annotate("chance", (1, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", size=8)
    axes.spines[["top", "right"]].set_visible(False)
