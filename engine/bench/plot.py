"""A picture of the latencies: how many answers came later than so many milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.bench.compare import Latencies
from engine.bench.consumers import FLOOR, OURS, PEERS
from streamer.errors import ConfigError, MissingDependency

PANEL_WIDTH, HEIGHT = 4.6, 3.8  # inches
COLOURS = {FLOOR: "0.45", OURS: "C0", **{name: f"C{i}" for i, name in enumerate(PEERS, 1) if name != FLOOR}}


def need() -> None:
    """Raise `MissingDependency` where there is nothing to draw with."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            "--plot draws with matplotlib, which is not installed: pip install matplotlib"
        ) from error


def draw(latencies: Mapping[str, Latencies], path: Path) -> None:
    """Write one panel per comparison to ``path``; its ending chooses the format.

    Raises
    ------
    ConfigError
        No latency was measured, or matplotlib does not write files with this ending.
    """
    from matplotlib.figure import Figure

    panels = {title: found for title, found in latencies.items() if any(ms.size for ms in found.values())}
    if not panels:
        raise ConfigError("There is no latency to draw: --plot goes with --what transport or decision.")
    figure = Figure(figsize=(PANEL_WIDTH * len(panels), HEIGHT), layout="constrained")
    for axes, title in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, title, panels[title])
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _panel(axes: Any, title: str, found: Latencies) -> None:
    for name, ms in found.items():
        if ms.size:
            later = 1 - np.arange(ms.size) / ms.size
            label = f"{name}, median {np.median(ms):.2f} ms"
            line = "--" if name == FLOOR else "-"
            axes.step(np.sort(ms), later, where="pre", label=label, color=COLOURS.get(name), linestyle=line)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set(xscale="log", yscale="log", xlabel="ms from push to callback", ylabel="share that took longer")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(which="major", alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
