"""Scores a bundle on recordings, through the engine's own pipeline.

Each recording is played from its first sample into a fresh `engine.pipeline.Pipeline`, in chunks, and its
decisions are scored as they were put out: nothing is looked at that a live session would not have had.
Recordings that had a part in the bundle's weights are known by their content and left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle
from engine.pipeline import Pipeline
from engine.scoring import Trial, accuracy, answer_trials, balanced_accuracy
from offline.data.corpus import Corpus, Recording, read
from offline.idle import idle_figures
from offline.provenance import machine, versions
from streamer.dsp.quality import Config as Quality
from streamer.errors import RecordingError, StreamMismatch
from streamer.types import Chunk, Decision, make_chunk

CHUNK = 32  # samples; any other gives the same decisions
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Played:
    """A recording and what the bundle said about it.

    Attributes
    ----------
    trials : list of Trial
        One per cue that the recording lasts long enough after.
    n_cut : int
        Cues that it does not.
    notes : tuple of str
        How the recording was adapted to the bundle.
    """

    recording: Recording
    decisions: list[Decision]
    trials: list[Trial]
    n_cut: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was played, what was left out as trained on, and what could not be played and why."""

    played: list[Played]
    excluded: list[str]
    skipped: dict[str, str]


def evaluate(
    bundle: Bundle,
    corpus: Corpus,
    subjects: Sequence[str] | None = None,
    *,
    progress: Progress = lambda subject, done, total: None,
) -> dict[str, Any]:
    """Return the report: accuracy first, then where it comes from.

    ``accuracy`` is left against right, one answer per cued trial, given 3 s after the cue from what the
    pipeline put out by then; all trials count alike.  ``subjects`` gives mean, SD and worst over subjects.

    Raises
    ------
    RecordingError
        No subject of that name, or nothing that can be scored.
    """
    started = time.monotonic()
    result = play_all(bundle, corpus, subjects, progress=progress)
    return {**report(bundle, result), "seconds": round(time.monotonic() - started, 1)}


def play_all(
    bundle: Bundle,
    corpus: Corpus,
    subjects: Sequence[str] | None = None,
    *,
    progress: Progress = lambda subject, done, total: None,
) -> Evaluation:
    """Play every recording of these subjects that can be scored; raises as `evaluate`."""
    names = corpus.select(subjects)
    trained = trained_on(bundle)
    result = Evaluation([], [], {})
    with OnnxRuntime().open(bundle) as backend:
        for done, subject in enumerate(names):
            progress(subject, done, len(names))
            for path in corpus.files(subject):
                where = f"{subject}/{path.stem}"
                try:
                    recording = read(path)
                    reason = _unfit(bundle, recording)
                    if recording.fingerprint in trained:
                        result.excluded.append(where)
                    elif reason:
                        result.skipped[where] = reason
                    else:
                        result.played.append(play(bundle, backend, recording))
                except (RecordingError, StreamMismatch) as error:
                    result.skipped[where] = str(error)
        progress("", len(names), len(names))
    if not any(played.trials for played in result.played):
        raise RecordingError(_nothing(corpus, result))
    return result


def trained_on(bundle: Bundle) -> set[str]:
    """Return the fingerprints of the recordings that had a part in the bundle's weights."""
    listed = bundle.manifest.provenance.get("fingerprints", {})
    return {str(one) for group in listed.values() for one in group}


def play(bundle: Bundle, backend: Any, recording: Recording) -> Played:
    """Play one recording through a fresh pipeline and answer its trials."""
    readout = bundle.readout
    pipeline = Pipeline(bundle, backend, recording.info, quality=Quality())  # as a run has it
    decisions = [decision for chunk in chunks(recording) for decision in pipeline.process(chunk)]
    cued = _cued(bundle)
    trials = answer_trials(decisions, recording.markers, readout.classes, among=cued)
    return Played(recording, decisions, trials, len(recording.cues(cued)) - len(trials), pipeline.notes)


def chunks(recording: Recording, size: int = CHUNK) -> Iterator[Chunk]:
    """Yield the recording in pieces, its first sample at 0 s."""
    times = np.arange(len(recording)) / recording.info.sfreq
    for start in range(0, len(recording), size):
        stop = start + size
        yield make_chunk(recording.data[start:stop], start, times[start:stop])


def report(bundle: Bundle, result: Evaluation) -> dict[str, Any]:
    """Return every figure of an evaluation as one JSON-able mapping."""
    trials = [trial for played in result.played for trial in played.trials]
    readout = bundle.readout
    adapted = sorted({note for played in result.played for note in played.notes})
    return {
        "bundle": bundle.label,
        "accuracy": _rounded(accuracy(trials)),
        "balanced_accuracy": _rounded(balanced_accuracy(trials)),
        "n_trials": len(trials),
        "n_trials_cut": sum(played.n_cut for played in result.played),
        "n_recordings": len(result.played),
        **by_subject([(played.recording.subject, played.trials) for played in result.played]),
        "idle": idle_figures(
            [(played.decisions, played.recording.markers) for played in result.played],
            readout,
            bundle.manifest.graph.hop / bundle.manifest.input.sfreq,
        ),
        "excluded": result.excluded,
        "skipped": result.skipped,
        "adapted": adapted,
        "protocol": "left against right, one answer per cue 3 s after it, mean log-odds of what was put out "
        "from 0.5 s after the cue on; each recording from a fresh start; recordings trained on left out",
        "machine": machine(),
        "versions": versions("numpy", "scipy", "onnxruntime"),
    }


def by_subject(trials: Sequence[tuple[str, list[Trial]]]) -> dict[str, Any]:
    """Return ``per_subject``, and mean, SD and worst as ``subjects``; takes one entry per recording."""
    grouped: dict[str, list[Trial]] = {}
    for subject, some in trials:
        grouped.setdefault(subject, []).extend(some)
    scores = {subject: accuracy(some) for subject, some in sorted(grouped.items())}
    known = {subject: score for subject, score in scores.items() if score is not None}
    values = list(known.values())
    return {
        "per_subject": {
            subject: {"accuracy": round(score, 4), "n_trials": len(grouped[subject])}
            for subject, score in known.items()
        },
        "subjects": {
            "n": len(known),
            "mean": round(float(np.mean(values)), 4),
            "sd": round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None,
            "worst": round(min(values), 4),
        },
    }


def _cued(bundle: Bundle) -> list[str]:
    readout = bundle.readout
    return [name for name in readout.classes if name != readout.idle]


def _unfit(bundle: Bundle, recording: Recording) -> str:
    """Say why a recording cannot be scored, or nothing."""
    cued = _cued(bundle)
    if not recording.cues(cued):
        return f"has no cue for {' or '.join(cued)}"
    task = recording.meta.get("task", "imagery")
    return "" if task == "imagery" else f"is of task {task!r}, not imagery"


def _nothing(corpus: Corpus, result: Evaluation) -> str:
    lines = [f"Nothing to score in {corpus.folder}: {len(result.excluded)} recordings had a part in training"]
    lines += [f"{where} {reason}" for where, reason in list(result.skipped.items())[:3]]
    return (
        "; ".join(lines)
        + ". Give recordings of subjects held out of training, with cues of the bundle's classes."
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
