"""The head of a bundle, and what the latents of its training people look like, as `engine.head` keeps them.

Through the engine's own pipeline: for any bundle whose logits are linear in its latent, whatever trained it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.answers import Answer, answer_of, spans_of
from engine.backends import Backend
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import MANIFEST, Bundle, digest, load
from engine.bundle_folder import replace_files
from engine.gains import Gain
from engine.head import HEAD_FILE, Head, SourceHead, pack, source_head
from offline.evaluate.recordings import protocol_of
from offline.head_gains import MIN_PEOPLE, measure
from offline.heard import Heard, heard
from offline.probe.tasks import Session
from streamer.errors import BundleError, RecordingError

MAX_PEOPLE = 8  # evenly among them; each with as few recordings as hold every class
MAX_HELD_OUT = 4
MAX_ROWS = 20_000  # that the head is solved for from; it is verified on all
EXACT = 1e-3  # of the logits' spread: what float32 leaves of a linear head
SMALLEST = 1e-7  # singular value that counts, against the largest: latents of a ReLU may lack directions


@dataclass(frozen=True, slots=True)
class Person:
    """One person's hops.

    Attributes
    ----------
    latents : ndarray, shape (n, D), float32
    logits : ndarray, shape (n, n_classes), float32
    labels : ndarray, shape (n,), int64
        What was asked for within the time of the answer; -1 elsewhere and where the signal was bad.
    """

    latents: NDArray[np.float32]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]


def attach(
    folder: str | Path,
    sessions: Sequence[Session],
    held_out: Sequence[Session] = (),
    *,
    centred: Head | None = None,
    progress: Callable[[str], None] = lambda subject: None,
) -> Bundle:
    """Put the head file into an exported bundle, and return the bundle read again.

    Parameters
    ----------
    folder : str or Path
        Of the bundle; its manifest is written anew.
    sessions : sequence of Session
        Of people that the model was trained on, those of a person together.
    held_out : sequence of Session
        Of people that it was not trained on: what a refit gains them goes into the file (`engine.gains`).
    centred : Head, optional
        Trained on latents minus each person's own mean at rest: a stretch of rest alone then calibrates.
    progress : callable
        Told each subject before it is played.

    Raises
    ------
    BundleError
        The logits are not linear in the latent, or there is no latent.
    RecordingError
        A class without a trial.
    """
    path = Path(folder)
    bundle = load(path)
    asked = set(bundle.readout.classes)
    with OnnxRuntime().open(bundle) as backend:
        people = list(_people(bundle, backend, _shortest(_some(sessions, MAX_PEOPLE), asked), progress))
        others = _heard(bundle, backend, _some(held_out, MAX_HELD_OUT), progress)
    source = statistics(bundle, people, centred)
    content = pack(replace(source, gains=measure(bundle, source, others, protocol_of(bundle))))
    manifest = json.loads((path / MANIFEST).read_bytes())
    manifest["readout"]["head"] = HEAD_FILE
    manifest["files"][HEAD_FILE] = digest(content)
    replace_files(path, {HEAD_FILE: content, MANIFEST: f"{json.dumps(manifest, indent=1)}\n".encode()})
    written = load(path)
    source_head(written)
    return written


def measured_anew(bundle: Bundle, held_out: Sequence[Session]) -> bytes:
    """Return the bundle's head file with what a refit gains at the bundle's temperature.

    Parameters
    ----------
    held_out : sequence of Session
        As for `attach`; without any the file tells nothing of it.
    """
    return pack(replace(source_head(bundle), gains=_gains(bundle, _some(held_out, MAX_HELD_OUT))))


def measured_over(bundle: Bundle, nets: Iterable[tuple[Bundle, Sequence[Session]]]) -> bytes:
    """Return the bundle's head file with what a refit gains by other nets of its recipe.

    Parameters
    ----------
    nets : iterable of (Bundle, sequence of Session)
        Each with recordings of people whom it was not trained on, nobody twice: they may be many, where the
        bundle itself has learnt from nearly everybody.

    Raises
    ------
    RecordingError
        No net has anybody.
    """
    points: dict[int, list[float]] = {}
    for net, sessions in nets:
        for row in _gains(net, sessions, least=1):
            points.setdefault(row.trials, []).extend(row.points)
    if not points:
        raise RecordingError("The nets know everybody, or nobody has enough trials: nothing to measure on.")
    enough = sorted(trials for trials, some in points.items() if len(some) >= MIN_PEOPLE)
    table = tuple(Gain(trials, tuple(sorted(points[trials]))) for trials in enough)
    return pack(replace(source_head(bundle), gains=table))


def _gains(bundle: Bundle, sessions: Sequence[Session], least: int = MIN_PEOPLE) -> tuple[Gain, ...]:
    """Return what a refit of this bundle's head gains these people."""
    with OnnxRuntime().open(bundle) as backend:
        others = _heard(bundle, backend, sessions, lambda _subject: None)
    return measure(bundle, source_head(bundle), others, protocol_of(bundle), least)


def statistics(bundle: Bundle, people: Sequence[Person], centred: Head | None = None) -> SourceHead:
    """Return the head, the class means and the pooled covariance of these people; raises as `attach`."""
    classes = bundle.readout.classes
    head = solved(people, bundle.label)
    own = [[person.latents[person.labels == place] for place in range(len(classes))] for person in people]
    for place, name in enumerate(classes):
        if not any(len(by[place]) for by in own):
            raise RecordingError(f"No trial of {name} in these recordings: a head needs every class.")
    means = [
        np.mean([by[place].mean(axis=0, dtype=np.float64) for by in own if len(by[place])], axis=0)
        for place in range(len(classes))
    ]
    n, scatter = 0, np.zeros((len(means[0]), len(means[0])))
    for rows in (rows for by in own for rows in by if len(rows)):
        spread = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
        scatter += spread.T @ spread
        n += len(rows)
    return SourceHead(head, np.array(means), scatter / n, len(people), centred)


def solved(people: Sequence[Person], label: str) -> Head:
    """Return the linear map from latents to logits, by least squares; `BundleError` when it is none."""
    latents = np.concatenate([person.latents for person in people]).astype(np.float64)
    logits = np.concatenate([person.logits for person in people]).astype(np.float64)
    step = max(1, len(latents) // MAX_ROWS)
    middle = latents.mean(axis=0)
    inputs = np.hstack([latents[::step] - middle, np.ones((len(latents[::step]), 1))])
    found, *_ = np.linalg.lstsq(inputs, logits[::step], rcond=SMALLEST)  # (D + 1, n_classes)
    head = Head(found[:-1].T, found[-1] - middle @ found[:-1])
    error = float(np.abs(head.logits(latents) - logits).max())
    if error > EXACT * float(logits.std()):
        raise BundleError(
            f"Bundle {label}: no linear map of the latent gives its logits (off by {error:.3g}; they spread "
            f"by {logits.std():.3g}). A head can be refitted only for a model that ends in a linear layer."
        )
    return head


def _some(sessions: Sequence[Session], most: int) -> list[Session]:
    """Return the recordings of at most so many people, evenly among all, those of a person together."""
    names = list(dict.fromkeys(session.subject for session in sessions))
    step = max(1, -(-len(names) // most))
    return [session for name in names[::step] for session in sessions if session.subject == name]


def _shortest(sessions: Sequence[Session], asked: set[str]) -> Iterator[Session]:
    """Yield each person's recordings until every class has been asked for."""
    for _, some in groupby(sessions, key=lambda session: session.subject):
        missing = set(asked)
        for session in some:
            found = {marker.label for marker in session.recording.markers} & missing
            if found:
                missing -= found
                yield session


def _heard(
    bundle: Bundle, backend: Backend, sessions: Sequence[Session], progress: Callable[[str], None]
) -> Mapping[str, list[Heard]]:
    """Return the recordings of each person, run through the pipeline."""
    found: dict[str, list[Heard]] = {}
    for session in sessions:
        progress(session.subject)
        found.setdefault(session.subject, []).append(heard(bundle, backend, session))
    return found


def _people(
    bundle: Bundle, backend: Backend, sessions: Iterator[Session], progress: Callable[[str], None]
) -> Iterator[Person]:
    """Yield each person's hops over all of the recordings."""
    answer = answer_of(bundle.manifest.provenance)
    for subject, some in groupby(sessions, key=lambda session: session.subject):
        progress(subject)
        parts = [_labelled(bundle, heard(bundle, backend, session), answer) for session in some]
        yield Person(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _labelled(
    bundle: Bundle, one: Heard, answer: Answer
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return latents, logits and labels of the valid hops of one recording."""
    classes, times, valid = bundle.readout.classes, one.log.times, one.log.valid
    labels = np.full(len(times), -1)
    for marker, start, stop in spans_of(one.markers, classes, answer, times):
        if marker.label in classes:
            labels[(times > start) & (times <= stop)] = classes.index(marker.label)
    return one.log.latents[valid], one.logits.latents[valid], labels[valid]
