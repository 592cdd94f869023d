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

from engine.answers import Labelled, answer_of, behind_rest, labelled
from engine.backends import Backend
from engine.bundle import Bundle
from engine.calibrate import centred, fitted, made_of
from engine.calibration import Calibration
from engine.head import Head, source_head
from engine.refit import Examples
from engine.rest import rested
from offline.activations import Tally, tally
from offline.evaluate.answers import answers
from offline.evaluate.decide import decide
from offline.evaluate.idle import live_row
from offline.evaluate.played import Played
from offline.evaluate.protocol import Trials, Windows
from offline.evaluate.rest import no_rest
from offline.heard import Heard, heard
from offline.probe.tasks import Session
from streamer.errors import ConfigError

LIVE = ("hits", "wrong_side", "false_activations_per_min", "falsely_on")


@dataclass(frozen=True, slots=True)
class Calibrated:
    """One person, calibrated and not.

    Attributes
    ----------
    calibration : Calibration or None
        None: there was nothing to calibrate from, and ``why`` says so.
    zero_shot, refitted : tuple of Played
        Of the rest: trials that began before it are not asked for, of longer stretches what is left is.
        Nothing where what was to be centred on is no rest: nobody would use that head.
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
        The first so many seconds are rest that the latents are centred on; nothing is learned from them.

    Raises
    ------
    BundleError
        The bundle carries no head that could be refitted.
    """
    source, readout = source_head(bundle), bundle.readout
    rest_s = rest_s if seconds is None else min(rest_s, seconds)  # as live, where nothing more is heard
    if rest_s and (why := no_rest(sessions[0], readout.classes, readout.idle, rest_s)):
        return Calibrated(None, (), (), why)
    recordings = [heard(bundle, backend, session) for session in sessions]
    if rest_s:  # a cue at its very end is no part of it, as live
        first, hop_s = recordings[0], bundle.manifest.graph.hop / bundle.manifest.input.sfreq
        try:
            rest_s, _ = rested(first.log, first.markers, readout, rest_s, hop_s)
        except ConfigError as error:
            return Calibrated(None, (), (), str(error))
    cued = answer_of(bundle.manifest.provenance).cued
    start = _Start(bundle, recordings, seconds, trials, tuple(classes) if classes else None, rest_s)
    made, why, head = None, "", None
    try:
        base, centred_s = centred(source, recordings[0].log, rest_s)
        made = fitted(bundle, base, start.found(), made_of(start.found(), sessions[0].name, centred_s))
        head = made.head
    except ConfigError as error:
        why = str(error)

    def rest(one: Head | None) -> tuple[Played, ...]:
        return tuple(
            _decided(bundle, recording.played(one, readout.temperature, cut, cued=cued), cut)
            for recording, cut in zip(recordings, start.cuts, strict=True)
            if cut < np.inf
        )

    zero_shot = rest(None)
    return Calibrated(made, zero_shot, zero_shot if head is None else rest(head), why)


def row_of(one: Calibrated, bundle: Bundle, protocol: Trials | Windows) -> dict[str, Any]:
    """Return one person's row: both accuracies, balanced where windows are scored, and why which head.

    Where nothing can be scored they are NaN, and ``because`` says why that is.  ``live`` holds what the
    labels did with either head, at the bundle's own decision settings, as `offline.evaluate.idle.live_row`
    has it.
    """
    readout = bundle.readout

    def right(played: tuple[Played, ...]) -> float:
        said = answers(played, readout.classes, readout.idle, protocol)
        if isinstance(protocol, Trials):
            return float(said.right.mean()) if len(said) else float("nan")
        shares = [said.right[said.truth == place] for place in np.unique(said.truth)]
        return float(np.mean([share.mean() for share in shares])) if shares else float("nan")

    before, after = right(one.zero_shot), right(one.refitted)
    return {
        "zero_shot": round(before, 4),
        "refitted": round(after, 4),
        "gain_points": round(100 * (after - before), 2),
        "new_head": one.calibration is not None and one.calibration.weight is not None,
        "trials": sum(one.calibration.made_of.trials.values()) if one.calibration else 0,
        "because": _because(one, bool(np.isfinite(before))),
        "live": {"zero_shot": _live(one.zero_shot, bundle, protocol)}
        | {"refitted": _live(one.refitted, bundle, protocol)},
    }


def _live(
    played: Sequence[Played], bundle: Bundle, protocol: Trials | Windows
) -> dict[str, float | None] | None:
    readout = bundle.readout
    if readout.idle is None or not played:
        return None
    counted = [tally(one, one.labels, readout.classes, readout.idle, protocol.live) for one in played]
    return live_row(Tally.joined(counted))


def _because(one: Calibrated, scored: bool) -> str:
    if one.calibration is not None and scored:
        return one.calibration.reason
    return one.why or "nothing is asked for behind what calibrates"


def summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean and the worst of the rows, and the rows; of ``live`` the mean of those who have any."""
    gains = np.array([row["gain_points"] for row in rows.values()], dtype=float)
    return {
        "zero_shot": _mean(rows, "zero_shot"),
        "refitted": _mean(rows, "refitted"),
        "gain_points": round(float(gains.mean()), 2),
        "worst_points": round(float(gains.min()), 2),
        "better": int((gains > 0).sum()),
        "worse": int((gains < 0).sum()),
        "new_heads": sum(bool(row["new_head"]) for row in rows.values()),
        "live": {head: _live_mean(rows, head) for head in ("zero_shot", "refitted")},
        "per_subject": dict(rows),
    }


class _Start:
    """The beginning of a person's recordings: its trials, and where in each recording the rest begins."""

    def __init__(
        self,
        bundle: Bundle,
        recordings: Sequence[Heard],
        seconds: float | None,
        trials: int | None,
        classes: tuple[str, ...] | None,
        rest_s: float,
    ) -> None:
        self._some: list[Labelled] = []
        self.cuts: list[float] = []
        answer, every = answer_of(bundle.manifest.provenance), bundle.readout.classes
        left_s, left = np.inf if seconds is None else seconds, trials
        for number, one in enumerate(recordings):
            if left_s <= 0 or left == 0:
                self.cuts.append(0.0)
                continue
            before = one.begin + left_s
            rests = rest_s > 0 and number == 0
            markers = behind_rest(one.log, one.markers, rest_s) if rests else one.markers
            found = labelled(one.log, markers, every, answer, among=classes, before=before, most=left)
            left = None if left is None else left - sum(found.trials.values())
            end = before if left != 0 else float(one.log.times[0]) + found.seconds
            self.cuts.append(end if end < one.end else np.inf)
            left_s -= one.end - one.begin
            self._some.append(found)

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


def _decided(bundle: Bundle, played: Played, since: float) -> Played:
    """Return it with the labels that the bundle's decision stage puts out; only what is later counts."""
    readout, manifest = bundle.readout, bundle.manifest
    paced = replace(played, every_s=manifest.graph.hop / manifest.input.sfreq)
    labels = decide(paced, readout.decision, readout.classes, readout.idle)
    return replace(paced, labels=labels, valid=paced.valid & (paced.times > since))


def _live_mean(rows: Mapping[str, Mapping[str, Any]], head: str) -> dict[str, float | None]:
    made = [row["live"][head] for row in rows.values() if row["live"][head]]
    each = {key: [one[key] for one in made if one[key] is not None] for key in LIVE}
    return {key: round(float(np.mean(some)), 4) if some else None for key, some in each.items()}


def _mean(rows: Mapping[str, Mapping[str, Any]], key: str) -> float:
    return round(float(np.mean([row[key] for row in rows.values()])), 4)
