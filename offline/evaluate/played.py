"""What a bundle said about a recording, hop by hop: `play` makes it, files keep it."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import Arrays, Backend
from engine.bundle import Bundle
from engine.calibration import Calibration
from engine.config import RunConfig
from engine.decision import DecisionSettings
from engine.files import replacing
from engine.framer import Frame
from engine.pipeline import Pipeline
from engine.refit import log_softmax as _log_softmax
from offline.probe.tasks import Session
from streamer.chain import Chain
from streamer.dsp import StepConfig
from streamer.dsp.montage import Montage
from streamer.dsp.quality import CURE, TOO_LARGE
from streamer.dsp.quality import Config as Quality
from streamer.errors import RecordingError
from streamer.repair import Repair
from streamer.sources.recording import Recording
from streamer.types import Chunk, Marker, make_chunk

CHUNK = 32  # samples; any other gives the same decisions
ARRAYS = ("times", "log_probs", "valid", "labels")
QUALITY = Quality()  # as a run has it
UNDECIDED = "hardly a moment of it was decided on"
FEWEST = 0.1  # of the hops: at its beginning signal in a wrong unit is not yet known as such
MAX_GAP_S: float = RunConfig.model_fields["max_gap_s"].default


@dataclass(frozen=True, slots=True)
class Played:
    """A recording's decisions, one row per hop.

    Attributes
    ----------
    subject, name : str
        Whose recording, and which.
    times : ndarray, shape (n,), float64
        Stamp of each decision, s; the recording's first sample is at 0 s.
    log_probs : ndarray, shape (n, n_classes), float32
        Log-softmax of the logits over the temperature; not smoothed.  Even where the logits are not finite.
    valid : ndarray, shape (n,), bool
        The model was warm and the signal good.
    labels : ndarray, shape (n,), int64
        Place of the label that the decision stage put out; -1 for none.
    markers : tuple of Marker
        What was asked for, on the same clock.
    duration_s : float
        Of the recording.
    notes : tuple of str
        How the recording was adapted to the bundle, and what speaks against its unit.
    every_s : float
        Seconds from one decision to the next, as the decision stage had it; 0 where nobody says it.
    """

    subject: str
    name: str
    times: NDArray[np.float64]
    log_probs: NDArray[np.float32]
    valid: NDArray[np.bool_]
    labels: NDArray[np.int64]
    markers: tuple[Marker, ...]
    duration_s: float
    notes: tuple[str, ...] = ()
    every_s: float = 0.0

    def __len__(self) -> int:
        return len(self.times)

    @property
    def hop_s(self) -> float:
        """Seconds from one decision to the next.

        Where nobody says it, it is what stamps are apart, and of fewer than two the whole recording: never 0.
        """
        if self.every_s:
            return self.every_s
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else self.duration_s

    def save(self, path: str | Path) -> None:
        """Write an npz without pickles; it is there whole or not at all."""
        about = {
            "subject": self.subject,
            "name": self.name,
            "markers": [[m.time, m.label, m.duration] for m in self.markers],
            "duration_s": self.duration_s,
            "notes": list(self.notes),
            "every_s": self.every_s,
        }
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        with replacing(Path(path)) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, about=np.array(json.dumps(about)), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Played:
        """Read what `save` wrote; `RecordingError` where that is something else, or damaged."""
        try:
            with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                arrays = {name: file[name] for name in ARRAYS}
            return cls(
                subject=str(about["subject"]),
                name=str(about["name"]),
                markers=tuple(Marker(*marker) for marker in about["markers"]),
                duration_s=float(about["duration_s"]),
                notes=tuple(about["notes"]),
                every_s=float(about.get("every_s", 0.0)),  # files of before do not say it
                **arrays,
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise RecordingError(
                f"{path} is no played recording ({error}): delete it and run the command again."
            ) from error


def play(
    bundle: Bundle,
    backend: Backend,
    session: Session,
    *,
    decision: DecisionSettings | None = None,
    calibration: Calibration | None = None,
    quality: StepConfig | None = QUALITY,
    chunk: int = CHUNK,
) -> Played:
    """Play a recording from its first sample through a fresh `engine.pipeline.Pipeline`.

    Parameters
    ----------
    backend : Backend
        The bundle's graph, compiled.
    session : Session
        `offline.probe.tasks.Session`: the recording, whose it is, and its name.
    decision : DecisionSettings, optional
        Instead of the bundle's own.
    calibration : Calibration, optional
        Of this subject: handed to the pipeline.

    Raises
    ------
    StreamMismatch
        The recording does not fit the bundle.
    BundleError
        The bundle decides nothing.
    """
    log: list[NDArray[np.float64]] = []
    logits = bundle.readout.logits

    def observe(_frame: Frame, outputs: Arrays) -> None:
        log.append(outputs[logits].reshape(-1).astype(np.float64))

    recording, classes = session.recording, bundle.readout.classes
    pipeline = Pipeline(
        bundle,
        backend,
        recording.info,
        quality=quality,
        decision=decision,
        calibration=calibration,
        observe=observe,
    )
    repair = repair_as_run(recording, pipeline.chain, quality)
    made = [one for piece in chunks(recording, chunk, repair) for one in pipeline.process(piece)]
    places: dict[str | None, int] = {None: -1} | {name: place for place, name in enumerate(classes)}
    duration_s = float(recording.times[-1] + 1 / recording.info.sfreq)
    return Played(
        subject=session.subject,
        name=session.name,
        times=np.array([one.time for one in made], dtype=np.float64),
        log_probs=log_softmax(np.array(log).reshape(-1, len(classes)) / pipeline.temperature),
        valid=np.array([one.valid for one in made], dtype=bool),
        labels=np.array([places[one.label] for one in made], dtype=np.int64),
        markers=tuple(recording.markers),
        duration_s=duration_s,
        notes=(*pipeline.notes, *_doubts(pipeline, duration_s, [one.valid for one in made])),
        every_s=pipeline.hop_s,
    )


def undecided(played: Played) -> str:
    """Say why a recording was hardly ever decided on for its signal, or nothing."""
    return next((note for note in played.notes if note.startswith(UNDECIDED)), "")


def _doubts(pipeline: Pipeline, duration_s: float, valid: Sequence[bool]) -> Iterator[str]:
    """Say which channels are bad for most of a recording that is hardly decided on, or too large, and why."""
    worst = {name: max(found, key=lambda why: found[why]) for name, found in pipeline.bad_s.items() if found}
    bad = {name: why for name, why in worst.items() if pipeline.bad_s[name][why] > duration_s / 2}
    large = [name for name, why in bad.items() if why == TOO_LARGE]
    cure = f" in {pipeline.info.unit}: {CURE}" if large else ""
    if bad and sum(valid) < FEWEST * len(valid):
        reasons = (f"{n} channels {why}" for why, n in Counter(bad.values()).most_common())
        yield f"{UNDECIDED}: {', '.join(reasons)}{cure}"
    elif large:
        yield f"{', '.join(large)} ({TOO_LARGE}){cure}"


def repair_as_run(recording: Recording, chain: Chain, quality: StepConfig | None = QUALITY) -> Repair:
    """Return the repair that a run has by default: what the chain does not use makes no row bad."""
    used = next((step.used for step in chain.steps if isinstance(step, Montage)), None)
    max_bad = quality.max_bad if isinstance(quality, Quality) else 0.0
    return Repair(recording.info, MAX_GAP_S, columns=used, max_bad=max_bad)


def chunks(recording: Recording, size: int = CHUNK, repair: Repair | None = None) -> Iterator[Chunk]:
    """Yield the recording in pieces, mended as a run mends it; behind a long hole comes a discontinuity.

    Parameters
    ----------
    repair : Repair, optional
        A fresh one; by default every channel counts for whether a row is good.
    """
    index, repair = recording.index, repair or Repair(recording.info, MAX_GAP_S)
    edges = [0, *recording.breaks, len(recording.times)]
    for first, last in pairwise(edges):
        for start in range(first, last, size):
            rows = slice(start, min(start + size, last))
            yield repair(make_chunk(recording.data[rows], int(index[start]), recording.times[rows]))


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return log-probabilities, (n, n_classes); even ones where a logit is not finite."""
    known = np.where(np.isfinite(logits).all(axis=1, keepdims=True), logits, 0.0)
    return _log_softmax(known).astype(np.float32)
