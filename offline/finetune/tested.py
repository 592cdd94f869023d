"""Scores a finished fine-tuning on people it does not know: `score_others`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.files import replacing
from offline.calibrate import balanced_cross_entropy
from offline.finetune.data import Labelled, Progress
from offline.finetune.run import FinetuneRun, load_model, load_run
from offline.probe import heads as probe_heads
from offline.probe.features import Signal
from offline.probe.tasks import Index, Windows, find_windows
from streamer.errors import ConfigError

TEST = "test.json"


def score_others(
    run_folder: str | Path,
    subjects: Sequence[str],
    *,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Score every labelled window of these subjects, and write the document as ``test.json`` of the run.

    The model is stepped over each recording from its first sample, behind the run's DSP list, as live; a
    window's answer is that of its last frame, before the decision stage.  Nothing is fitted.  Windows that
    end while a live session would still warm up count too.

    Parameters
    ----------
    subjects : sequence of str
        Names, or ranges of them, of the run's task.

    Returns
    -------
    dict
        ``scores`` over all windows, with the cross-entropy at the run's temperature, each class counting
        alike; ``per_subject``; and their mean and SD over subjects.

    Raises
    ------
    ConfigError
        No finished fine-tuning, or recordings that anything of it learned from or was chosen by, the
        backbone included.
    RecordingError
        No such subject, or one without a window.
    """
    run, model = load_run(run_folder), load_model(run_folder)
    task = run.recipe.task.as_probe(run.model.sfreq)
    windows = find_windows(task.model_copy(update={"train": tuple(subjects), "test": tuple(subjects)}))
    _refuse_known(run, windows)
    data = Labelled(Signal(task.ch_names, run.model.sfreq, run.dsp), windows, model.hop)
    frames = data.frames(np.arange(len(windows)))
    logits = data.read(model, frames.take(frames.last), model.decide, progress) / run.temperature
    document = _document(run, windows, logits)
    with replacing(Path(run_folder) / TEST) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
    return document


def _refuse_known(run: FinetuneRun, windows: Windows) -> None:
    """Refuse who took part, told by name or by the samples of a recording."""
    part = {name for group in run.subjects.values() for name in group}
    if names := sorted(part & set(windows.subjects.tolist())):
        raise ConfigError(f"{', '.join(names)} trained or validated this model: name other people.")
    used = {each: group for group, some in run.fingerprints.items() for each in some}
    known = [one for one in windows.sessions if one.fingerprint in used]
    if known:
        told = sorted({f"{one.subject} ({used[one.fingerprint]})" for one in known})
        raise ConfigError(f"Recordings of {', '.join(told)} had a part in this model: name other people.")


def _document(run: FinetuneRun, windows: Windows, logits: Tensor) -> dict[str, Any]:
    labels = windows.labels
    people = {name: np.flatnonzero(windows.subjects == name) for name in sorted(set(windows.subjects))}
    figures = {str(name): _figures(logits, labels, rows) for name, rows in people.items()}
    everybody = np.arange(len(labels))
    cost = balanced_cross_entropy(logits, torch.from_numpy(labels))
    return {
        "model": f"{run.recipe.card.name} {run.recipe.card.version}",
        "mode": run.recipe.mode,
        "classes": list(run.recipe.task.classes),
        "window_s": run.recipe.task.window_s,
        "subjects": list(figures),
        "scores": _figures(logits, labels, everybody) | {"cross_entropy": round(cost, 4)},
        "over_subjects": {
            name: _spread(one[name] for one in figures.values())
            for name in ("balanced_accuracy", "auroc", "kappa")
        },
        "per_subject": figures,
    }


def _figures(logits: Tensor, labels: Index, rows: Index) -> dict[str, float | int | None]:
    probabilities = logits[torch.from_numpy(rows)].double().softmax(dim=-1).numpy()
    return probe_heads.scores(probabilities, labels[rows])


def _spread(values: Iterable[float | int | None]) -> dict[str, float] | None:
    """Return mean, SD and the worst of those that are known; None where nobody's is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    sd = np.std(known, ddof=1) if len(known) > 1 else 0.0
    return {
        "mean": round(float(np.mean(known)), 4),
        "sd": round(float(sd), 4),
        "worst": round(float(min(known)), 4),
    }
