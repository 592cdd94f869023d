"""`bcitrain personalise`: a bundle of one's own, and what such bundles are worth to people."""

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
from offline.card import CARD
from offline.evaluate.answers import answers
from offline.evaluate.calibrated import summary
from offline.evaluate.decide import decide
from offline.evaluate.idle import idle_figures
from offline.evaluate.played import Played
from offline.evaluate.recordings import Options, Task, find_people, task_of
from offline.evaluate.run import scorable
from offline.export import export
from offline.heard import asked_since
from offline.personal_filters import Adapted, Settings, Shown, adapt, shown_by
from offline.probe.features import Signal
from offline.probe.tasks import Session
from offline.run_folder import RUN, WEIGHTS
from offline.train.data import Side, prepare
from offline.train.run import Run, load_model, load_run
from offline.train.validate import as_played, stepped
from streamer.errors import ConfigError, RecordingError

LIVE = ("hits", "wrong_side", "false_activations_per_min", "median_time_to_decision_s")
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


def personalise_one(
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
        each person's ``personal`` by that of their own in any case.

    Raises
    ------
    RecordingError
        Nobody can be scored.
    """
    task, rows, skipped = task_of(one.bundle, path, options), {}, {}
    live: dict[str, list[Played]] = {"as_it_was": [], "personal": []}
    people = find_people(task, subjects)
    for done, subject in enumerate(people):
        progress(f"personalising: {subject.name}", done, len(people))
        person = read_person(one, task, scorable(one.bundle, task, subject))
        if person is None:
            skipped[subject.name] = "no recording that can be scored"
            continue
        until = np.inf if seconds is None else seconds
        n = min(int((person.shown.times <= until).sum()), len(person.shown) if trials is None else trials)
        try:
            rows[subject.name] = _row(one, task, person, n, settings, live)
        except ConfigError as error:
            skipped[subject.name] = str(error)
    if not rows:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise RecordingError(f"Nobody in {path} can be adapted to and scored: {why}.")
    figures = {name: _live(one, task, played) for name, played in live.items()}
    return {"settings": settings.model_dump(), "skipped": skipped, "live": figures, **summary(rows)}


def read_person(one: Origin, task: Task, sessions: Sequence[Session]) -> Person | None:
    """Preprocess one person's recordings as live and cut their trials out; None where there are none."""
    if not sessions:
        return None
    recipe = one.run.recipe
    signal = Signal(recipe.ch_names, recipe.sfreq, one.run.dsp)
    side = Side(tuple(sessions), tuple(prepare(session, signal, recipe.classes) for session in sessions))
    return Person(tuple(sessions), side, shown_by(one.model, side, recipe))


def _row(
    one: Origin, task: Task, person: Person, n: int, settings: Settings, live: dict[str, list[Played]]
) -> dict[str, Any]:
    """Return one person's figures, adapted to the first ``n`` trials and scored on what comes after.

    What the model as it was and the one that is kept said of that is added to ``live``.
    """
    if n == len(person.shown):
        raise ConfigError("nothing is left behind the trials that are learned from")
    came = adapt(one.model, one.run.recipe, person.shown.first(n), settings)
    since = float(person.shown.times[n - 1])
    rest = [
        _rest(one, person, model, since, bolder)
        for model, bolder in ((one.model, 1.0), (came.model, came.bolder))
    ]
    before, after = (_right(one, task, played) for played in rest)
    kept = after if came.better else before
    live["as_it_was"] += rest[0]
    live["personal"] += rest[int(came.better)]
    return {
        "zero_shot": round(before, 4),
        "personal": round(after, 4),
        "refitted": round(kept, 4),
        "gain_points": round(100 * (kept - before), 2),
        "taken": came.better,
        "new_head": came.better,
        "trials": n,
        "bolder": round(came.bolder, 3),
        "because": f"cross-entropy of left-out trials {came.before:.3f}, adapted {came.after:.3f}",
    }


def _rest(one: Origin, person: Person, model: Any, since: float, bolder: float) -> list[Played]:
    """Return what a model says after so many seconds of signal, at a temperature so much higher."""
    readout, recipe = one.bundle.readout, one.run.recipe
    logits = stepped(model, person.side.prepared)
    temperature, rest, begun = bolder * readout.temperature, [], 0.0
    for some in as_played(logits, person.side, recipe, model.left_context, temperature):
        labels = decide(some, readout.decision, readout.classes, readout.idle)
        left, cut = some.times >= since - begun, since - begun
        if left.any():
            rest.append(
                replace(
                    some,
                    times=some.times[left],
                    log_probs=some.log_probs[left],
                    valid=some.valid[left],
                    labels=labels[left],
                    markers=tuple(asked_since(some.markers, cut, True)),
                )
            )
        begun += some.duration_s
    return rest


def _right(one: Origin, task: Task, rest: Sequence[Played]) -> float:
    """Return the share of right answers."""
    said = answers(rest, one.bundle.readout.classes, one.bundle.readout.idle, task.protocol)
    return float(said.right.mean()) if len(said) else float("nan")


def _live(one: Origin, task: Task, played: Sequence[Played]) -> dict[str, Any] | None:
    """Return how often commands are hit by the bundle's own decision stage, and at what price."""
    readout = one.bundle.readout
    if readout.idle is None:
        return None
    settings = (readout.classes, readout.idle, readout.decision)
    figures = idle_figures(played, *settings, live=task.protocol.live)
    return {name: figures[name] for name in LIVE}


def _write(one: Origin, came: Adapted, subject: str, counts: dict[str, int], folder: Path) -> Bundle:
    """Write the adapted bundle: all but the weights is the origin's."""
    readout, recipe = one.bundle.readout, one.run.recipe
    version = f"{one.bundle.manifest.version}+{subject}"
    run = one.run.model_copy(
        update={
            "recipe": recipe.model_copy(update={"card": recipe.card.model_copy(update={"version": version})}),
            "temperature": came.bolder * readout.temperature,
            "decision": readout.decision,
            "operating": readout.operating,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(_card(one, came, subject, counts))
    export(run, folder, model=came.model)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["provenance"]["personal"] = {
        "from": one.bundle.label,
        "subject": subject,
        "trials": counts,
        "cross_entropy": {"before": round(came.before, 4), "after": round(came.after, 4)},
        "bolder": round(came.bolder, 4),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return load_bundle(folder)


def _card(one: Origin, came: Adapted, subject: str, counts: dict[str, int]) -> str:
    shown = ", ".join(f"{count} of {name}" for name, count in counts.items())
    label = one.bundle.label
    return (
        f"# {one.bundle.manifest.title}: {subject}\n\n"
        f"`{label}` made one person's by `bcitrain personalise`, from {shown}: its filters over electrodes "
        f"are {subject}'s. Trials that were left out in turn were answered with a cross-entropy of "
        f"{came.after:.3f} nats, {came.before:.3f} before. Decision stage and operating points are those of "
        f"`{label}`, measured on other people; data, protocol and limits: its card.\n"
    )
