"""`bcistream demo`: a simulated subject in one process, the engine in another, a real LSL stream between."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.answers import Answer, answer_of
from engine.bundle import load
from engine.config import RunConfig, parse
from engine.live import Observer, run_config
from engine.scoring import ANSWER_AT_S, accuracy, answer_trials, balanced_accuracy
from streamer.types import Decision, Marker

ERD = 0.9  # a subject with strong imagery; people are weaker, see the bundle's model card
REST_S = 2.0  # between trials: half of what EEGMMIDB gives, so that half a minute holds five trials


def demo(
    seconds: float, seed: int, bundle: str, *, console: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Decode a simulated subject for ``seconds`` of signal and score it against what it was asked to imagine.

    Returns
    -------
    dict
        The run's report with ``accuracy`` and ``balanced_accuracy`` (among the classes but the idle one, one
        answer per cued trial, as the bundle's protocol says) and ``trials``.
    """
    with private_lsl(), _subject(seconds, seed) as name:
        from streamer.lsl import LslMarkers

        config = _config(name, bundle, console)
        heard: list[Decision] = []
        with LslMarkers(f"{name}-markers") as cues:
            report = run_config(config, say=say, extra=Observer(heard.append))
            truth = cues.read()
    classes = tuple(report["classes"])
    used = load(bundle)
    answer = answer_of(used.manifest.provenance)
    return {**score(heard, truth, classes, answer, used.readout.idle), **report, "seed": seed}


def score(
    decisions: list[Decision],
    truth: list[Marker],
    classes: tuple[str, ...],
    answer: Answer,
    idle: str | None,
) -> dict[str, Any]:
    """Return the figures of a run with known cues, answered as the bundle answers; ``idle`` is no answer."""
    cued = [name for name in classes if name != idle]
    at_s = ANSWER_AT_S if answer.at_s is None else answer.at_s
    trials = answer_trials(
        decisions, truth, classes, among=cued, from_s=answer.from_s, at_s=at_s, last=answer.last
    )
    return {
        "accuracy": accuracy(trials),
        "balanced_accuracy": balanced_accuracy(trials),
        "n_trials": len(trials),
        "trials": [{"cue": t.label, "answer": t.answer, "margin": round(t.margin, 3)} for t in trials],
    }


@contextmanager
def private_lsl() -> Iterator[None]:
    """Keep this process and its children in an LSL session of their own, on this machine only.

    Nothing that anybody else streams can be mistaken for the demo's subject.  Must come before pylsl is
    imported: liblsl reads its settings once.
    """
    if "LSLAPICFG" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="bcistream-") as folder:
        path = Path(folder) / "lsl_api.cfg"
        session = f"bcistream-{uuid.uuid4().hex[:12]}"
        path.write_text(f"[lab]\nSessionID={session}\n[multicast]\nResolveScope=machine\n[log]\nlevel=-3\n")
        os.environ["LSLAPICFG"] = str(path)
        try:
            yield
        finally:
            del os.environ["LSLAPICFG"]


def _config(name: str, bundle: str, console: bool) -> RunConfig:
    """Return the demo's run: what `configs/motor_imagery.yaml` does, from the subject's stream."""
    raw = {
        "name": "bcistream-demo",
        "source": {"kind": "lsl", "source_id": name, "timeout_s": 30.0, "recover_s": 1.0},
        "bundle": bundle,
        "sinks": [{"kind": "lsl"}, *([{"kind": "console"}] if console else [])],
    }
    return parse(raw, "demo")


@contextmanager
def _subject(seconds: float, seed: int) -> Iterator[str]:
    """Run the simulated subject in a process of its own, as a headset would be; yield its source id."""
    name = f"simulated-subject-{uuid.uuid4().hex[:8]}"
    process = multiprocessing.get_context("spawn").Process(
        target=play_subject, args=(name, seconds, seed), daemon=True
    )
    process.start()
    try:
        yield name
    finally:
        if process.is_alive():
            process.terminate()
            process.join()


def play_subject(name: str, seconds: float, seed: int) -> None:
    """Publish the simulated subject and its cues over LSL until it has nothing more to say."""
    from streamer.player import Player
    from streamer.sources.synthetic import Config as Synthetic

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the session, which then lets us go
    config = Synthetic(seed=seed, seconds=seconds, rest_s=REST_S, erd=ERD, speed="max")
    with config.open() as source, Player(source, name=name, speed=1.0) as player:
        player.run()
