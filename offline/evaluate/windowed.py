"""The same answers from windows alone: whether streaming is worth as much as looking at each window anew.

A bundle whose net forgets what is older than its left context must say the same of a window of that length,
from an empty state, as it said when the stream came to that window's end.  That is checked here on the
recordings that are scored, answer by answer: behind the same DSP, which is the recording's from its first
sample on either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.adapt import fit
from engine.backends import Backend
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, Readout
from engine.framer import Framer
from offline.evaluate.answers import answers, hops_of
from offline.evaluate.figures import rounded
from offline.evaluate.played import QUALITY, Played, chunks, log_softmax, repair_as_run
from offline.evaluate.protocol import Trials, Windows
from offline.evaluate.recordings import Task, find_people
from offline.evaluate.run import Evaluation, scorable
from offline.probe.tasks import Session
from streamer.errors import BundleError

Hops = NDArray[np.float32]


def evaluate_windowed(
    one: Evaluation,
    subjects: Sequence[str] | None = None,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Answer all that an evaluation was asked from windows, and compare.

    Parameters
    ----------
    one : Evaluation
        What was played, streamed; nothing else is asked for.
    subjects : sequence of str, optional
        Whose recordings those are.

    Returns
    -------
    dict
        ``accuracy`` of the answers ``streamed`` and ``windowed``, ``n`` of them, how many ``differ``, and the
        ``largest_difference`` of a probability.

    Raises
    ------
    BundleError
        The net never quite forgets, so no window holds all that an answer hangs on.
    """
    refuse_unbounded(one.bundle)
    bundle, streamed, anew = one.bundle, {(p.subject, p.name): p for p in one.played}, []
    people = find_people(one.task, subjects)
    with OnnxRuntime().open(bundle) as backend:
        for done, person in enumerate(people):
            progress(f"windows of {person.name}", done, len(people))
            for session in scorable(bundle, one.task, person):
                played = streamed.get((session.subject, session.name))
                if played is not None:  # else the evaluation says why it was not
                    anew.append((played, play_windowed(bundle, backend, session, played, one.task)))
    return _compared(anew, bundle.readout, one.task.protocol)


def refuse_unbounded(bundle: Bundle) -> None:
    """Raise BundleError where the net never quite forgets."""
    if not bundle.manifest.graph.bounded:
        raise BundleError(
            f"Bundle {bundle.label} has a memory without an end, so there is no window that its answers "
            "hang on alone. Leave out --windowed."
        )


def _compared(
    pairs: Sequence[tuple[Played, Played]], readout: Readout, protocol: Trials | Windows
) -> dict[str, Any]:
    streamed, windowed = (
        answers(some, readout.classes, readout.idle, protocol) for some in zip(*pairs, strict=True)
    )
    apart = np.abs(streamed.probabilities - windowed.probabilities)
    return {
        "n": len(streamed),
        "streamed": rounded(streamed.right.mean()),
        "windowed": rounded(windowed.right.mean()),
        "differ": int((streamed.said != windowed.said).sum()),
        "largest_difference": float(apart.max(initial=0.0)),
    }


def play_windowed(bundle: Bundle, backend: Backend, session: Session, streamed: Played, task: Task) -> Played:
    """Return what a recording's answers are made of, each hop from its window alone.

    Hops that no answer is made of keep what was streamed.
    """
    readout, graph = bundle.readout, bundle.manifest.graph
    asked = task.protocol.asked(readout.classes, readout.idle)
    hops, starts = _hops_behind_dsp(bundle, session)
    frames = -(-graph.left_context // graph.hop)
    runner, logs = backend.runner(), streamed.log_probs.copy()
    for _, rows in hops_of(streamed, readout.classes, asked, task.protocol):
        for row in rows.tolist():
            runner.reset()
            for hop in hops[max(starts[row], row - frames) : row + 1]:
                runner.input[...] = hop.reshape(runner.input.shape)
                outputs = runner.step()
            logits = outputs[readout.logits].reshape(1, -1).astype(np.float64)
            logs[row] = log_softmax(logits / readout.temperature)[0]
    return replace(streamed, log_probs=logs)


def _hops_behind_dsp(bundle: Bundle, session: Session) -> tuple[Hops, list[int]]:
    """Return all hops that the graph is fed, (n, C, hop), and for each the first one since the last reset."""
    graph, recording = bundle.manifest.graph, session.recording
    chain = fit(bundle, recording.info, QUALITY).chain
    buffer = np.zeros(graph.input.shape, dtype=np.float32)
    framer = Framer(buffer, graph.left_context)
    hops: list[Hops] = []
    starts: list[int] = []
    start = 0
    for chunk in chunks(recording, repair=repair_as_run(recording, chain)):
        if chunk.discontinuity:
            chain.reset()
            framer.reset()
            start = len(hops)
        for _ in framer.frames(chain(chunk)):
            hops.append(buffer[0].copy())
            starts.append(start)
    return np.array(hops), starts
