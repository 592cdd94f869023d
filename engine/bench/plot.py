"""A picture of the latencies: how many answers came later than so many milliseconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.bench.compare import Latencies
from engine.bench.consumers import FLOOR, OURS, PEERS
from streamer.errors import ConfigError, MissingDependency

DRAWN = ("transport", "decision")  # jobs with latencies
PANEL_WIDTH, HEIGHT = 4.6, 3.8  # inches
COLOURS = {FLOOR: "0.45", OURS: "C0", **{name: f"C{i}" for i, name in enumerate(PEERS, 1) if name != FLOOR}}


def need(path: Path, what: Collection[str]) -> None:
    """See before anything is measured that its latencies can be drawn.

    Raises
    ------
    ConfigError
        None of these jobs has latencies, matplotlib writes no files with this ending, or there is no such
        folder.
    MissingDependency
        There is nothing to draw with.
    """
    if not set(DRAWN) & set(what):
        raise ConfigError(f"There is no latency to draw: --plot goes with --what {' or '.join(DRAWN)}.")
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise MissingDependency(
            "--plot draws with matplotlib, which is not installed: pip install matplotlib"
        ) from error
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in known:
        raise ConfigError(f"--plot {path}: its ending is to be one of .{', .'.join(known)}.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--plot {path}: there is no folder {path.parent}.")


def draw(latencies: Mapping[str, Latencies], path: Path) -> bool:
    """Write one panel per comparison to ``path``, which `need` has seen; return whether there was any.

    There is none where every system lost samples.
    """
    from matplotlib.figure import Figure

    panels = {title: found for title, found in latencies.items() if any(ms.size for ms in found.values())}
    if not panels:
        return False
    figure = Figure(figsize=(PANEL_WIDTH * len(panels), HEIGHT), layout="constrained")
    for axes, title in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, title, panels[title])
    figure.savefig(path, dpi=150)
    return True


def _panel(axes: Any, title: str, found: Latencies) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for name, ms in found.items():
        if ms.size:
            later = 1 - np.arange(ms.size) / ms.size
            label = f"{name}, median {np.median(ms):.2f} ms"
            line = "--" if name == FLOOR else "-"
            axes.step(np.sort(ms), later, where="pre", label=label, color=COLOURS.get(name), linestyle=line)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set(xscale="log", yscale="log", xlabel="ms from push to callback", ylabel="share that took longer")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())  # else it writes over the others within a decade
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(which="major", alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
