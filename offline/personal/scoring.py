"""What bundles of one's own are worth to people: learned from their first trials, scored on the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from offline.evaluate.answers import answers
from offline.evaluate.decide import decide
from offline.evaluate.idle import idle_figures
from offline.evaluate.namesakes import told
from offline.evaluate.played import Played
from offline.evaluate.recordings import Options, Task, find_people, task_of
from offline.evaluate.renaming import refuse_unused
from offline.heard import asked_since
from offline.personal.filters import Settings, adapt
from offline.personal.origin import Origin
from offline.personal.person import Person, read_person
from offline.train.validate import as_played, stepped
from streamer.errors import ConfigError, RecordingError, StreamMismatch

LIVE = ("hits", "wrong_side", "false_activations_per_min", "falsely_on", "median_time_to_decision_s")
SLACK_S = 1e-3  # what a cue's stamp may be off by from the sample it falls on
Progress = Callable[[str, int, int], None]


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
        and so what is ``kept``; means; ``live`` use before and after; ``skipped`` people, with the reason;
        ``notes`` on people whom the bundle may have learned from, and on markers without a duration.

    Raises
    ------
    ConfigError
        A new name for what no recording has.
    RecordingError
        Nobody can be scored.
    """
    task, rows, skipped = task_of(one.bundle, path, options), {}, {}
    live: dict[str, list[Played]] = {"as_it_was": [], "kept": []}
    people, doubted, assumed = find_people(task, subjects), list[str](), set[str]()
    refuse_unused(task, people, options)
    for done, subject in enumerate(people):
        progress(f"personalising: {subject.name}", done, len(people))
        try:
            person = read_person(one, task, subject)
            until = np.inf if seconds is None else seconds
            n = int((person.shown.answered <= until).sum())
            n = n if trials is None else min(n, trials)
            rows[subject.name] = _row(one, task, person, n, settings, live)
            doubted += [person.name] if person.namesake else []
            assumed |= person.assumed
        except (ConfigError, RecordingError, StreamMismatch) as error:
            skipped[subject.name] = str(error)
    if not rows:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise RecordingError(f"Nobody in {path} can be scored: {why}")
    figures = {name: _live(one, task, played) for name, played in live.items()}
    about = {
        "settings": settings.model_dump(),
        "skipped": skipped,
        "notes": [*told(doubted), *sorted(assumed)],
    }
    return {**about, "live": figures, **_summary(rows)}


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
