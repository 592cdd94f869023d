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
from offline.data.sources import Subject
from offline.evaluate.answers import answers
from offline.evaluate.decide import decide
from offline.evaluate.idle import idle_figures
from offline.evaluate.played import Played
from offline.evaluate.recordings import Options, Task, find_people, fits_protocol, openers, task_of
from offline.evaluate.run import trained_on
from offline.export import export
from offline.export_graph import check_parity, probes, streamlined
from offline.heard import asked_since
from offline.personal_filters import Adapted, Settings, Shown, adapt, refuse, shown_by
from offline.probe.features import Signal
from offline.probe.tasks import Session
from offline.run_folder import RUN, WEIGHTS
from offline.train.data import Side, prepare
from offline.train.run import Run, load_model, load_run
from offline.train.validate import as_played, stepped
from streamer.errors import BundleError, ConfigError, RecordingError, StreamMismatch

LIVE = ("hits", "wrong_side", "false_activations_per_min", "median_time_to_decision_s")
TRAINING = "training"  # sub-folder of a bundle: the run folder that it was exported from
SLACK_S = 1e-3  # what a cue's stamp may be off by from the sample it falls on
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
    """One person's recordings behind the DSP list, what was asked in them, and why others were left out."""

    name: str
    side: Side
    shown: Shown
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Own:
    """What became of one person's bundle; ``bundle`` is None where the old one was kept."""

    came: Adapted
    person: Person
    trials: dict[str, int]
    bundle: Bundle | None


def origin(reference: str | Path, run_folder: Path | None = None) -> Origin:
    """Read a bundle and the run folder it was exported from, by default its own sub-folder ``training``.

    Raises
    ------
    BundleError
        No such bundle.
    ConfigError
        It carries no training, the run folder is of another one, or its model cannot be a person's own.
    """
    bundle = load_bundle(reference)
    if own := bundle.manifest.provenance.get("personal"):
        raise ConfigError(
            f"Bundle {bundle.label} is one person's already: personalise {own.get('from')} with all of their "
            "recordings instead."
        )
    folder = run_folder or bundle.folder / TRAINING
    if run_folder is None and not folder.is_dir():
        raise ConfigError(
            f"Bundle {bundle.label} does not carry the training from which it could learn on: name the run "
            "folder that it was exported from, --run RUN, or export it with --training."
        )
    run = load_run(folder)
    model, n_chans = load_model(run), run.recipe.model.n_chans
    refuse(model, run.recipe)
    exported, graph = streamlined(load_model(run), n_chans), bundle.manifest.graph
    try:
        check_parity(exported, bundle.graph_bytes, graph, probes(exported, n_chans, graph))
    except (BundleError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{folder} is not the training that bundle {bundle.label} was exported from: its model says "
            "other things than the graph."
        ) from error
    return Origin(bundle, run, model)


def keep_training(run_folder: Path, bundle_folder: Path) -> None:
    """Put what a bundle was trained as into it."""
    kept = bundle_folder / TRAINING
    kept.mkdir(parents=True, exist_ok=True)
    for name in (RUN, WEIGHTS):
        shutil.copyfile(run_folder / name, kept / name)


def personalise(
    one: Origin,
    path: str | Path,
    subject: str | None,
    folder: str | Path,
    settings: Settings,
    *,
    options: Options | None = None,
) -> Own:
    """Fit a bundle to all trials of one person, and write it where trials left out in turn are for it.

    Raises
    ------
    ConfigError
        The folder is there already, there is more than one person, or too few trials.
    RecordingError
        Nothing of that person can be used.
    """
    target = Path(folder)
    if target.exists():
        raise ConfigError(f"{target} is there already: name a new folder for the bundle.")
    task = task_of(one.bundle, path, options)
    people = find_people(task, None if subject is None else [subject])
    if len(people) != 1:
        names = ", ".join(person.name for person in people[:5])
        raise ConfigError(f"{path} is of {len(people)} people ({names}): choose one, --subjects.")
    person = read_person(one, task, people[0])
    came = adapt(one.model, one.run.recipe, person.shown, settings, one.bundle.readout.temperature)
    counts = person.shown.counts(one.run.recipe.classes)
    return Own(came, person, counts, _write(one, came, person, counts, target) if came.better else None)


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
    """Fit to each person's first trials, and score what comes after them without and with it.

    Parameters
    ----------
    seconds, trials : float, int, optional
        How much may be learned from: signal from the beginning, and trials.

    Returns
    -------
    dict
        ``per_subject`` with the accuracy as it was (``zero_shot``), ``personal``, whether that was ``taken``
        and so what is ``kept``; means; ``live`` use before and after; ``skipped`` people, with the reason.

    Raises
    ------
    RecordingError
        Nobody can be scored.
    """
    task, rows, skipped = task_of(one.bundle, path, options), {}, {}
    live: dict[str, list[Played]] = {"as_it_was": [], "kept": []}
    people = find_people(task, subjects)
    for done, subject in enumerate(people):
        progress(f"personalising: {subject.name}", done, len(people))
        try:
            person = read_person(one, task, subject)
            until = np.inf if seconds is None else seconds
            n = int((person.shown.answered <= until).sum())
            n = n if trials is None else min(n, trials)
            rows[subject.name] = _row(one, task, person, n, settings, live)
        except (ConfigError, RecordingError, StreamMismatch) as error:
            skipped[subject.name] = str(error)
    if not rows:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise RecordingError(f"Nobody in {path} can be scored: {why}")
    figures = {name: _live(one, task, played) for name, played in live.items()}
    return {"settings": settings.model_dump(), "skipped": skipped, "live": figures, **_summary(rows)}


def read_person(one: Origin, task: Task, subject: Subject) -> Person:
    """Preprocess one person's recordings as live and cut their trials out.

    Raises
    ------
    RecordingError
        None can be used; says why.
    StreamMismatch
        A recording lacks a channel.
    """
    sessions, left_out = _usable(one, task, subject)
    if not sessions:
        raise RecordingError(f"No recording of {subject.name} can be used: {'; '.join(left_out)}.")
    recipe = one.run.recipe
    signal = Signal(recipe.ch_names, recipe.sfreq, one.run.dsp)
    side = Side(tuple(sessions), tuple(prepare(session, signal, recipe.classes) for session in sessions))
    return Person(subject.name, side, shown_by(one.model, side, recipe), tuple(left_out))


def _usable(one: Origin, task: Task, subject: Subject) -> tuple[list[Session], list[str]]:
    """Return the recordings that can be learned from, and of the others why not."""
    readout, known = one.bundle.readout, trained_on(one.bundle)
    sessions, left_out = [], []
    for name, read in openers(task, subject):
        try:
            session = read()
        except (RecordingError, StreamMismatch) as error:
            left_out.append(f"{name}: {error}")
            continue
        why = fits_protocol(session, readout.classes, readout.idle, task)
        if session.fingerprint in known:
            why = "had a part in the bundle's training"
        if why:
            left_out.append(f"{name} {why}")
        else:
            sessions.append(session)
    return sessions, left_out


def _row(
    one: Origin, task: Task, person: Person, n: int, settings: Settings, live: dict[str, list[Played]]
) -> dict[str, Any]:
    """Return one person's figures, fitted to the first ``n`` trials and scored on what comes after.

    What the model as it was and the one that is kept said of that is added to ``live``.
    """
    temperature = one.bundle.readout.temperature
    came = adapt(one.model, one.run.recipe, person.shown.first(n), settings, temperature)
    since = float(person.shown.ended[n - 1])
    rest = [
        _rest(one, person, model, since, at)
        for model, at in ((one.model, temperature), (came.model, came.bolder * temperature))
    ]
    before, after = (_right(one, task, played) for played in rest)
    if before is None or after is None:
        raise ConfigError("nothing is left behind the trials that are learned from")
    live["as_it_was"] += rest[0]
    live["kept"] += rest[int(came.better)]
    kept = after if came.better else before
    return {
        "zero_shot": round(before, 4),
        "personal": round(after, 4),
        "taken": came.better,
        "kept": round(kept, 4),
        "gain_points": round(100 * (kept - before), 2),
        "trials": n,
        "rests": len(person.shown.first(n).rest),
        "bolder": round(came.bolder, 3),
        "left_out_cross_entropy": {"before": round(came.before, 4), "after": round(came.after, 4)},
    }


def _rest(one: Origin, person: Person, model: Any, since: float, temperature: float) -> list[Played]:
    """Return what a model says after so many seconds of signal, when something new is asked.

    A label that was put out before is nothing new: it is left away for as long as it is held.
    """
    readout, recipe = one.bundle.readout, one.run.recipe
    logits = stepped(model, person.side.prepared)
    rest, begun = [], 0.0
    for some in as_played(logits, person.side, recipe, model.left_context, temperature):
        labels = decide(some, readout.decision, readout.classes, readout.idle)
        cut = since - begun
        first = int(np.searchsorted(some.times, cut))
        begun += some.duration_s
        if first == len(some):
            continue
        held = first
        while first > 0 and held < len(labels) and labels[held] == labels[first - 1] != -1:
            held += 1
        labels[first:held] = -1
        rest.append(
            replace(
                some,
                times=some.times[first:],
                log_probs=some.log_probs[first:],
                valid=some.valid[first:],
                labels=labels[first:],
                markers=tuple(asked_since(some.markers, cut - SLACK_S, True)),
            )
        )
    return rest


def _right(one: Origin, task: Task, rest: Sequence[Played]) -> float | None:
    """Return the share of right answers; None where there are none."""
    said = answers(rest, one.bundle.readout.classes, one.bundle.readout.idle, task.protocol)
    return float(said.right.mean()) if len(said) else None


def _live(one: Origin, task: Task, played: Sequence[Played]) -> dict[str, Any] | None:
    """Return how often commands are hit by the bundle's own decision stage, and at what price."""
    readout = one.bundle.readout
    if readout.idle is None:
        return None
    settings = (readout.classes, readout.idle, readout.decision)
    figures = idle_figures(played, *settings, live=task.protocol.live)
    return {name: figures[name] for name in LIVE}


def _summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return means over people, the worst, how many gain and lose, and the rows."""
    gains = np.array([row["gain_points"] for row in rows.values()])
    means = {
        name: round(float(np.mean([row[name] for row in rows.values()])), 4)
        for name in ("zero_shot", "personal", "kept")
    }
    return {
        "people": len(rows),
        **means,
        "gain_points": round(float(gains.mean()), 2),
        "worst_points": float(gains.min()),
        "better": int((gains > 0).sum()),
        "worse": int((gains < 0).sum()),
        "taken": sum(row["taken"] for row in rows.values()),
        "per_subject": rows,
    }


def _write(one: Origin, came: Adapted, person: Person, counts: dict[str, int], folder: Path) -> Bundle:
    """Write one person's bundle, whole or not at all."""
    readout, recipe = one.bundle.readout, one.run.recipe
    card = recipe.card.model_copy(update={"version": f"{one.bundle.manifest.version}+{person.name}"})
    run = one.run.model_copy(
        update={
            "recipe": recipe.model_copy(update={"card": card}),
            "fingerprints": one.run.fingerprints | {"personal": person.side.fingerprints},
            "temperature": came.bolder * readout.temperature,
            "decision": readout.decision,
            "operating": readout.operating,
            "scores": {},
        }
    )
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        (partial / CARD).write_text(_card(one, came, person, counts))
        export(run, partial, model=came.model)
        manifest = json.loads((partial / MANIFEST).read_bytes())
        provenance = manifest["provenance"]
        if "operating" in one.bundle.manifest.provenance:
            provenance["operating"] = one.bundle.manifest.provenance["operating"]
        provenance["personal"] = {
            "from": one.bundle.label,
            "subject": person.name,
            "trials": counts,
            "left_out_cross_entropy": {"before": round(came.before, 4), "after": round(came.after, 4)},
            "bolder": round(came.bolder, 4),
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_bundle(folder)


def _card(one: Origin, came: Adapted, person: Person, counts: dict[str, int]) -> str:
    label = one.bundle.label
    shown = ", ".join(f"{count} of {name}" for name, count in counts.items())
    return (
        f"# {one.bundle.manifest.title}: {person.name}\n\n"
        f"`{label}` made one person's by `bcitrain personalise`, from {shown} and {len(person.shown.rest)} "
        f"stretches of rest: its filters over electrodes are {person.name}'s. Trials that were left out in "
        f"turn were answered with a cross-entropy of {came.after:.3f} nats, {came.before:.3f} before; its "
        f"logits were cooled by {came.bolder:.2f}, by which they had grown in rest. Decision stage and "
        f"operating points are those of `{label}`, measured on other people. It has no head for `bcistream "
        f"calibrate`. Data, protocol and limits: the card of `{label}`.\n"
    )
