"""What a bundle puts out before its decisions, hop by hop over a recording: latents and logits.

One course through the pipeline serves any number of heads, each of which is another `Played`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from engine.answers import LatentLog
from engine.backends import Arrays, Backend
from engine.bundle import Bundle
from engine.framer import Frame
from engine.head import Head
from engine.pipeline import Pipeline
from offline.evaluate.played import QUALITY, Played, chunks, log_softmax, repair_as_run
from offline.probe.tasks import Session
from streamer.errors import BundleError
from streamer.types import Marker

CHUNK = 320  # samples: any other gives the same latents, and shorter ones take longer


@dataclass(frozen=True, slots=True)
class Heard:
    """A recording's hops.

    Attributes
    ----------
    subject, name : str
        Whose recording, and which.
    log, logits : LatentLog
        The latents and the logits, with the same stamps.
    markers : tuple of Marker
    begin, end : float
        Stamps of the first and the last sample, s.
    duration_s : float
    notes : tuple of str
        As in `offline.evaluate.played.Played`.
    """

    subject: str
    name: str
    log: LatentLog
    logits: LatentLog
    markers: tuple[Marker, ...]
    begin: float
    end: float
    duration_s: float
    notes: tuple[str, ...]

    def played(
        self, head: Head | None, temperature: float, since: float = -np.inf, *, cued: bool = True
    ) -> Played:
        """Return what a head says of the hops, no label put out.

        Parameters
        ----------
        head : Head or None
            None: the graph's own logits.
        since : float
            Only what comes after this stamp, s, is asked for.
        cued : bool
            Each marker is answered once: those before ``since`` are left out.  Else they stand for stretches,
            and what of one lies behind ``since`` is still asked for.
        """
        logits = self.logits.latents.astype(np.float64) if head is None else head.logits(self.log.latents)
        times = self.log.times
        return Played(
            subject=self.subject,
            name=self.name,
            times=times,
            log_probs=log_softmax(logits / temperature),
            valid=self.log.valid,
            labels=np.full(len(times), -1),
            markers=tuple(asked_since(self.markers, since, cued)),
            duration_s=self.duration_s,
            notes=self.notes,
        )


def heard(bundle: Bundle, backend: Backend, session: Session) -> Heard:
    """Run a recording through a fresh pipeline; `BundleError` where the bundle puts out no latent."""
    readout, recording = bundle.readout, session.recording
    if readout.latent is None:
        raise BundleError(f"Bundle {bundle.label} puts out no latent: it has no head to refit.")
    widths = {one.name: math.prod(one.shape[1:]) for one in bundle.manifest.graph.outputs}
    log, logits = (LatentLog(name, widths[name]) for name in (readout.latent, readout.logits))

    def observe(frame: Frame, outputs: Arrays) -> None:
        log.observe(frame, outputs)
        logits.observe(frame, outputs)

    pipeline = Pipeline(bundle, backend, recording.info, quality=QUALITY, observe=observe)
    for chunk in chunks(recording, CHUNK, repair_as_run(recording, pipeline.chain)):
        for decision in pipeline.process(chunk):
            log.write(decision)
            logits.write(decision)
    begin, end = float(recording.times[0]), float(recording.times[-1])
    return Heard(
        subject=session.subject,
        name=session.name,
        log=log,
        logits=logits,
        markers=tuple(recording.markers),
        begin=begin,
        end=end,
        duration_s=end + 1 / recording.info.sfreq,
        notes=pipeline.notes,
    )


def asked_since(markers: Sequence[Marker], since: float, cued: bool) -> Iterator[Marker]:
    """Yield the markers that begin then or later, and of stretches that end later the rest."""
    ordered = sorted(markers, key=lambda marker: marker.time)
    for marker, following in zip_longest(ordered, ordered[1:]):
        if marker.time >= since:
            yield marker
        elif not cued:
            until = marker.time + marker.duration if marker.duration else np.inf
            if min(until, following.time if following else np.inf) > since:
                yield replace(marker, time=since, duration=until - since if marker.duration else 0.0)
