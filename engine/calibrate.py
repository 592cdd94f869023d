"""`bcistream calibrate`: some labelled trials of one person, and the head that they make."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.answers import Labelled, LatentLog, answer_of, labelled
from engine.bundle import Bundle, load
from engine.calibration import Calibration, MadeOf, tied_to
from engine.config import RunConfig
from engine.cues import Cues, Show, plan
from engine.head import Head, SourceHead, source_head
from engine.pipeline import Pipeline
from engine.refit_choice import Choice, choose
from engine.session import CHANGED, LOST, Session, drive, greeting, interruptible
from engine.stepping import repair_for
from engine.telemetry import Telemetry
from streamer.acquire import Feed, feed
from streamer.errors import ConfigError, StreamLost, StreamMismatch
from streamer.sources.brainflow import Config as BrainFlow
from streamer.sources.lsl import Config as Lsl
from streamer.types import Decision, Marker

LIVE_S = 60.0  # of labelled signal, where nobody says how much
KEPT = "the bundle's own head was kept"
REFITTED = "the head was refitted"
CENTRED = "the head was centred on the rest"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a calibration is to be made of.

    Attributes
    ----------
    seconds : float or None
        Signal to listen to; None: all of a recording, `LIVE_S` of a live stream.
    trials : int or None
        Stop after so many labelled trials.
    classes : tuple of str or None
        Whose trials count; None: every class of the bundle that occurs.
    rest_s : float
        The first so many seconds are rest, which the latents are centred on.
    cues : bool
        Give the cues ourselves.
    trial_s, pause_s : float
        Of our own cues, s.
    seed : int
        Of the order of our own cues.
    """

    seconds: float | None = None
    trials: int | None = None
    classes: tuple[str, ...] | None = None
    rest_s: float = 0.0
    cues: bool = False
    trial_s: float = 4.0
    pause_s: float = 3.0
    seed: int = 0


def calibrate(
    config: RunConfig,
    ask: Ask,
    *,
    say: Callable[[str], None] = lambda line: None,
    show: Show = lambda words, left, done: None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] | None = None,
) -> Calibration:
    """Listen, refit, and return the calibration; nothing is written.

    Parameters
    ----------
    say, show : callable
        Receive lines for the person at the screen, and what our own cues ask for.
    stop : threading.Event, optional
        Ends it without a result: `KeyboardInterrupt`.
    clock : callable, optional
        Seconds; the local LSL clock by default.

    Raises
    ------
    BundleError
        The bundle carries no head that could be refitted.
    ConfigError
        Nobody gives cues, or too few trials came.
    StreamError
        The stream does not fit, or was lost.
    """
    bundle = load(config.bundle)
    source = source_head(bundle)
    _check(config, ask, bundle, source)
    with ExitStack() as stack:
        heard = _Heard(stack, config, ask, bundle, clock or _lsl_clock(), show)
        for line in greeting(heard.session, "calibrating"):
            say(line)
        heard.listen(config, stop or threading.Event(), say)
        markers = heard.markers()
    base, rest_s = centred(source, heard.log, ask.rest_s)
    found = _trials(bundle, heard.log, markers, ask)
    return fitted(bundle, base, found, made_of(found, heard.session.feed.info.name, rest_s))


def made_of(found: Labelled, name: str, rest_s: float = 0.0) -> MadeOf:
    """Return what to write of these trials."""
    return MadeOf(
        stream=name,
        seconds=round(found.seconds, 3),
        trials=found.trials,
        rest_s=rest_s,
        left_out=found.left_out,
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
        Too few trials, or of one class only.
    """
    readout = bundle.readout
    if made.rest_s and not found.trials:
        return _file(bundle, base.head, CENTRED, "no labelled trials were given", made)
    choice = choose(base, readout.temperature, found.examples, readout.classes)
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
    resting = valid & (times <= times[0] + rest_s) if len(times) else valid
    if not resting.any():
        raise ConfigError(
            f"No valid signal in the {rest_s:g} s of rest: it must be longer than the model's warm-up, and "
            "the electrodes must sit well."
        )
    mean = log.latents[resting].astype(np.float64).mean(axis=0)
    seconds = round(float(resting.sum() * np.median(np.diff(times))), 3)
    head = source.centred.centred_on(mean)
    return SourceHead(head, source.means, source.covariance, source.n_source), seconds


def told(made: Calibration) -> dict[str, Any]:
    """Return the result for people: what was decided and why, and each class before and after."""
    lines: dict[str, Any] = {
        "result": made.method,
        "because": made.reason,
        "trials": made.made_of.trials,
        "left_out": made.made_of.left_out,
        "seconds": made.made_of.seconds,
    }
    if made.old is None or made.new is None:
        return lines
    for name, before in made.old.per_class.items():
        lines[name] = f"{before:.0%} right with the bundle's head, {made.new.per_class[name]:.0%} refitted"
    lines["all"] = f"{made.old.balanced_accuracy:.0%} before, {made.new.balanced_accuracy:.0%} refitted"
    return lines


class _Heard:
    """The stream through the bundle, its latents kept, until there is enough of them.

    Parameters
    ----------
    stack : ExitStack
        Closes what is opened here.
    """

    lost = 0

    def __init__(
        self,
        stack: ExitStack,
        config: RunConfig,
        ask: Ask,
        bundle: Bundle,
        clock: Callable[[], float],
        show: Show,
    ) -> None:
        assert bundle.readout.latent is not None
        self.log = LatentLog(bundle.readout.latent)
        self._ask, self._bundle, self._clock = ask, bundle, clock
        backend = stack.enter_context(config.backend.open(bundle))
        source = stack.enter_context(config.source.open())
        if ask.cues and not source.live:
            raise ConfigError("--cues asks a person, and this source is a recording: leave one of them out.")
        pipeline = Pipeline(bundle, backend, source.info, quality=config.quality, observe=self.log.observe)
        self._feed: Feed = stack.enter_context(feed(source, repair=repair_for(config, pipeline)))
        self._cues = Cues(_steps(ask, bundle), show) if ask.cues else None
        telemetry = Telemetry(pipeline.hop_s)
        self.session = Session(pipeline, self._feed, [self], telemetry, source.live, backend.name)
        self._done = threading.Event()

    def write(self, decision: Decision) -> None:
        """Take one decision, and see whether there is enough."""
        self.log.write(decision)
        if self._cues is not None:
            self._cues.look(self._clock())
            if self._cues.over:
                self._done.set()
        elif self._ask.trials is not None and len(self._feed.markers()) >= self._ask.trials:
            found = _trials(self._bundle, self.log, self.markers(), self._ask)
            if sum(found.trials.values()) >= self._ask.trials:
                self._done.set()

    def markers(self) -> Sequence[Marker]:
        """Return what was asked for so far."""
        return self._feed.markers() if self._cues is None else self._cues.markers

    def listen(self, config: RunConfig, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Run until there is enough; `KeyboardInterrupt` when ``stop`` is set from outside."""
        seconds = self._ask.seconds
        if seconds is None and self.session.live and self._cues is None and self._ask.trials is None:
            seconds = LIVE_S
        either = _Either(stop, self._done)
        with interruptible(stop):
            ended, why = drive(
                self.session,
                config,
                stop=either,
                seconds=seconds,
                say=say,
                clock=self._clock,
                results="latents",
            )
        if stop.is_set():
            raise KeyboardInterrupt
        if ended in (LOST, CHANGED):
            raise (StreamLost if ended == LOST else StreamMismatch)(f"{why} Nothing was written.")


class _Either(threading.Event):
    """Set when either of two is."""

    def __init__(self, one: threading.Event, other: threading.Event) -> None:
        super().__init__()
        self._both = (one, other)

    def is_set(self) -> bool:
        """Whether one of them is set."""
        return any(event.is_set() for event in self._both)


def _check(config: RunConfig, ask: Ask, bundle: Bundle, source: SourceHead) -> None:
    """Refuse what cannot become a calibration before a stream is waited for."""
    classes = bundle.readout.classes
    unknown = [name for name in ask.classes or () if name not in classes]
    if unknown:
        raise ConfigError(
            f"Bundle {bundle.label} has no class {', '.join(unknown)}; it has {', '.join(classes)}."
        )
    if ask.rest_s and source.centred is None:
        raise ConfigError(
            f"Bundle {bundle.label} was not trained on latents that are centred on each person's rest: a "
            "stretch of rest would shift its head blindly. Leave --rest out and give labelled trials."
        )
    if ask.cues:
        return
    if isinstance(config.source, BrainFlow):
        raise ConfigError(
            "A board knows no events, so nobody says what was done when: let --cues ask for it."
        )
    if isinstance(config.source, Lsl) and config.source.markers is None:
        raise ConfigError(
            "The source names no marker stream, so nobody says what was done when. Set `markers: NAME` "
            "under `source:`, or let --cues ask for it."
        )


def _steps(ask: Ask, bundle: Bundle) -> list[Any]:
    """Return the plan of our own cues."""
    readout = bundle.readout
    seconds = LIVE_S if ask.seconds is None else ask.seconds
    trials = max(1, int(seconds / (ask.trial_s + ask.pause_s))) if ask.trials is None else ask.trials
    return plan(
        ask.classes or readout.classes,
        readout.idle,
        trials=trials,
        trial_s=ask.trial_s,
        pause_s=ask.pause_s,
        rest_s=ask.rest_s,
        seed=ask.seed,
    )


def _trials(bundle: Bundle, log: LatentLog, markers: Sequence[Marker], ask: Ask) -> Labelled:
    """Return the labelled trials heard so far, after the rest and within the time that was asked for."""
    times = log.times
    begin = float(times[0]) if len(times) else 0.0
    return labelled(
        log,
        [marker for marker in markers if marker.time >= begin + ask.rest_s],
        bundle.readout.classes,
        answer_of(bundle.manifest.provenance),
        among=ask.classes,
        before=np.inf if ask.seconds is None or ask.cues else begin + ask.seconds,
        most=ask.trials if not ask.cues else None,
    )


def _file(
    bundle: Bundle,
    head: Head | None,
    method: str,
    reason: str,
    made_of: MadeOf,
    choice: Choice | None = None,
) -> Calibration:
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
