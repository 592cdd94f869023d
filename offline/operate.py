"""Writes into a bundle how it decides, and what is to be expected at which rate of false activations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import MANIFEST, Bundle, load
from engine.decision import DecisionSettings
from engine.manifest import PRODUCTS
from engine.operating import OperatingPoint
from offline.activations import tally
from offline.evaluate.played import Played, play
from offline.evaluate.recordings import Options, find_people, fits_protocol, openers, task_of
from offline.operating import CONFIDENCE, fit
from offline.probe.tasks import Session
from streamer.errors import ConfigError, RecordingError, StreamMismatch

Progress = Callable[[str, int, int], None]


def operate(
    reference: str | Path,
    data: str | Path,
    output: str | Path,
    subjects: Sequence[str] | None = None,
    *,
    options: Options | None = None,
    progress: Progress = lambda subject, done, total: None,
) -> Bundle:
    """Fit a bundle's decision stage on these people's recordings, and write the bundle anew.

    Recordings that the bundle was trained on are left out: it is surer of those than of anybody's.

    Parameters
    ----------
    reference : str or Path
        A bundle's folder, or the name of a shipped one.
    data : str or Path
        Folder of recordings.
    output : str or Path
        Of the new bundle; may be the folder of the old one.
    subjects : sequence of str, optional
        Everybody by default.
    options : Options, optional
        How the folder is read, beside what the bundle says of it.

    Raises
    ------
    ConfigError
        The bundle has no idle class, so nothing that it says is false.
    RecordingError
        No recording that it can be measured on.
    """
    bundle = load(reference)
    if bundle.readout.idle is None:
        raise ConfigError(
            f"Bundle {bundle.label} has no idle class: it always says one of "
            f"{', '.join(bundle.readout.classes)}, and no rate of false activations can be promised."
        )
    sessions = _sessions(bundle, data, subjects, options)
    fitted = _fitted(bundle, sessions, progress)
    if not fitted.points:
        raise RecordingError(
            f"Nothing to measure in {data}: needed are good signal under commands, and without any."
        )
    return _write(bundle, fitted, Path(output))


def operating_for(folder: str | Path, sessions: Sequence[Session]) -> Bundle:
    """Fit a bundle's decision stage on these recordings, and write it into the bundle's own folder.

    A bundle without an idle class stays as it is, and so does one for which there is nothing to measure.

    Parameters
    ----------
    sessions : sequence of Session
        Of people that had no part in the weights.
    """
    bundle = load(folder)
    if bundle.readout.idle is None:
        return bundle
    fitted = _fitted(bundle, sessions, lambda subject, done, total: None)
    return _write(bundle, fitted, bundle.folder) if fitted.points else bundle


@dataclass(frozen=True, slots=True)
class _Fitted:
    """How a bundle is to decide, its operating points, and what they were measured on."""

    settings: DecisionSettings
    points: tuple[OperatingPoint, ...]
    about: dict[str, Any]


def _fitted(bundle: Bundle, sessions: Sequence[Session], progress: Progress) -> _Fitted:
    readout = bundle.readout
    played: list[Played] = []
    with OnnxRuntime().open(bundle) as backend:
        for done, session in enumerate(sessions):
            progress(session.subject, done, len(sessions))
            played.append(play(bundle, backend, session))
    progress("", len(sessions), len(sessions))
    settings, points = fit(played, readout.classes, readout.idle, readout.decision)
    return _Fitted(settings, points, _about(played, bundle) if points else {})


def _sessions(
    bundle: Bundle, data: str | Path, subjects: Sequence[str] | None, options: Options | None
) -> list[Session]:
    """Return the recordings that the bundle can be measured on."""
    task = task_of(bundle, data, options)
    learnt = set(bundle.manifest.provenance.get("fingerprints", {}).get("train", ()))
    found, skipped = [], []
    for subject in find_people(task, subjects):
        for name, read in openers(task, subject):
            try:
                session: Session = read()
                reason = fits_protocol(session, bundle.readout.classes, bundle.readout.idle, task)
            except (RecordingError, StreamMismatch) as error:
                skipped.append(f"{subject.name}/{name}: {error}")
                continue
            if session.fingerprint in learnt:
                skipped.append(f"{subject.name}/{name} was trained on")
            elif reason:
                skipped.append(f"{subject.name}/{name} {reason}")
            else:
                found.append(session)
    if not found:
        raise RecordingError(f"Nothing to measure in {data}: {'; '.join(skipped[:3])}.")
    return found


def _about(played: Sequence[Played], bundle: Bundle) -> dict[str, Any]:
    """Return what the operating points were measured on."""
    readout = bundle.readout
    counted = reduce(add, [tally(one, one.labels, readout.classes, readout.idle) for one in played])
    return {
        "subjects": sorted({one.subject for one in played}),
        "recordings": len(played),
        "commands": len(counted.right),
        "minutes_without_command": round(counted.minutes, 1),
        "false_per_min": f"upper limit of a Poisson count, {100 * CONFIDENCE:g} % confidence, one-sided",
        "hits": "share of the commands whose first label was their own",
    }


def _write(bundle: Bundle, fitted: _Fitted, folder: Path) -> Bundle:
    """Write the bundle as it now decides; the files beside the manifest stay as they are."""
    contents = {name: (bundle.folder / name).read_bytes() for name in bundle.manifest.files}
    changed = {"decision": fitted.settings, "operating": fitted.points}
    manifest = bundle.manifest.model_copy(
        update={
            "readout": bundle.readout.model_copy(update=changed),
            "provenance": bundle.manifest.provenance | {"operating": fitted.about},
        }
    )
    text = json.dumps(manifest.model_dump(mode="json", exclude=set(PRODUCTS) - {manifest.product}), indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**contents, MANIFEST: f"{text}\n".encode()}.items():
        (folder / name).write_bytes(content)
    return load(folder)
