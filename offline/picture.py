"""Draws what a bundle decided over a recording: the picture to look at before believing a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.answers import answer_of
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle
from engine.pipeline import Pipeline
from engine.scoring import answer_trials
from offline.evaluate.durations import with_durations
from offline.evaluate.played import chunks, repair_as_run
from offline.probe.tasks import Session
from streamer.dsp.quality import CURE, LINE_NOISE, TOO_LARGE
from streamer.dsp.quality import Config as Quality
from streamer.errors import ConfigError
from streamer.sources.recording import Recording
from streamer.types import Decision, Marker

COLOURS = ("#9aa0a6", "#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#8c564b")
HANDS = ("C3", "C4")
MOST = 4  # channels that are drawn
MOSTLY = 0.5  # of a recording
SPREAD = (0.5, 99.5)  # percentiles that neighbours are lifted apart by: an artefact may reach over


def draw(bundle: Bundle, session: Session, path: Path, start_s: float, seconds: float) -> dict[str, Any]:
    """Play the recording through the live pipeline and write a picture of a stretch of it.

    Above, two raw channels over the hand areas or, where the bundle does not look at them, up to four that it
    looks at; below, the probability of each class as it was put out; shaded, what the subject had been asked
    for; a line and a name, where that began and nobody says how long it went on.

    Returns
    -------
    dict
        The picture's path, why most of the recording was not decided on where that is so, and how the trials
        in the picture were answered where the bundle is asked trials.

    Raises
    ------
    ConfigError
        No picture can be written there, or the stretch begins behind the recording's end.
    """
    refuse(path)
    readout = bundle.readout
    session, _ = with_durations(session, readout.classes, readout.idle, None)
    recording = session.recording
    last_s = float(recording.times[-1])
    if start_s >= last_s:
        raise ConfigError(
            f"{session.subject}/{session.name} lasts {last_s:.1f} s: let the picture begin earlier than "
            f"--start-s {start_s:g}."
        )
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with OnnxRuntime().open(bundle) as backend:
        pipeline = Pipeline(bundle, backend, recording.info, quality=Quality())  # as a run has it
        mended = chunks(recording, repair=repair_as_run(recording, pipeline.chain))
        decisions = [decision for chunk in mended for decision in pipeline.process(chunk)]
    end_s = min(start_s + seconds, last_s)
    why, cure = _undecided(pipeline, decisions, last_s)
    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(10, 4.6), height_ratios=(1, 1.4), layout="constrained"
    )
    _draw_signal(above, session, _shown(pipeline), start_s, end_s)
    _draw_decisions(below, decisions, bundle)
    if why:
        below.text(0.5, 0.5, why, transform=below.transAxes, ha="center")
    _name_points(above, recording, bundle, start_s, end_s)
    for axes in (above, below):
        _shade(axes, recording, bundle, start_s, end_s)
        axes.spines[["top", "right"]].set_visible(False)
    below.set(xlim=(start_s, end_s), ylim=(0, 1), xlabel="time (s)", ylabel="probability")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    told = {"undecided": f"{why}{cure}"} if why else {}
    return {"picture": str(path), **told, **_answered(decisions, recording, bundle, start_s, end_s)}


def _undecided(pipeline: Pipeline, decisions: Sequence[Decision], duration_s: float) -> tuple[str, str]:
    """Return why most of a recording was not decided on, in a line, and what to do about it; else nothing."""
    # not only where none is valid: before the first verdict on the signal some are
    share = np.mean([not one.valid for one in decisions]) if decisions else 1.0
    if share <= MOSTLY:
        return "", ""
    amount = f"only {1 - share:.0%} was decided on" if share < 1 else "nothing was decided"
    verdicts = (
        reason
        for seconds in pipeline.bad_s.values()
        for reason, bad_s in seconds.items()
        if bad_s > MOSTLY * duration_s and reason != LINE_NOISE  # which is only told
    )
    reasons = Counter(verdicts)
    if not reasons:
        delays = pipeline.delays()
        needed_s = (delays["left_context_ms"] + delays["hop_ms"]) / 1e3
        return f"{amount}: the model needs {needed_s:.3g} s of good signal without a hole first", ""
    said = ", ".join(f"{n} channels {reason}" for reason, n in reasons.most_common())
    return f"{amount}: {said}", f" in {pipeline.info.unit}: {CURE}" if TOO_LARGE in reasons else ""


def _answered(
    decisions: Sequence[Decision], recording: Recording, bundle: Bundle, start_s: float, end_s: float
) -> dict[str, int]:
    """Return how the cued trials in the picture were answered; nothing of a bundle that is asked none."""
    readout, answer = bundle.readout, answer_of(bundle.manifest.provenance)
    if answer.at_s is None:
        return {}
    trials = answer_trials(
        decisions,
        recording.markers,
        readout.classes,
        among=[name for name in readout.classes if name != readout.idle],
        from_s=answer.from_s,
        at_s=answer.at_s,
        last=answer.last,
    )
    shown = [trial for trial in trials if start_s <= trial.time < end_s]
    return {"trials": len(shown), "right": sum(trial.answer == trial.label for trial in shown)}


def refuse(path: Path) -> None:
    """Refuse a picture that cannot be written, before there is anything to draw; `ConfigError`."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in known:
        raise ConfigError(f"Picture {path}: its ending is to be one of .{', .'.join(known)}.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"Picture {path}: there is no folder {path.parent}.")


def _shown(pipeline: Pipeline) -> Sequence[str]:
    """Return the channels to draw: those over the hands, or else the first that the bundle looks at."""
    names = [pipeline.info.ch_names[column] for column in pipeline.columns]
    return HANDS if set(HANDS) <= set(names) else names[:MOST]


def _draw_signal(axes: Any, session: Session, shown: Sequence[str], start_s: float, end_s: float) -> None:
    """Draw channels one under the other, in the recording's own unit."""
    recording, whose = session.recording, f"{session.subject}, {session.name}"
    rows = slice(*np.searchsorted(recording.times, (start_s, end_s)))
    data = recording.data[rows, [recording.info.ch_names.index(name) for name in shown]]
    data = np.where(np.isfinite(data), data, np.nan)
    known = np.where(np.isnan(data).all(axis=0), 0, data) if len(data) else np.zeros((1, len(shown)))
    low, middle, high = np.nanpercentile(known, (SPREAD[0], 50, SPREAD[1]), axis=0)
    lift = float(f"{(high - low).max():.1g}") or 1.0  # a round one, as it is told
    for place, name in enumerate(shown):
        y = -place * lift  # one under the other
        axes.plot(recording.times[rows], data[:, place] - middle[place] + y, lw=0.5, color="#333333")
        axes.text(start_s, y, f"{name}  ", ha="right", va="center")
    apart = f", {lift:g} {recording.info.unit} from line to line" if len(shown) > 1 else ""
    axes.set(yticks=[], title=f"{whose}: {recording.info.stype}{apart}")
    axes.tick_params(bottom=False)


def _draw_decisions(axes: Any, decisions: Sequence[Decision], bundle: Bundle) -> None:
    times = [decision.time for decision in decisions]
    values = np.array([decision.probabilities for decision in decisions])  # (n, n_classes)
    values = values.reshape(-1, len(bundle.readout.classes))  # where there is none as well
    values[np.array([not decision.valid for decision in decisions], dtype=bool)] = np.nan
    for column, name in enumerate(bundle.readout.classes):
        axes.plot(
            times,
            values[:, column],
            color=COLOURS[column % len(COLOURS)],
            lw=1.5,
            label=name.replace("_", " "),
        )
    # held at its lower edge: further rows go up, and the layout makes room for them
    axes.legend(loc="lower left", ncols=3, frameon=False, bbox_to_anchor=(0, 1))


def _asked(
    recording: Recording, bundle: Bundle, start_s: float, end_s: float
) -> Iterator[tuple[Marker, str]]:
    """Yield what was asked for in a stretch, idle aside, with the colour of its class."""
    classes, idle = bundle.readout.classes, bundle.readout.idle
    for marker in recording.markers:
        inside = marker.time < end_s and marker.time + marker.duration >= start_s
        if inside and marker.label in classes and marker.label != idle:
            yield marker, COLOURS[classes.index(marker.label) % len(COLOURS)]


def _shade(axes: Any, recording: Recording, bundle: Bundle, start_s: float, end_s: float) -> None:
    """Shade cued stretches in their class's colour; a line where a cue is a point."""
    for marker, colour in _asked(recording, bundle, start_s, end_s):
        if marker.duration > 0:
            axes.axvspan(marker.time, marker.time + marker.duration, color=colour, alpha=0.15, lw=0)
        else:
            axes.axvline(marker.time, color=colour, lw=1)


def _name_points(axes: Any, recording: Recording, bundle: Bundle, start_s: float, end_s: float) -> None:
    """Write beside a cue that is a point what it asks for: one colour alone is easily taken for another."""
    top = axes.get_xaxis_transform()
    for marker, colour in _asked(recording, bundle, start_s, end_s):
        if marker.duration <= 0:
            name = f" {marker.label.replace('_', ' ')}"
            axes.text(marker.time, 1, name, color=colour, size=8, va="top", transform=top, clip_on=True)
