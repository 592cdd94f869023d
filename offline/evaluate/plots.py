"""An evaluation as pictures: accuracy over time, hits against false activations, reliability, coverage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Document = dict[str, Any]
COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#666666", "#a6761d", "#000000")
FAINT = 0.22
MOST_LINES = 24  # of single subjects, beyond which they are a fog
FEWEST_KEPT = 10  # answers, below which their accuracy is chance


def draw_all(content: Document, folder: Path) -> list[Path]:
    """Write every picture that the document has figures for, remove the others; returns their paths."""
    made = content["evaluations"]
    pictures: dict[str, tuple[Callable[[Any, Sequence[Document]], None], list[Document]]] = {
        "time_after_cue.png": (_over_time, [one for one in made if one["over_time"]]),
        "hits_false.png": (_hits_false, [one for one in made if one["idle"] and _drawable(one)]),
        "reliability.png": (_reliability, [one for one in made if one["reliability"]["hops"]]),
        "coverage.png": (_coverage, [one for one in made if one["n"]]),
        "calibrated.png": (_calibrated, [one for one in made if one.get("calibrated")]),
    }
    for name, (_, some) in pictures.items():
        if not some:
            (folder / name).unlink(missing_ok=True)  # of an earlier report: this one says nothing of it
    return [_paint(folder / name, paint, some) for name, (paint, some) in pictures.items() if some]


def _paint(path: Path, paint: Callable[[Any, Sequence[Document]], None], made: Sequence[Document]) -> Path:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(7.2, 4.6), layout="constrained")
    paint(figure, made)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _over_time(figure: Any, made: Sequence[Document]) -> None:
    """Draw the mean over subjects, thick, and each subject, thin, per bundle."""
    axes = figure.subplots()
    people = sum(len(one["over_time"]["per_subject"]) for one in made)
    for one, colour in zip(made, _colours(made), strict=True):
        table = one["over_time"]
        if people <= MOST_LINES:
            for line in table["per_subject"].values():
                axes.plot(table["seconds"], _gaps(line), color=colour, lw=0.7, alpha=FAINT)
        label = f"{one['bundle']} ({one['subjects']['n']} subjects)"
        axes.plot(table["seconds"], table["accuracy"], color=colour, lw=2.2, label=label)
    answered = sorted({one["protocol_settings"]["at_s"] for one in made})
    for at_s in answered:
        axes.axvline(at_s, color="#999999", lw=0.8, ls=":")
    n_classes = {len(one["classes"]) - (one["idle_class"] is not None) for one in made}
    _chance(axes, n_classes)
    axes.set(
        xlabel="time after the cue (s); dotted: when the answer is scored",
        ylabel="accuracy of the answer by then",
        ylim=(None, 1.0),
    )
    axes.set_title(f"Accuracy by time after the cue{_thin(people)}", fontsize=10)
    axes.legend(frameon=False, loc="upper left", fontsize=8)


def _calibrated(figure: Any, made: Sequence[Document]) -> None:
    """Draw a line per person from zero-shot to refitted, dashed where the head was kept, and their mean."""
    every = figure.subplots(1, len(made), squeeze=False, sharey=True)[0]
    for axes, one, colour in zip(every, made, _colours(made), strict=True):
        found = one["calibrated"]
        for row in found["per_subject"].values():
            style = "-" if row["new_head"] else ":"
            axes.plot([0, 1], [row["zero_shot"], row["refitted"]], style, color=colour, lw=0.9, alpha=0.6)
        axes.plot([0, 1], [found["zero_shot"], found["refitted"]], "o-", color="#000000", lw=2.2)
        label = f"calibrated by\n{found['words']}"
        axes.set(xlim=(-0.2, 1.2), xticks=[0, 1], xticklabels=["zero-shot", label], title=one["bundle"])
    every[0].set_ylabel("accuracy on the rest")


def _hits_false(figure: Any, made: Sequence[Document]) -> None:
    """Draw a curve per bundle and, as a full dot, the bundle's own settings."""
    axes = figure.subplots()
    for one, colour in zip(made, _colours(made), strict=True):
        rows = [row for row in one["idle"]["curve"] if row["hits"] is not None]
        x = [row["false_activations_per_min"] for row in rows]
        axes.plot(
            x,
            [row["hits"] for row in rows],
            "-o",
            color=colour,
            ms=3,
            lw=1.6,
            mfc="white",
            label=one["bundle"],
        )
        axes.plot(x, [row["wrong_side"] for row in rows], "--", color=colour, lw=1, alpha=0.7)
        own = one["idle"]
        axes.plot(own["false_activations_per_min"], own["hits"], "o", color=colour, ms=8)
    axes.plot([], [], "--", color="#666666", lw=1, label="wrong class instead")
    axes.plot([], [], "o", color="#666666", ms=8, ls="none", label="at the bundle's own bound")
    axes.set(
        xlabel="false activations per minute of idle",
        ylabel="share of the commands",
        ylim=(0, 1),
        xlim=(0, None),
    )
    minutes = max(one["idle"]["idle_minutes"] for one in made)
    axes.set_title(f"Hits against false activations, over {minutes:.0f} min of idle", fontsize=10)
    axes.legend(frameon=False, loc="upper left", fontsize=8)


def _reliability(figure: Any, made: Sequence[Document]) -> None:
    """Draw accuracy over confidence in bins of equally many, of hops and of answers; bars of one SE."""
    panels = figure.subplots(1, 2, sharey=True)
    for axes, what in zip(panels, ("hops", "answers"), strict=True):
        axes.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
        low = 1.0
        for one, colour in zip(made, _colours(made), strict=True):
            rows = one["reliability"][what]
            x, y, n = ([row[key] for row in rows] for key in ("confidence", "accuracy", "n"))
            low = min([low, *x])
            bars = [math.sqrt(max(p * (1 - p), 0.0) / some) for p, some in zip(y, n, strict=True)]
            label = f"{one['bundle']}: ECE {one['ece'][what]:.3f}" if rows else None
            axes.errorbar(x, y, bars, fmt="o-", color=colour, ms=3, lw=1, elinewidth=0.7, label=label)
        counts = " / ".join(str(sum(row["n"] for row in one["reliability"][what])) for one in made)
        axes.set_title(f"{counts} {what}", fontsize=10)
        axes.set(xlabel="confidence, mean of the bin", xlim=(max(0.0, low - 0.05), 1), ylim=(0, 1.02))
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, loc="lower right", fontsize=8)
    panels[0].set_ylabel("accuracy in the bin")
    figure.suptitle("Reliability; dotted: as confident as right; bars: one standard error", fontsize=10)


def _coverage(figure: Any, made: Sequence[Document]) -> None:
    """Draw the accuracy of what is kept over how much is kept."""
    axes = figure.subplots()
    for one, colour in zip(made, _colours(made), strict=True):
        rows = [row for row in one["coverage_risk"]["curve"] if row["coverage"] * one["n"] >= FEWEST_KEPT]
        label = f"{one['bundle']}: area {one['coverage_risk']['area']:.3f}"
        x, y = [row["coverage"] for row in rows], [row["accuracy"] for row in rows]
        axes.plot(x, y, color=colour, lw=1.8, label=label)
    axes.set(
        xlabel="share of the answers kept, the most confident first",
        ylabel="accuracy of what is kept",
        xlim=(0, 1),
        ylim=(None, 1.01),
    )
    axes.set_title(
        f"What rejecting the least confident answers buys; from {FEWEST_KEPT} answers kept", fontsize=10
    )
    axes.legend(frameon=False, loc="upper right", fontsize=8)


def _colours(made: Sequence[Document]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(made))]


def _drawable(one: Document) -> bool:
    return one["idle"]["hits"] is not None and one["idle"]["false_activations_per_min"] is not None


def _gaps(line: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in line]


def _chance(axes: Any, n_classes: set[int]) -> None:
    for n in n_classes:
        axes.axhline(1 / n, color="#999999", lw=1, ls=":")
        axes.annotate(
            "chance", (1, 1 / n), xycoords=("axes fraction", "data"), ha="right", va="bottom", size=8
        )


def _thin(people: int) -> str:
    return "; thin: single subjects" if people <= MOST_LINES else ""
