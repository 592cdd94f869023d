"""Classical decoders that are played like bundles: `train_decoder`, `Decoder`.

They see what a bundle's graph sees, through the same DSP code with carried state and the same framer; every
hop the classifier tells the last window, and the engine's own decision stage decides.  They learn from the
windows of the training people whose answers the protocol asks for, and from nothing else; the temperature
is fitted on the people validated on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.decision import Decider
from engine.manifest import InputContract
from offline.benchmark.asked import asked
from offline.benchmark.classifiers import IdleFirst
from offline.benchmark.hops import Behind, Hops, behind, hops_of
from offline.benchmark.memo import Memo
from offline.benchmark.people import Fold, Recordings
from offline.benchmark.readers import Features
from offline.benchmark.recipe import Classical, Task
from offline.benchmark.standardise import Standard, running, standard_of
from offline.evaluate.played import CHUNK, Played
from offline.evaluate.protocol import Trials
from offline.heard import asked_since
from offline.probe.recipe import digest
from offline.probe.tasks import Index, Session
from streamer.dsp import StepConfig
from streamer.dsp.align import Config as Align
from streamer.errors import ConfigError

BLOCK = 256  # windows in memory at a time; any other number gives the same
FLOOR = 1e-9  # of a probability


@dataclass(frozen=True, slots=True)
class Decoder:
    """A trained classical decoder.

    Attributes
    ----------
    settings : Classical
    task : Task
    dsp : tuple of steps
        Complete: an `align` has its prior.
    classifier : object
        With ``predict_proba``, columns in the order of the task's classes.
    standard : Standard or None
        Where the running standardisation of features starts.
    temperature : float
    rest_s : float
        Features are taken less their mean over so much of each person's signal, the first, at rest.
    """

    settings: Classical
    task: Task
    dsp: tuple[StepConfig, ...]
    classifier: Any
    standard: Standard | None = None
    temperature: float = 1.0
    rest_s: float = 0.0

    def play_person(self, sessions: Sequence[Session], *, memo: Memo | None = None) -> tuple[Played, ...]:
        """Play one person's recordings, in order; nothing is asked for in the rest that they begin with."""
        if not self.rest_s:
            return tuple(self.play(one, memo=memo) for one in sessions)
        seen = _Seen(self.settings, self.task, memo or Memo(0))
        usual = seen.usual(sessions[0], self.dsp, self.standard, self.rest_s)
        made = [self.play(one, memo=memo, usual=usual) for one in sessions]
        return (asked_after_rest(made[0], sessions[0], self.rest_s, self.task), *made[1:])

    def play(
        self,
        session: Session,
        *,
        chunk: int = CHUNK,
        memo: Memo | None = None,
        usual: Features | None = None,
    ) -> Played:
        """Play a recording from its first sample and decide at every hop.

        Parameters
        ----------
        usual : ndarray, shape (p,), optional
            What features are taken less; asked for where the decoder has a ``rest_s``.

        Raises
        ------
        ValueError
            It is not there: the classifier knows no other features.
        StreamMismatch
            The recording does not fit.
        """
        if bool(self.rest_s) != (usual is not None):
            raise ValueError("a decoder that is centred on rest needs it, and no other: see play_person")
        seen = _Seen(self.settings, self.task, memo or Memo(0), chunk)
        signal, hops = seen.hops(session, self.dsp)
        rows = np.arange(len(hops))
        features = seen.features(session, self.dsp, hops, rows, self.standard)
        log_probs = self.log_probs(features if usual is None else features - usual)
        classes = self.task.classes
        decider = Decider(self.settings.decision, classes, self.task.idle, 1.0, self.settings.hop_s)
        made = []
        for place, logs, frame in zip(hops.place, log_probs, hops.frames, strict=True):
            if not place:
                decider.reset()  # behind a hole, as the pipeline does
            made.append(decider.step(logs, frame))
        places: dict[str | None, int] = {None: -1} | {name: place for place, name in enumerate(classes)}
        recording = session.recording
        return Played(
            subject=session.subject,
            name=session.name,
            times=hops.times,
            log_probs=log_probs,
            valid=np.array([one.valid for one in made], dtype=bool),
            labels=np.array([places[one.label] for one in made], dtype=np.int64),
            markers=tuple(recording.markers),
            duration_s=float(recording.times[-1] + 1 / recording.info.sfreq),
            notes=signal.notes,
        )

    def log_probs(self, features: Features) -> NDArray[np.float32]:
        """Return the log-probabilities at the decoder's temperature, (n, n_classes)."""
        if not len(features):
            return np.empty((0, len(self.task.classes)), dtype=np.float32)
        logits = _logs(self.classifier, features) / self.temperature
        shifted = logits - logits.max(axis=1, keepdims=True)
        found = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.asarray(found, dtype=np.float32)


def asked_after_rest(played: Played, session: Session, rest_s: float, task: Task) -> Played:
    """Return a person's first recording, nothing being asked for in its first ``rest_s``."""
    since, cued = float(session.recording.times[0]) + rest_s, isinstance(task.protocol, Trials)
    return replace(played, markers=tuple(asked_since(played.markers, since, cued)))


def train_decoder(
    settings: Classical,
    task: Task,
    fold: Fold,
    recordings: Recordings,
    memo: Memo | None = None,
    rest_s: float = 0.0,
) -> Decoder:
    """Train a decoder on a fold's training people and calibrate it on those validated on.

    Parameters
    ----------
    rest_s : float
        Everybody's recordings begin with so much rest, which their features are taken less the mean of.

    Raises
    ------
    StreamMismatch
        A recording does not fit.
    ConfigError
        A class without a window among the training people.
    """
    seen = _Seen(settings, task, memo or Memo(0))
    dsp = seen.with_prior(fold.train, recordings)
    standard = seen.standard(fold.train, recordings, dsp) if settings.standardise_s else None
    x, labels = seen.answers(fold.train, recordings, dsp, standard, rest_s)
    if absent := [name for label, name in enumerate(task.classes) if label not in labels]:
        raise ConfigError(f"{settings.name}: nobody who trains has a window of {', '.join(absent)}.")
    classifier = _classifier(settings, task).fit(x, labels)
    x, labels = seen.answers(fold.validate, recordings, dsp, standard, rest_s)
    return Decoder(settings, task, dsp, classifier, standard, _temperature(classifier, x, labels), rest_s)


def _classifier(settings: Classical, task: Task) -> Any:
    n, build = len(task.classes), settings.reader.classifier
    if task.idle is not None and n > 2 and isinstance(task.protocol, Trials):
        return IdleFirst(build, n, task.classes.index(task.idle))
    return build(n)


def _temperature(classifier: Any, x: Features, labels: Index) -> float:
    """Return the temperature that fits these windows best; 1 where there is none."""
    import torch

    from offline.calibrate import fit_temperature

    if not len(labels):
        return 1.0
    return fit_temperature(torch.from_numpy(_logs(classifier, x)).float(), torch.from_numpy(labels))


def _logs(classifier: Any, x: Features) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.log(np.maximum(classifier.predict_proba(x), FLOOR))
    return found


class _Seen:
    """What a decoder's settings make of recordings; ``memo`` keeps what several decoders need."""

    def __init__(self, settings: Classical, task: Task, memo: Memo, chunk: int = CHUNK) -> None:
        self._settings, self._task, self._memo, self._chunk = settings, task, memo, chunk
        places = [i for i, step in enumerate(settings.dsp) if isinstance(step, Align)]
        self._place = places[0] if places else len(settings.dsp)  # what comes before is the same in any fold
        self._contract = InputContract(
            stype=task.stype,
            sfreq=settings.sfreq,
            unit="uV",
            ch_names=task.ch_names,
            min_present=len(task.ch_names),
            dsp=settings.dsp[: self._place],
        )

    def with_prior(self, people: Sequence[str], recordings: Recordings) -> tuple[StepConfig, ...]:
        """Return the DSP list, an `align` without a prior with that of these people."""
        from offline.data.trials import population

        dsp = list(self._settings.dsp)
        step = dsp[self._place] if self._place < len(dsp) else None
        if isinstance(step, Align) and step.prior is None:
            covariances = (_covariance(self._before(one)) for one in _sessions(people, recordings))
            dsp[self._place] = step.model_copy(update={"prior": population(covariances, step.groups)})
        return tuple(dsp)

    def hops(self, session: Session, dsp: Sequence[StepConfig]) -> tuple[Behind, Hops]:
        """Return a recording behind the whole list, and the hops of it."""
        signal = self._before(session).through(dsp[self._place :])
        return signal, hops_of(signal, self._settings.window, self._settings.hop)

    def features(
        self, session: Session, dsp: Sequence[StepConfig], hops: Hops, rows: Index, standard: Standard | None
    ) -> Features:
        """Return what the classifier sees at these hops."""
        settings = self._settings
        if standard is None and not settings.past:
            return self._raw(session, dsp, hops, rows)
        every = self._raw(session, dsp, hops, np.arange(len(hops)))
        if standard is not None:
            every = running(every, hops.stretch, standard, settings.hop_s, settings.standardise_s)
        return np.concatenate([every[hops.earlier(rows, i)] for i in range(settings.past + 1)], axis=1)

    def standard(self, people: Sequence[str], recordings: Recordings, dsp: Sequence[StepConfig]) -> Standard:
        """Return mean and SD of every feature over all hops of these people, who count alike."""
        each = []
        for session in _sessions(people, recordings):
            _, hops = self.hops(session, dsp)
            each.append(self._raw(session, dsp, hops, np.arange(len(hops))))
        return standard_of(each)

    def answers(
        self,
        people: Sequence[str],
        recordings: Recordings,
        dsp: Sequence[StepConfig],
        standard: Standard | None,
        rest_s: float = 0.0,
    ) -> tuple[Features, Index]:
        """Return features and class of every window of these people that the protocol has answered."""
        features, labels = [], []
        for sessions in map(recordings.sessions, people):
            usual = self.usual(sessions[0], dsp, standard, rest_s) if rest_s else np.float64(0.0)
            for place, session in enumerate(sessions):
                _, hops = self.hops(session, dsp)
                rows, classes = asked(hops, session, self._task)
                if rest_s and not place:  # what centres is not learned from: its mean is 0 by itself
                    begin = float(session.recording.times[0])
                    later = hops.times[rows] > begin + rest_s + self._settings.window_s
                    rows, classes = rows[later], classes[later]
                if len(rows):
                    features.append(self.features(session, dsp, hops, rows, standard) - usual)
                    labels.append(classes)
        if not labels:
            raise ConfigError(
                f"{self._settings.name}: no answer is asked for in the recordings of {', '.join(people)}."
            )
        return np.concatenate(features), np.concatenate(labels)

    def usual(
        self, session: Session, dsp: Sequence[StepConfig], standard: Standard | None, rest_s: float
    ) -> Features:
        """Return the mean of each feature over the first ``rest_s`` of a recording, (p,).

        Raises
        ------
        ConfigError
            No window of the recording ends within them.
        """
        settings, (_, hops) = self._settings, self.hops(session, dsp)
        until = float(session.recording.times[0]) + rest_s
        first = (settings.past + 1) * (settings.window // settings.hop) - 1  # before, part of it is silence
        good = np.array([frame.invalid <= settings.decision.max_invalid for frame in hops.frames], dtype=bool)
        rows = np.flatnonzero(good & (hops.place >= first) & (hops.times < until))
        if not len(rows):
            raise ConfigError(
                f"{settings.name}: no whole window of {session.subject} lies in the first {rest_s:g} s "
                "of rest: make calibrate.rest_s longer, or window_s shorter."
            )
        usual: Features = self.features(session, dsp, hops, rows, standard).mean(axis=0)
        return usual

    def _raw(self, session: Session, dsp: Sequence[StepConfig], hops: Hops, rows: Index) -> Features:
        settings = self._settings
        told = (_told(dsp), f"{settings.sfreq:g} {settings.window} {settings.hop}", settings.reader.sees)
        which = digest(rows.tobytes().hex())
        blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)] or [rows]

        def make() -> Features:
            if not len(rows):
                return np.empty((0, 0))
            reader = settings.reader
            return np.concatenate([reader.features(hops.windows(some), settings.sfreq) for some in blocks])

        return self._memo.get((session.fingerprint, *told, which), make)

    def _before(self, session: Session) -> Behind:
        """Return the recording behind the steps that are the same in any fold."""
        label = f"decoder {self._settings.name}"
        key = (session.fingerprint, self._contract.model_dump_json(), str(self._chunk))
        return self._memo.get(key, lambda: behind(self._contract, label, session, self._chunk))


def _sessions(people: Sequence[str], recordings: Recordings) -> Iterator[Session]:
    return (session for name in people for session in recordings.sessions(name))


def _told(dsp: Sequence[StepConfig]) -> str:
    return digest(" ".join(step.model_dump_json() for step in dsp))


def _covariance(signal: Behind) -> NDArray[np.float64]:
    """Return the second moments of a recording's channels, (C, C)."""
    x = np.concatenate([chunk.data for chunk in signal.stretches]).astype(np.float64)
    found: NDArray[np.float64] = x.T @ x / len(x)
    return found
