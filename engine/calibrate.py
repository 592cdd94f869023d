"""`bcistream calibrate`: some labelled trials of one person, and the head that they make."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from engine.answers import Labelled, LatentLog, answer_of
from engine.bundle import Bundle, load
from engine.calibrate_stream import Ask, Hearing, silent, trials_of
from engine.calibration import Calibration, MadeOf, tied_to
from engine.config import RunConfig
from engine.cues import Show
from engine.head import Head, SourceHead, source_head
from engine.lasting import endless_said
from engine.manifest import Readout
from engine.progress import Played, unseen
from engine.refit_choice import Choice, choose, strength_of
from engine.rest import SLACK_S, rested
from engine.session import greeting, undecided
from streamer.errors import ConfigError
from streamer.sources.brainflow import Config as BrainFlow

KEPT = "the bundle's own head was kept"
REFITTED = "the head was refitted"
CENTRED = "the head was centred on the rest"
UNMEASURED = (
    "The rates of false activations that the bundle tells were measured with its own head: nobody has "
    "measured what to expect with this one, whatever `false_per_min` is set to"
)


def calibrate(
    config: RunConfig,
    ask: Ask,
    *,
    say: Callable[[str], None] = lambda line: None,
    show: Show = lambda words, left, done: None,
    progress: Played = unseen,
    stop: threading.Event | None = None,
    clock: Callable[[], float] | None = None,
) -> Calibration:
    """Listen, refit, and return the calibration; nothing is written.

    Parameters
    ----------
    say, show : callable
        Receive lines for the person at the screen, and what our own cues ask for.
    progress : callable
        Receives how much of a recording was played, and how much there is, s.
    stop : threading.Event, optional
        Ends it without a result: `KeyboardInterrupt`.
    clock : callable, optional
        Seconds; the local LSL clock by default.

    Raises
    ------
    BundleError
        The bundle carries no head that could be refitted.
    ConfigError
        Nobody gives cues, too few trials came, or the rest is none or longer than the signal.
    StreamError
        The stream does not fit, or was lost.
    """
    bundle = load(config.bundle)
    source = source_head(bundle)
    _check(config, ask, bundle, source)
    with ExitStack() as stack:
        heard = Hearing(stack, config, ask, bundle, clock or _lsl_clock(), show, progress)
        for line in greeting(heard.session, "calibrating"):
            say(line)
        heard.listen(config, stop or threading.Event(), say)
        if why := undecided(heard.session, config.source):
            raise ConfigError(f"There is nothing to calibrate on: {why}")
        markers = heard.markers()
    resting_s = _rested(bundle, heard, ask, say)
    base, rest_s = centred(source, heard.log, resting_s)
    found = trials_of(bundle, heard.log, markers, replace(ask, rest_s=resting_s))
    if found.unknown:
        say(f"events of other names were passed over: {_seen(found)}")
    return fitted(bundle, base, found, made_of(found, heard.session.feed.info.name, rest_s))


def made_of(found: Labelled, name: str, rest_s: float = 0.0) -> MadeOf:
    """Return what to write of these trials."""
    return MadeOf(
        stream=name,
        seconds=round(found.seconds, 3),
        trials=found.trials,
        rest_s=rest_s,
        left_out=found.left_out + found.endless + found.short,
    )


def fitted(bundle: Bundle, base: SourceHead, found: Labelled, made: MadeOf) -> Calibration:
    """Return the calibration that these trials make.

    Parameters
    ----------
    base : SourceHead
        The bundle's, or what `centred` made of it.

    Raises
    ------
    ConfigError
        Too few trials, or of one class only, and no rest to centre on.
    """
    readout = bundle.readout
    answer = answer_of(bundle.manifest.provenance)
    idle, strength = readout.idle if answer.cued else None, strength_of(answer)
    try:
        choice = choose(base, readout.temperature, found.examples, readout.classes, idle, strength)
    except ConfigError as error:
        if not made.rest_s:
            raise ConfigError(f"{error} {_remedy(found, readout)}") from error
        reason = str(error) if found.trials else "no labelled trials were given"
        return _file(bundle, base.head, CENTRED, reason, made)
    if choice.head is not None:
        return _file(bundle, choice.head, REFITTED, choice.reason, made, choice)
    if made.rest_s:
        return _file(bundle, base.head, CENTRED, choice.reason, made, choice)
    return _file(bundle, None, KEPT, choice.reason, made, choice)


def centred(source: SourceHead, log: LatentLog, rest_s: float) -> tuple[SourceHead, float]:
    """Return the head for latents of the person who rested for the first ``rest_s`` of the log.

    Returns
    -------
    SourceHead, float
        And the seconds of valid signal behind it.
    """
    if not rest_s:
        return source, 0.0
    assert source.centred is not None
    times, valid = log.times, log.valid
    resting = valid & (times <= times[0] + rest_s + SLACK_S) if len(times) else valid
    if not resting.any():
        raise ConfigError(
            f"No valid signal in the {rest_s:g} s of rest: it must be longer than the model's warm-up, and "
            "the electrodes must sit well."
        )
    mean = log.latents[resting].astype(np.float64).mean(axis=0)
    seconds = round(float(resting.sum() * np.median(np.diff(times))), 3)
    # What a refit gained others was measured on the head that is not centred.
    return replace(source, head=source.centred.centred_on(mean), centred=None, gains=()), seconds


def _rested(bundle: Bundle, heard: Hearing, ask: Ask, say: Callable[[str], None]) -> float:
    """Return how much of the rest that is asked for is one, s; `ConfigError` where it is none."""
    if not ask.rest_s or ask.cues:  # our own cues ask for nothing in it
        return ask.rest_s
    wanted = ask.rest_s if ask.seconds is None else min(ask.rest_s, ask.seconds)
    hop_s = heard.session.pipeline.hop_s
    seconds, why = rested(heard.log, heard.markers(), bundle.readout, wanted, hop_s)
    if why:
        say(why)
    return seconds


def refuse_rest(bundle: Bundle, source: SourceHead) -> None:
    """Refuse to centre a bundle on rest that has no head for it; `ConfigError`."""
    if source.centred is None:
        raise ConfigError(
            f"Bundle {bundle.label} was not trained on latents that are centred on each person's rest, and "
            "a shift of its head by a stretch of rest is no gain: people whom such heads had not learnt from "
            "lost by it. Leave the rest out and give labelled trials."
        )


def told(made: Calibration) -> dict[str, Any]:
    """Return the result for people: what was decided and why, and each class before and after."""
    lines: dict[str, Any] = {
        "result": made.method,
        "because": made.reason,
        "trials": made.made_of.trials,
        "left_out": made.made_of.left_out,
        "seconds": made.made_of.seconds,
        "rest_s": made.made_of.rest_s,
    }
    if made.old is None or made.new is None:
        return lines
    for name, before in made.old.per_class.items():
        if made.made_of.trials.get(name, 0) < 2:
            continue  # left out, its class was not there to learn from
        lines[name] = f"{before:.0%} right with the bundle's head, {made.new.per_class[name]:.0%} refitted"
    lines["all"] = f"{made.old.balanced_accuracy:.0%} before, {made.new.balanced_accuracy:.0%} refitted"
    return lines


def _check(config: RunConfig, ask: Ask, bundle: Bundle, source: SourceHead) -> None:
    """Refuse what cannot become a calibration before a stream is waited for."""
    classes = bundle.readout.classes
    unknown = [name for name in ask.classes or () if name not in classes]
    if unknown:
        raise ConfigError(
            f"Bundle {bundle.label} has no class {', '.join(unknown)}; it has {', '.join(classes)}."
        )
    if ask.rest_s:
        refuse_rest(bundle, source)
    if ask.cues:
        return
    if silent(config) and not ask.rest_s:
        what, hint = "source names no marker stream", "Set `markers: NAME` under `source:`, or let"
        if isinstance(config.source, BrainFlow):
            what, hint = "board knows no events", "Let"
        raise ConfigError(f"The {what}, so nobody says what was done when. {hint} --cues ask for it.")


def _remedy(found: Labelled, readout: Readout) -> str:
    """Say what became of the trials that somebody gave, and what to do."""
    said = []
    if found.left_out:
        said.append(
            f"{found.left_out} more were left out for bad signal (an electrode, a hole, the model's "
            "warm-up): see which channels `bcistream run` calls bad."
        )
    if found.endless:
        said.append(f"{found.endless} more were left out: {endless_said(readout.idle)}")
    if found.short:
        said.append(f"{found.short} more were left out: they are shorter than what the bundle looks at.")
    if found.unknown:
        new = next(name for name in readout.classes if name != readout.idle)
        old = next(iter(found.unknown))
        said.append(
            f"Events of other names were found: {_seen(found)}. `labels: {{{old}: {new}}}` in the source "
            "block of a recording renames them; in a live stream whoever sends them must."
        )
    return " ".join(said) or "Give more signal, or check the names of the events."


def _seen(found: Labelled) -> str:
    return ", ".join(f"{n} x {name}" for name, n in found.unknown.items())


def _file(
    bundle: Bundle,
    head: Head | None,
    method: str,
    reason: str,
    made_of: MadeOf,
    choice: Choice | None = None,
) -> Calibration:
    if head is not None and bundle.readout.operating:
        reason = f"{reason}. {UNMEASURED}"
    return Calibration(
        bundle=tied_to(bundle),
        method=method,
        reason=reason,
        made_of=made_of,
        old=choice.old if choice else None,
        new=choice.new if choice else None,
        weight=tuple(map(tuple, head.weight.tolist())) if head else None,
        bias=tuple(head.bias.tolist()) if head else None,
    )


def _lsl_clock() -> Callable[[], float]:
    from pylsl import local_clock

    clock: Callable[[], float] = local_clock
    return clock
