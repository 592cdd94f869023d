"""Reads what a benchmark kept of people whom its nets did not know: `read_played`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.bundle import Bundle
from offline.benchmark.cells import ABOUT
from offline.data.sources import select
from offline.design import design_of, differing
from offline.evaluate.played import Played
from streamer.errors import RecordingError


def read_played(folder: Path, bundle: Bundle, subjects: Sequence[str] | None = None) -> list[Played]:
    """Return the played recordings of a benchmark's model, or of one of its cells.

    Of several seeds only the first one's: the same people's recordings would count several times.

    Parameters
    ----------
    folder : Path
        ``cells/MODEL`` of a benchmark, or a folder below it; folders that begin with a dot are not whole.
    bundle : Bundle
        That they must fit: in its design (`offline.design`) where the cells tell theirs, in the number of
        classes, and in the time from one decision to the next.
    subjects : sequence of str, optional
        Only these, names or ranges.

    Raises
    ------
    RecordingError
        No such folder, nothing in it, somebody who is not there, a damaged file, of another bundle's kind, or
        cells of more than one recipe.
    """
    for place in _places(folder):
        _refuse_other(place, bundle)
    paths = [path for place in _places(folder) for path in sorted(place.glob("*.npz"))]
    if not paths:
        raise RecordingError(
            f"No played recordings in {folder}: expected the cells of one model of a benchmark, such as "
            "runs/benchmark_imagery/cells/ours."
        )
    played = [_fitting(path, bundle) for path in paths]
    if subjects is None:
        return played
    kept = set(select(sorted({one.subject for one in played}), subjects, str(folder)))
    return [one for one in played if one.subject in kept]


def temperature_of(folder: Path) -> float | None:
    """Return the median of the temperatures of a benchmark's nets of one model and seed; None of no cell.

    Each was fitted to the few people that its own fold validated on; together they are many.  Not the mean:
    five folds of `workload` have .95 to 1.04, the sixth 6.0.
    """
    found = [about["temperature"] for place in _places(folder) if (about := _about(place)) is not None]
    return statistics.median(found) if found else None


def told_design(folder: Path) -> bool:
    """Whether every cell tells of what design its net is; those of before do not."""
    told = [about for place in _places(folder) if (about := _about(place)) is not None]
    return bool(told) and all(about["design"] is not None for about in told)


def _refuse_other(place: Path, bundle: Bundle) -> None:
    """Refuse a cell whose net is of another design than the bundle, or is none."""
    about = _about(place)
    if about is None:
        return
    take = "Take the cells of the bundle's own recipe."
    if about["classical"]:
        raise RecordingError(f"{place} is of {about['model']}, which is no net. {take}")
    if wrong := differing(design_of(bundle), about["design"] or {}):
        raise RecordingError(
            f"{place} is of {about['model']}: its net and bundle {bundle.label} differ in "
            f"{', '.join(wrong)}. {take}"
        )


def _places(folder: Path) -> list[Path]:
    """Return the folder itself where it is a cell, else also those below it that are of the first seed."""
    if (folder / ABOUT).is_file() or not folder.is_dir():
        return [folder]
    below = [place for place in sorted(folder.iterdir()) if place.is_dir() and place.name[0] != "."]
    told = {place: about for place in below if (about := _about(place)) is not None}
    if len({about["recipe"] for about in told.values()}) > 1:
        raise RecordingError(
            f"The cells in {folder} are not all of one recipe: run its benchmark to the end, then take them."
        )
    first = min((about["seed"] for about in told.values()), default=None)
    return [folder, *(place for place in below if place not in told or told[place]["seed"] == first)]


def _about(place: Path) -> dict[str, Any] | None:
    """Return what a cell says of itself; None where the folder is none."""
    path = place / ABOUT
    if not path.is_file():
        return None
    try:
        about = json.loads(path.read_text())
        return {
            "seed": int(about["seed"]),
            "recipe": about.get("recipe"),  # cells of before it was told have none
            "temperature": float(about["temperature"]),
            "model": str(about.get("model", place.parent.name)),
            "design": about.get("design") and dict(about["design"]),  # nor this
            "classical": "design" in about and about["design"] is None,
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordingError(f"{path} is damaged ({error}): run the benchmark again.") from error


def _fitting(path: Path, bundle: Bundle) -> Played:
    played = Played.load(path)
    n_classes, hop_s = len(bundle.readout.classes), bundle.manifest.graph.hop / bundle.manifest.input.sfreq
    if played.log_probs.shape[1] != n_classes or abs(played.hop_s - hop_s) > 1e-3 * hop_s:
        raise RecordingError(
            f"{path} holds decisions among {played.log_probs.shape[1]} classes every {played.hop_s:g} s; "
            f"bundle {bundle.label} decides among {n_classes} every {hop_s:g} s. Take the cells "
            "of its own recipe."
        )
    return played
