"""The head of a bundle, and what the latents of its training people look like, as `engine.head` keeps them.

Through the engine's own pipeline: for any bundle whose logits are linear in its latent, whatever trained it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.answers import Answer, LatentLog, answer_of, spans_of
from engine.backends import Arrays, Backend
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import MANIFEST, Bundle, digest, load
from engine.framer import Frame
from engine.head import HEAD_FILE, Head, SourceHead, pack, source_head
from engine.pipeline import Pipeline
from offline.evaluate.played import chunks
from offline.probe.tasks import Session
from streamer.dsp.quality import Config as Quality
from streamer.errors import BundleError, RecordingError

MAX_PEOPLE = 24  # evenly among them: more change the covariance little, and cost a minute each dozen
MAX_ROWS = 20_000  # that the head is solved for from; it is verified on all
EXACT = 1e-3  # of the logits' spread: what float32 leaves of a linear head
CHUNK = 320  # samples: any other gives the same latents, and shorter ones take longer
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
    with OnnxRuntime().open(bundle) as backend:
        people = list(_people(bundle, backend, _some(sessions), progress))
    content = pack(statistics(bundle, people, centred))
    manifest = json.loads((path / MANIFEST).read_bytes())
    manifest["readout"]["head"] = HEAD_FILE
    manifest["files"][HEAD_FILE] = digest(content)
    (path / HEAD_FILE).write_bytes(content)
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    written = load(path)
    source_head(written)
    return written


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


def _some(sessions: Sequence[Session]) -> list[Session]:
    """Return the recordings of at most `MAX_PEOPLE` people, evenly among all, those of a person together."""
    names = list(dict.fromkeys(session.subject for session in sessions))
    step = max(1, -(-len(names) // MAX_PEOPLE))
    return [session for name in names[::step] for session in sessions if session.subject == name]


def _people(
    bundle: Bundle, backend: Backend, sessions: Sequence[Session], progress: Callable[[str], None]
) -> Iterator[Person]:
    """Yield each person's hops over all of the recordings."""
    answer = answer_of(bundle.manifest.provenance)
    for subject, some in groupby(sessions, key=lambda session: session.subject):
        progress(subject)
        played = [_played(bundle, backend, session, answer) for session in some]
        yield Person(*(np.concatenate(parts) for parts in zip(*played, strict=True)))


def _played(
    bundle: Bundle, backend: Backend, session: Session, answer: Answer
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return latents, logits and labels of the valid hops of one recording."""
    readout = bundle.readout
    if readout.latent is None:
        raise BundleError(f"Bundle {bundle.label} puts out no latent: it has no head to refit.")
    log, logits = LatentLog(readout.latent), LatentLog(readout.logits)

    def observe(frame: Frame, outputs: Arrays) -> None:
        log.observe(frame, outputs)
        logits.observe(frame, outputs)

    pipeline = Pipeline(bundle, backend, session.recording.info, quality=Quality(), observe=observe)
    for chunk in chunks(session.recording, CHUNK):
        for decision in pipeline.process(chunk):
            log.write(decision)
            logits.write(decision)
    times, valid = log.times, log.valid
    labels = np.full(len(times), -1)
    for marker, start, stop in spans_of(session.recording.markers, answer, times):
        if marker.label in readout.classes:
            labels[(times > start) & (times <= stop)] = readout.classes.index(marker.label)
    return log.latents[valid], logits.latents[valid], labels[valid]
