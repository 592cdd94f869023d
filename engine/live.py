"""A run of decisions from its config: opens everything, drives it, closes it, reports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from engine.bundle import load
from engine.calibration import check as check_calibration
from engine.calibration import personal
from engine.calibration import read as read_calibration
from engine.config import RunConfig
from engine.operating import outlook, settle
from engine.pipeline import Pipeline, Receiver
from engine.session import CHANGED, LOST, Observer, Session, drive, greeting, interruptible, report
from engine.stepping import repair_for
from engine.telemetry import Telemetry
from streamer.acquire import feed
from streamer.types import Decision, DecisionInfo

__all__ = ["CHANGED", "LOST", "Observer", "run_config"]


def run_config(
    config: RunConfig,
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda line: None,
    extra: Receiver[Decision] | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Run until the stream ends, ``seconds`` of signal have passed, or somebody interrupts.

    Parameters
    ----------
    say : callable
        Receives lines for the person at the screen.
    extra : Receiver, optional
        One more receiver of decisions.
    stop : threading.Event, optional
        Ends the run when set.
    clock : callable, optional
        Seconds; the local LSL clock by default.

    Returns
    -------
    dict
        The report: what was decoded, what was lost, how long it took.
    """
    stop = stop or threading.Event()
    bundle = load(config.bundle)
    readout = bundle.readout  # refuses a bundle for another command before a stream is waited for
    settings = settle(readout.decision, readout.operating, config.decision, bundle.label)
    calibration = read_calibration(config.calibration) if config.calibration else None
    if calibration is not None:
        check_calibration(calibration, bundle)
    with ExitStack() as stack:
        backend = stack.enter_context(config.backend.open(bundle))
        source = stack.enter_context(config.source.open())
        pipeline = Pipeline(
            bundle,
            backend,
            source.info,
            quality=config.quality,
            decision=settings,
            calibration=calibration,
        )
        stack.enter_context(interruptible(stop))  # from here on there is something to report
        info = decision_info(config.name, pipeline)
        sinks: list[Receiver[Decision]] = [stack.enter_context(sink.open(info)) for sink in config.sinks]
        sinks += [extra] if extra else []
        samples = stack.enter_context(feed(source, repair=repair_for(config, pipeline), late=config.late))
        telemetry = Telemetry(pipeline.hop_s)
        session = Session(pipeline, samples, sinks, telemetry, source.live, backend.name)
        for line in greeting(session, _first(pipeline)):
            say(line)
        own, made = personal(bundle, calibration), pipeline.interpolated
        told = outlook(readout.decision, readout.operating, settings, personal=own, interpolated=made)
        say(f"decides  {told}")
        if calibration is not None:
            say(f"calibrated  {calibration.words()}")
        ended = drive(session, config, stop=stop, seconds=seconds, say=say, clock=clock)
    return report(session, ended, counts(telemetry))


def decision_info(name: str, pipeline: Pipeline) -> DecisionInfo:
    """Return what the stream of decisions of this name is."""
    classes = pipeline.bundle.readout.classes
    return DecisionInfo(name, classes, 1 / pipeline.hop_s, pipeline.info, pipeline.describe())


def _first(pipeline: Pipeline) -> str:
    """Say when the first decision will come."""
    delays = pipeline.delays()
    return f"first decision after {delays['left_context_ms'] / 1e3 + pipeline.hop_s:.2f} s of signal"


def counts(telemetry: Telemetry) -> dict[str, Any]:
    """Return what a report counts of decisions."""
    return {
        "decisions": telemetry.decisions,
        "labelled": telemetry.labelled,
        "invalid": telemetry.invalid,
    }
