"""A model's row of results: figures per seed, per person, and of all seeds together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.decision import DecisionSettings
from offline.benchmark.cells import Answered
from offline.benchmark.recipe import Model, Task
from offline.evaluate.decide import decide
from offline.evaluate.figures import rounded
from offline.evaluate.played import Played
from offline.evaluate.protocol import Trials, Windows
from offline.evaluate.scores import Scores, score

FIGURES = ("accuracy", "balanced_accuracy", "kappa", "macro_f1", "auroc", "auc_pr")
LIVE = (
    "hop_balanced_accuracy",
    "nmcc",
    "hits",
    "false_activations_per_min",
    "falsely_on",
    "median_time_to_decision_s",
    "hits_better_half",
    "false_better_half",
    "median_s_better_half",
)
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """What a model did.

    Attributes
    ----------
    name : str
        The model's.
    together : bool
        The seeds' mean log-probabilities answer, as one model.
    figure : str
        What is ranked and compared: see `figure_of`.
    scores : tuple of Scores
        One per seed.
    notes : tuple of str
    calibrated : dict or None
        The figure with the model's own head (``before``) and the refitted one (``after``), per person.
    seconds : float
        Training and testing of all folds, per seed.
    about : dict
        What the pictures want to know.
    """

    name: str
    together: bool
    figure: str
    ours: bool
    scores: tuple[Scores, ...]
    notes: tuple[str, ...]
    calibrated: Table | None
    seconds: float
    about: Table

    @property
    def label(self) -> str:
        """Name for people."""
        return f"{self.name}, seeds together" if self.together else self.name

    @property
    def mean(self) -> float | None:
        """Mean over seeds of the figure over all answers."""
        found: float | None = _spread([getattr(one, self.figure) for one in self.scores])["mean"]
        return found

    def people(self) -> dict[str, float]:
        """Return each person's figure, the mean over the seeds that tested them."""
        values: dict[str, list[float]] = {}
        for one in self.scores:
            for name, table in one.per_subject.items():
                values.setdefault(name, []).append(float(table[self.figure]))
        return {name: float(np.mean(some)) for name, some in sorted(values.items())}

    def document(self) -> Table:
        """Return all of it as a mapping; ``scores`` are those of the first seed."""
        people = self.people()
        worst = min(people, key=lambda name: people[name], default=None)
        idle = [one.idle for one in self.scores if one.idle is not None]
        figures = {name: _spread([getattr(one, name) for one in self.scores]) for name in FIGURES}
        return {
            "model": self.label,
            "ours": self.ours,
            "seeds": len(self.scores),
            "mean": self.mean,
            "figures": figures | {"ece": _spread([one.ece["answers"] for one in self.scores])},
            "n": self.scores[0].n,
            "people": {name: rounded(value) for name, value in people.items()},
            "over_people": {
                **_spread(list(people.values())),
                "worst": worst and {"name": worst, "value": rounded(people[worst])},
            },
            "idle": {name: _spread([one.get(name) for one in idle]) for name in LIVE} if idle else None,
            "calibrated": self.calibrated,
            "notes": self.notes,
            "seconds": rounded(self.seconds),
            "scores": {"bundle": self.label, **self.scores[0].document(), **self.about},
        }


def figure_of(task: Task) -> str:
    """Return what a task is judged by: accuracy of trials; balanced accuracy of windows, which are uneven."""
    return "accuracy" if isinstance(task.protocol, Trials) else "balanced_accuracy"


def row_of(task: Task, model: Model, by_seed: Sequence[Sequence[Answered]], *, together: bool = False) -> Row:
    """Return a model's row.

    Parameters
    ----------
    by_seed : sequence of sequence of Answered
        Per seed, what was said in each fold.
    together : bool
        Of all seeds as one model: the log-probabilities' mean, decided anew as the first seed's net of that
        fold decides.
    """
    protocol = _protocol(task, model)
    played = [[one for cell in cells for one in cell.played] for cells in by_seed]
    decisions = [[cell.decision for cell in cells for _ in cell.played] for cells in by_seed]
    if together:
        same = zip(*played, strict=True)
        played = [[_mean(some, task, own) for some, own in zip(same, decisions[0], strict=True)]]
    scores = tuple(
        score(some, task.classes, task.idle, protocol, decision=own)
        for some, own in zip(played, decisions, strict=False)
    )
    every = [cell for cells in by_seed for cell in cells]
    return Row(
        name=model.name,
        together=together,
        figure=figure_of(task),
        ours=model.ours,
        scores=scores,
        notes=tuple(dict.fromkeys(note for cell in every for note in cell.notes)),
        calibrated=None if together else _calibrated(task, protocol, every),
        seconds=sum(cell.seconds for cell in every) / (1 if together else len(by_seed)),
        about={
            "classes": list(task.classes),
            "idle_class": task.idle,
            "protocol_settings": protocol.model_dump(mode="json"),
        },
    )


def _protocol(task: Task, model: Model) -> Trials | Windows:
    """Return the task's protocol with the model's way of answering."""
    protocol = task.protocol
    if isinstance(protocol, Trials):
        return protocol.model_copy(update={"answer": model.answer})
    return protocol


def _mean(same: Sequence[Played], task: Task, decision: DecisionSettings) -> Played:
    """Return one recording as several seeds say together, decided anew."""
    first = same[0]
    logs = np.mean([one.log_probs.astype(np.float64) for one in same], axis=0)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    valid = np.logical_and.reduce([one.valid for one in same])
    mean = replace(first, log_probs=logs.astype(np.float32), valid=valid)
    return replace(mean, labels=decide(mean, decision, task.classes, task.idle))


def _calibrated(task: Task, protocol: Trials | Windows, cells: Sequence[Answered]) -> Table | None:
    """Return each person's figure before and after the refit, on the same stretches of recording."""
    figure = figure_of(task)
    groups = {
        "before": [one for cell in cells for one in cell.uncalibrated],
        "after": [one for cell in cells for one in cell.calibrated],
    }
    if not groups["after"]:
        return None
    made = {name: score(some, task.classes, task.idle, protocol) for name, some in groups.items()}
    people = {
        name: {side: made[side].per_subject[name][figure] for side in made}
        for name in made["after"].per_subject
        if name in made["before"].per_subject
    }
    if not people:  # all that was asked for lay in what calibrated
        return None
    gains = [one["after"] - one["before"] for one in people.values()]
    return {
        **{side: getattr(one, figure) for side, one in made.items()},
        "gain": rounded(float(np.mean(gains))),
        "worst_gain": rounded(float(min(gains))),
        **{f"auroc_{side}": one.auroc for side, one in made.items()},
        "people": people,
    }


def _spread(values: Sequence[float | None]) -> Table:
    """Return mean and SD of those that are known; the SD of one is None."""
    known = [value for value in values if value is not None]
    return {
        "mean": rounded(float(np.mean(known))) if known else None,
        "sd": rounded(float(np.std(known, ddof=1))) if len(known) > 1 else None,
    }
