"""What a calibration is worth to somebody: the first minute refits the head, the rest is scored both ways.

Nothing but the head differs between the two: both come from one course through the recordings, the state of
filters and model carried on over the moment at which the new head would have been put in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.answers import Labelled, LatentLog, answer_of, labelled
from engine.backends import Backend
from engine.bundle import Bundle
from engine.calibrate import centred, fitted, made_of
from engine.calibration import Calibration
from engine.head import source_head
from engine.pipeline import Pipeline
from engine.refit import Examples
from offline.evaluate.played import QUALITY, Played, chunks, play
from offline.evaluate.protocol import Trials, Windows
from offline.evaluate.scores import score
from offline.probe.tasks import Session
from streamer.errors import ConfigError

CHUNK = 320  # samples: any other gives the same latents, and shorter ones take longer


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One person, calibrated and not.

    Attributes
    ----------
    calibration : Calibration or None
        None: there was nothing to calibrate from, and ``why`` says so.
    zero_shot, refitted : tuple of Played
        Of the rest: markers before its beginning are left out, decisions are not.
    """

    calibration: Calibration | None
    zero_shot: tuple[Played, ...]
    refitted: tuple[Played, ...]
    why: str = ""


def calibrated(
    bundle: Bundle,
    backend: Backend,
    sessions: Sequence[Session],
    *,
    seconds: float | None = 60.0,
    trials: int | None = None,
    classes: Sequence[str] | None = None,
    rest_s: float = 0.0,
) -> Calibrated:
    """Calibrate on the beginning of one person's recordings and play the rest with both heads.

    Parameters
    ----------
    backend : Backend
        The bundle's graph, compiled.
    sessions : sequence of Session
        Of one person, in order; the later ones go on where the first ends.
    seconds, trials : float, int, optional
        How much the calibration may use: signal from the beginning, and trials.
    classes : sequence of str, optional
        Whose trials may be used; all by default.
    rest_s : float
        The first so many seconds are rest that the latents are centred on.

    Raises
    ------
    BundleError
        The bundle carries no head that could be refitted.
    """
    source = source_head(bundle)
    start = _Start(seconds, trials, tuple(classes) if classes else None)
    heard = start.listen(bundle, backend, sessions)
    later = [(session, cut) for session, cut in zip(sessions, start.cuts, strict=True) if cut < np.inf]
    try:
        base, rested = centred(source, heard, rest_s)
        made = fitted(bundle, base, start.found(), made_of(start.found(), sessions[0].name, rested))
    except ConfigError as error:
        same = tuple(_rest(play(bundle, backend, one), cut) for one, cut in later)
        return Calibrated(None, same, same, str(error))
    zero_shot = tuple(_rest(play(bundle, backend, one), cut) for one, cut in later)
    refitted = tuple(_rest(play(bundle, backend, one, calibration=made), cut) for one, cut in later)
    return Calibrated(made, zero_shot, refitted)


def calibrated_report(
    bundle: Bundle,
    backend: Backend,
    people: Mapping[str, Sequence[Session]],
    protocol: Trials | Windows,
    **options: Any,
) -> dict[str, Any]:
    """Return how each person does on the rest of their recordings without and with a calibration.

    Parameters
    ----------
    people : mapping of str to sequence of Session
        The recordings of each, in order.
    options
        As of `calibrated`.

    Returns
    -------
    dict
        ``per_subject`` with both accuracies (balanced where windows are scored), the gain in points, whether
        the head was kept and why; mean and worst of all.
    """
    readout = bundle.readout

    def right(played: tuple[Played, ...]) -> float:
        scores = score(list(played), readout.classes, readout.idle, protocol)
        value = scores.accuracy if isinstance(protocol, Trials) else scores.balanced_accuracy
        return float("nan") if value is None else float(value)

    rows = {}
    for subject, sessions in people.items():
        one = calibrated(bundle, backend, sessions, **options)
        before, after = right(one.zero_shot), right(one.refitted)
        rows[subject] = {
            "zero_shot": round(before, 4),
            "refitted": round(after, 4),
            "gain_points": round(100 * (after - before), 2),
            "new_head": one.calibration is not None and one.calibration.weight is not None,
            "trials": sum(one.calibration.made_of.trials.values()) if one.calibration else 0,
            "because": one.calibration.reason if one.calibration else one.why,
        }
    gains = np.array([row["gain_points"] for row in rows.values()], dtype=float)
    return {
        "zero_shot": _mean(rows, "zero_shot"),
        "refitted": _mean(rows, "refitted"),
        "gain_points": round(float(gains.mean()), 2),
        "worst_points": round(float(gains.min()), 2),
        "new_heads": sum(bool(row["new_head"]) for row in rows.values()),
        "per_subject": rows,
    }


class _Start:
    """The beginning of a person's recordings: its trials, and where in each recording the rest begins."""

    def __init__(self, seconds: float | None, trials: int | None, classes: tuple[str, ...] | None) -> None:
        self._seconds, self._trials, self._classes = seconds, trials, classes
        self._some: list[Labelled] = []
        self.cuts: list[float] = []

    def listen(self, bundle: Bundle, backend: Backend, sessions: Sequence[Session]) -> LatentLog:
        """Take trials from recording after recording until there is enough; return the first one's log."""
        left_s = np.inf if self._seconds is None else self._seconds
        left = self._trials
        logs = []
        for session in sessions:
            if left_s <= 0 or left == 0:
                self.cuts.append(0.0)
                continue
            log = _heard(bundle, backend, session)
            answer, markers = answer_of(bundle.manifest.provenance), session.recording.markers
            begin = float(session.recording.times[0])
            found = labelled(
                log,
                markers,
                bundle.readout.classes,
                answer,
                among=self._classes,
                before=begin + left_s,
                most=left,
            )
            left = None if left is None else left - sum(found.trials.values())
            end = begin + left_s if left != 0 else float(log.times[0]) + found.seconds
            length_s = float(session.recording.times[-1]) - begin
            self.cuts.append(end if end - begin < length_s else np.inf)
            left_s -= length_s
            self._some.append(found)
            logs.append(log)
        return logs[0]

    def found(self) -> Labelled:
        """Return the trials of all recordings together."""
        some, first = self._some, 0
        parts = []
        for one in some:
            parts.append(one.examples.trials + first)
            first = int(parts[-1].max()) + 1 if len(parts[-1]) else first
        examples = Examples(
            np.concatenate([one.examples.latents for one in some]),
            np.concatenate([one.examples.labels for one in some]),
            np.concatenate(parts),
        )
        trials = Counter[str]()
        for one in some:
            trials.update(one.trials)
        return Labelled(
            examples, dict(trials), sum(one.left_out for one in some), sum(one.seconds for one in some)
        )


def _heard(bundle: Bundle, backend: Backend, session: Session) -> LatentLog:
    """Return the latents of one recording."""
    assert bundle.readout.latent is not None
    log = LatentLog(bundle.readout.latent)
    pipeline = Pipeline(bundle, backend, session.recording.info, quality=QUALITY, observe=log.observe)
    for chunk in chunks(session.recording, CHUNK):
        for decision in pipeline.process(chunk):
            log.write(decision)
    return log


def _rest(played: Played, cut: float) -> Played:
    """Return it with the markers that lie after the calibration."""
    return replace(played, markers=tuple(marker for marker in played.markers if marker.time >= cut))


def _mean(rows: Mapping[str, Mapping[str, Any]], key: str) -> float:
    return round(float(np.mean([row[key] for row in rows.values()])), 4)
