"""`bcitrain evaluate --calibrate-s`: every person's recordings with and without a head of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, digest
from engine.calibrate import refuse_rest
from engine.files import replacing
from engine.head import source_head
from offline.data.fingerprint import asked_of
from offline.evaluate.calibrated import calibrated, row_of, summary
from offline.evaluate.recordings import Options, Task, find_people, task_of
from offline.evaluate.run import identity_of, scorable
from offline.probe.tasks import Session
from offline.provenance import versions
from streamer.components import Config
from streamer.errors import RecordingError

KEPT = "calibrated"  # sub-folder of an evaluation's folder
FORMAT = 6  # of what is kept: another one is made again


class Settings(Config):
    """How much of each person's recordings calibrates.

    Attributes
    ----------
    seconds : float or None
        Signal from the beginning; None: all that `trials` needs.
    trials : int or None
        At most so many labelled trials.
    rest_s : float
        The first so many seconds are rest that the latents are centred on.
    """

    seconds: float | None = None
    trials: int | None = None
    rest_s: float = 0.0


def evaluate_calibrated(
    bundle: Bundle,
    path: str | Path,
    subjects: Sequence[str] | None,
    settings: Settings,
    *,
    options: Options | None = None,
    keep: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Return each person's accuracy on the rest of their recordings, zero-shot and refitted.

    Parameters
    ----------
    keep : Path, optional
        Where each person's row is kept, so that a run goes on where it stopped.

    Returns
    -------
    dict
        As `offline.evaluate.calibrated.summary`, with ``settings``, and ``skipped``: people who cannot be
        scored, and why.

    Raises
    ------
    BundleError
        The bundle carries no head that could be refitted.
    ConfigError
        Rest is to be centred on, and the bundle has no head for that.
    RecordingError
        Nobody can be scored.
    """
    refuse_headless(bundle, settings)
    task, rows, skipped = task_of(bundle, path, options), {}, {}
    people, held = find_people(task, subjects), dict[str, str]()
    with OnnxRuntime().open(bundle) as backend:
        for done, person in enumerate(people):
            progress(f"calibrating: {person.name}", done, len(people))
            sessions = scorable(bundle, task, person, held)
            if not sessions:
                skipped[person.name] = "no recording that can be scored"
                continue
            kept = None if keep is None else _kept_as(keep, bundle, task, settings, sessions)
            row = _read(kept)
            if row is None:
                one = calibrated(bundle, backend, sessions, **settings.model_dump())
                row = row_of(one, bundle, task.protocol)
                _write(kept, row)
            rows[person.name] = row
    scored = {name: row for name, row in rows.items() if row["zero_shot"] == row["zero_shot"]}
    skipped |= {name: row["because"] for name, row in rows.items() if name not in scored}
    if not scored:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise RecordingError(f"Nobody in {path} can be scored behind {_words(settings)}: {why}.")
    return {
        "settings": settings.model_dump(),
        "words": _words(settings),
        "skipped": skipped,
        **summary(scored),
    }


def refuse_headless(bundle: Bundle, settings: Settings) -> None:
    """Refuse a bundle that has no head to be refitted, or none to be centred on rest.

    Raises
    ------
    BundleError, ConfigError
        As `evaluate_calibrated`.
    """
    source = source_head(bundle)
    if settings.rest_s:
        refuse_rest(bundle, source)


def _kept_as(keep: Path, bundle: Bundle, task: Task, settings: Settings, sessions: Sequence[Session]) -> Path:
    """Return where a person's row is kept; all that it depends on is in the name."""
    about = {
        "task": task.settings(),
        "protocol": task.protocol.model_dump(mode="json"),
        "settings": settings.model_dump(),
        "recordings": [asked_of(one.recording) for one in sessions],
        "versions": versions("onnxruntime"),
        "format": FORMAT,
    }
    how = digest(json.dumps(about, sort_keys=True).encode())[:16]
    return keep / KEPT / identity_of(bundle) / f"{how}.json"


def _read(path: Path | None) -> dict[str, Any] | None:
    if path is None or not path.is_file():
        return None
    try:
        row: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecordingError(f"{path} is damaged ({error}): delete it and run the command again.") from error
    return row


def _write(path: Path | None, row: dict[str, Any]) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(row, indent=1) + "\n")


def _words(settings: Settings) -> str:
    """Say how much calibrates."""
    parts = [] if settings.rest_s == 0 else [f"{settings.rest_s:g} s of rest"]
    if settings.trials is not None:
        parts.append(f"{settings.trials} labelled trials")
    if settings.seconds is not None:
        parts.append(f"the first {settings.seconds:g} s")
    return " and ".join(parts)
