"""`bcitrain adapt`: a bundle of one's own, and what such bundles are worth to people."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.bundle import MANIFEST, Bundle
from engine.bundle import load as load_bundle
from offline.adapt import Adapted, Settings, Shown, adapt, shown_by
from offline.card import CARD
from offline.evaluate.answers import answers
from offline.evaluate.calibrated import summary
from offline.evaluate.protocol import Trials
from offline.evaluate.recordings import Options, Task, find_people, task_of
from offline.evaluate.run import scorable
from offline.export import export
from offline.heard import asked_since
from offline.probe.features import Signal
from offline.probe.tasks import Session
from offline.run_folder import RUN, WEIGHTS
from offline.train.data import Side, prepare
from offline.train.run import Run, load_model, load_run
from offline.train.validate import as_played, stepped
from streamer.errors import ConfigError, RecordingError

TRAINING = "training"  # sub-folder of a bundle: the run folder that it was exported from
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """A bundle and the training it comes from.

    Attributes
    ----------
    bundle : Bundle
    run : Run
    model : nn.Module
        With its weights as trained.
    """

    bundle: Bundle
    run: Run
    model: Any


@dataclass(frozen=True, slots=True)
class Person:
    """One person's recordings behind the DSP list, and the trials in them."""

    sessions: tuple[Session, ...]
    side: Side
    shown: Shown
    times: tuple[float, ...]


def origin(reference: str | Path, run_folder: Path | None = None) -> Origin:
    """Read a bundle and the run folder it was exported from, by default its own sub-folder ``training``.

    Raises
    ------
    BundleError
        No such bundle.
    ConfigError
        It carries no training, or the run folder is of another one.
    """
    bundle = load_bundle(reference)
    folder = run_folder or bundle.folder / TRAINING
    if run_folder is None and not folder.is_dir():
        raise ConfigError(
            f"Bundle {bundle.label} does not carry the training from which it could learn on: name the run "
            "folder that it was exported from, --run RUN, or export it with --training."
        )
    run = load_run(folder)
    provenance = bundle.manifest.provenance
    if (provenance.get("recipe"), provenance.get("seed")) != (run.recipe.digest(), run.recipe.seed):
        raise ConfigError(f"{folder} is not the training that bundle {bundle.label} was exported from.")
    return Origin(bundle, run, load_model(run))


def keep_training(run_folder: Path, bundle_folder: Path) -> None:
    """Put what a bundle was trained as into it; `ConfigError` where that is not a training of its own."""
    load_run(run_folder)
    kept = bundle_folder / TRAINING
    kept.mkdir(parents=True, exist_ok=True)
    for name in (RUN, WEIGHTS):
        shutil.copyfile(run_folder / name, kept / name)


def adapt_one(
    one: Origin,
    path: str | Path,
    subject: str | None,
    folder: str | Path,
    settings: Settings,
    *,
    options: Options | None = None,
) -> tuple[Adapted, dict[str, int], Bundle | None]:
    """Adapt a bundle to all trials of one person, and write it where trials left out in turn are for it.

    Returns
    -------
    Adapted, dict of str to int, Bundle or None
        What came of it, the trials of each class, and the new bundle; None: nothing was written.

    Raises
    ------
    ConfigError
        More than one person in the folder, or too few trials.
    RecordingError
        Nothing of that person can be used.
    """
    task = task_of(one.bundle, path, options)
    people = find_people(task, None if subject is None else [subject])
    if len(people) != 1:
        names = ", ".join(person.name for person in people[:5])
        raise ConfigError(
            f"{path} holds recordings of {len(people)} people ({names}): choose one, --subjects."
        )
    person = read_person(one, task, scorable(one.bundle, task, people[0]))
    if person is None:
        raise RecordingError(
            f"No recording of {people[0].name} in {path} can be used: it must hold markers of the bundle's "
            "classes, and have had no part in its training."
        )
    counts = person.shown.counts(one.run.recipe.classes)
    came = adapt(one.model, one.run.recipe, person.shown, settings)
    if not came.better:
        return came, counts, None
    return came, counts, _write(one, came, people[0].name, counts, Path(folder))


def score_people(
    one: Origin,
    path: str | Path,
    subjects: Sequence[str] | None,
    settings: Settings,
    *,
    seconds: float | None = 60.0,
    trials: int | None = None,
    options: Options | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Adapt to each person's first trials, and score the rest without and with it.

    Parameters
    ----------
    seconds, trials : float, int, optional
        How much may be learned from: signal from the beginning, and trials.

    Returns
    -------
    dict
        As `offline.evaluate.calibrated.summary`; ``refitted`` is by the model that would have been kept, and
        each person's ``adapted`` by the adapted one in any case.

    Raises
    ------
    RecordingError
        Nobody can be scored.
    """
    task, rows, skipped = task_of(one.bundle, path, options), {}, {}
    people = find_people(task, subjects)
    for done, subject in enumerate(people):
        progress(f"adapting: {subject.name}", done, len(people))
        person = read_person(one, task, scorable(one.bundle, task, subject))
        if person is None:
            skipped[subject.name] = "no recording that can be scored"
            continue
        until = np.inf if seconds is None else seconds
        n = min(sum(time <= until for time in person.times), len(person.times) if trials is None else trials)
        try:
            rows[subject.name] = _row(one, task, person, n, settings)
        except ConfigError as error:
            skipped[subject.name] = str(error)
    if not rows:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise RecordingError(f"Nobody in {path} can be adapted to and scored: {why}.")
    return {"settings": settings.model_dump(), "skipped": skipped, **summary(rows)}


def read_person(one: Origin, task: Task, sessions: Sequence[Session]) -> Person | None:
    """Preprocess one person's recordings as live and cut their trials out; None where there are none."""
    if not sessions:
        return None
    recipe = one.run.recipe
    signal = Signal(recipe.ch_names, recipe.sfreq, one.run.dsp)
    side = Side(tuple(sessions), tuple(prepare(session, signal, recipe.classes) for session in sessions))
    shown, times = shown_by(one.model, side, recipe)
    return Person(tuple(sessions), side, shown, tuple(times))


def _row(one: Origin, task: Task, person: Person, n: int, settings: Settings) -> dict[str, Any]:
    """Return one person's figures, adapted to the first ``n`` trials and scored on what comes after."""
    if n == len(person.shown):
        raise ConfigError("nothing is left behind the trials that are learned from")
    came = adapt(one.model, one.run.recipe, person.shown.take(range(n)), settings)
    before, after = (
        _right(one, task, person, model, person.times[n - 1]) for model in (one.model, came.model)
    )
    kept = after if came.better else before
    return {
        "zero_shot": round(before, 4),
        "adapted": round(after, 4),
        "refitted": round(kept, 4),
        "gain_points": round(100 * (kept - before), 2),
        "new_head": came.better,
        "trials": n,
        "because": f"cross-entropy of left-out trials {came.before:.3f}, adapted {came.after:.3f}",
    }


def _right(one: Origin, task: Task, person: Person, model: Any, since: float) -> float:
    """Return the share of right answers to cues that came after so many seconds of signal."""
    recipe, protocol = one.run.recipe, task.protocol
    assert isinstance(protocol, Trials)
    logits = stepped(model, person.side.prepared)
    played = as_played(logits, person.side, recipe, model.left_context, one.bundle.readout.temperature)
    rest, begun = [], 0.0
    for some in played:
        rest.append(replace(some, markers=tuple(asked_since(some.markers, since - begun, True))))
        begun += some.duration_s
    said = answers(rest, recipe.classes, recipe.idle, protocol)
    return float(said.right.mean()) if len(said) else float("nan")


def _write(one: Origin, came: Adapted, subject: str, counts: dict[str, int], folder: Path) -> Bundle:
    """Write the adapted bundle: all but the weights is the origin's."""
    readout, recipe = one.bundle.readout, one.run.recipe
    version = f"{one.bundle.manifest.version}+{subject}"
    run = one.run.model_copy(
        update={
            "recipe": recipe.model_copy(update={"card": recipe.card.model_copy(update={"version": version})}),
            "temperature": readout.temperature,
            "decision": readout.decision,
            "operating": readout.operating,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(_card(one, came, subject, counts))
    export(run, folder, model=came.model)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["provenance"]["adapted"] = {
        "from": one.bundle.label,
        "subject": subject,
        "trials": counts,
        "cross_entropy": {"before": round(came.before, 4), "after": round(came.after, 4)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return load_bundle(folder)


def _card(one: Origin, came: Adapted, subject: str, counts: dict[str, int]) -> str:
    shown = ", ".join(f"{count} of {name}" for name, count in counts.items())
    return (
        f"# {one.bundle.manifest.title}: {subject}\n\n"
        f"`{one.bundle.label}` adapted to one person, from {shown}, by `bcitrain adapt`: its filters over "
        f"electrodes are {subject}'s. Trials that were left out in turn were answered with a cross-entropy "
        f"of {came.after:.3f} nats, {came.before:.3f} before. Decision stage and operating points are "
        f"those of `{one.bundle.label}`, measured on other people; data, protocol and limits: its card.\n"
    )
