"""The stream that a calibration is made of: through the bundle, its latents kept, until there is enough."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from engine.answers import Labelled, LatentLog, answer_of, behind_rest, labelled, spans_of
from engine.bundle import Bundle
from engine.config import RunConfig
from engine.cues import Cues, Show, Step, plan
from engine.lasting import endless, endless_said, lasting
from engine.pipeline import Pipeline
from engine.progress import Played, unseen
from engine.session import CHANGED, LOST, Session, drive, interruptible
from engine.stepping import repair_for
from engine.telemetry import Telemetry
from streamer.acquire import Feed, feed
from streamer.errors import ConfigError, StreamLost, StreamMismatch
from streamer.sources.brainflow import Config as BrainFlow
from streamer.sources.lsl import Config as Lsl
from streamer.types import Decision, Marker

LIVE_S = 60.0  # of labelled signal, where nobody says how much
TRIAL_S, PAUSE_S = 4.0, 3.0  # of our own cues, where nobody says how long
SPARE_S = 0.5  # a trial is longer by than what it is answered from
AGAIN_S = 1.0  # trials that no other one has joined are counted again
REST_MORE_S = 1.0  # behind a rest that nothing follows: it begins at the first hop


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
    trial_s : float or None
        Of our own cues, s; longer where the bundle needs longer, `TRIAL_S` where None.  Of markers that do
        not say it themselves; None: until the next one, where that can be their end.
    pause_s : float
        Of our own cues, s; longer where the bundle needs longer.
    seed : int
        Of the order of our own cues.
    """

    seconds: float | None = None
    trials: int | None = None
    classes: tuple[str, ...] | None = None
    rest_s: float = 0.0
    cues: bool = False
    trial_s: float | None = None
    pause_s: float = PAUSE_S
    seed: int = 0


class Hearing:
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
        progress: Played = unseen,
    ) -> None:
        assert bundle.readout.latent is not None
        self.log = LatentLog(bundle.readout.latent)
        self._ask, self._bundle, self._clock = ask, bundle, clock
        self._answer = answer_of(bundle.manifest.provenance)
        self._ended: list[float] = []
        self._counted_at = -np.inf
        self._say: Callable[[str], None] = _unsaid
        backend = stack.enter_context(config.backend.open(bundle))
        source = stack.enter_context(config.source.open())
        # A stream that is replayed faster than time passes is for a clock that does so, too.
        if ask.cues and not (source.live or isinstance(config.source, Lsl)):
            raise ConfigError("--cues asks a person, and this source is a recording: leave one of them out.")
        pipeline = Pipeline(bundle, backend, source.info, quality=config.quality, observe=self.log.observe)
        self._feed: Feed = stack.enter_context(feed(source, repair=repair_for(config, pipeline)))
        self._cues = Cues(_steps(ask, bundle), show) if ask.cues else None
        telemetry = Telemetry(pipeline.hop_s)
        self.session = Session(pipeline, self._feed, [self], telemetry, source.live, backend.name)
        self._done = threading.Event()
        self._seconds = 0.0 if source.live else (source.n_times or 0) / source.info.sfreq
        self._progress = progress

    def write(self, decision: Decision) -> None:
        """Take one decision, and see whether there is enough."""
        self.log.write(decision)
        if self._seconds:
            self._progress(self._feed.counters.samples_in / self._feed.info.sfreq, self._seconds)
        if self._cues is not None:
            self._cues.look(self._clock())
            if self._cues.over:
                self._done.set()
        else:
            self._count(_known(self._bundle, self.markers(), self._ask, decision.time), decision.time)

    def _count(self, known: Sequence[Marker], now: float) -> None:
        """See whether there are trials enough, and tell of the first whose end nobody tells."""
        readout, trials = self._bundle.readout, self._ask.trials
        if not self._answer.cued and endless(known[:-1], readout.classes, readout.idle):
            self._say(endless_said(readout.idle))
            self._say = _unsaid
        if trials is not None and self._more_ended(known, now, trials):
            found = trials_of(self._bundle, self.log, self.markers(), self._ask)
            if sum(found.trials.values()) >= trials:
                self._done.set()

    def _more_ended(self, known: Sequence[Marker], now: float, trials: int) -> bool:
        """Say whether there may be so many trials now: to count them goes through all that was heard.

        A trial that goes on may come to have enough good signal: it is looked at once a second.
        """
        if len(known) < trials:
            return False
        classes = self._bundle.readout.classes
        spans = spans_of(known, classes, self._answer, np.array([now]))
        ended = [marker.time for marker, *_ in spans if marker.label in (self._ask.classes or classes)]
        if len(ended) < trials or (ended == self._ended and now < self._counted_at + AGAIN_S):
            return False
        self._ended, self._counted_at = ended, now
        return True

    def markers(self) -> Sequence[Marker]:
        """Return what was asked for so far."""
        return self._feed.markers() if self._cues is None else self._cues.markers

    def listen(self, config: RunConfig, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Run until there is enough; `KeyboardInterrupt` when ``stop`` is set from outside."""
        either, self._say = _Either(stop, self._done), say
        with interruptible(stop):
            ended, why = drive(
                self.session,
                config,
                stop=either,
                seconds=_seconds(self._ask, config) if self.session.live else self._ask.seconds,
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


def _seconds(ask: Ask, config: RunConfig) -> float | None:
    """Return how long to listen to a live stream; None where something else ends it."""
    if ask.seconds is not None or ask.cues:
        return None if ask.cues else ask.seconds
    if silent(config):
        return ask.rest_s + REST_MORE_S
    return None if ask.trials is not None else ask.rest_s + LIVE_S


def silent(config: RunConfig) -> bool:
    """Whether the source has nobody who could say what was done when."""
    source = config.source
    return isinstance(source, BrainFlow) or (isinstance(source, Lsl) and source.markers is None)


def trials_of(bundle: Bundle, log: LatentLog, markers: Sequence[Marker], ask: Ask) -> Labelled:
    """Return the labelled trials heard so far, after the rest and within the time that was asked for."""
    times, readout = log.times, bundle.readout
    begin, end = (float(times[0]), float(times[-1])) if len(times) else (0.0, 0.0)
    known = _known(bundle, markers, ask, end)
    return labelled(
        log,
        behind_rest(log, known, ask.rest_s),
        readout.classes,
        answer_of(bundle.manifest.provenance),
        among=ask.classes,
        before=np.inf if ask.seconds is None or ask.cues else begin + ask.seconds,
        most=ask.trials if not ask.cues else None,
    )


def _known(bundle: Bundle, markers: Sequence[Marker], ask: Ask, now: float) -> list[Marker]:
    """Return the markers, those without a duration with what can be known of it by now."""
    return lasting(markers, bundle.readout.classes, bundle.readout.idle, now, trial_s=ask.trial_s)


def _unsaid(_line: str) -> None:
    """Say nothing."""


def _steps(ask: Ask, bundle: Bundle) -> list[Step]:
    """Return the plan of our own cues."""
    readout = bundle.readout
    seconds = LIVE_S if ask.seconds is None else ask.seconds
    answer = answer_of(bundle.manifest.provenance)
    needed = answer.from_s + (answer.window_s if answer.at_s is None else answer.at_s) + SPARE_S
    trial_s = max(ask.trial_s or TRIAL_S, needed)
    pause_s = ask.pause_s if answer.cued else max(ask.pause_s, needed)  # pauses are trials of doing nothing
    trials = max(1, int(seconds / (trial_s + pause_s))) if ask.trials is None else ask.trials
    return plan(
        ask.classes or readout.classes,
        readout.idle,
        trials=trials,
        trial_s=trial_s,
        pause_s=pause_s,
        rest_s=ask.rest_s,
        seed=ask.seed,
    )
