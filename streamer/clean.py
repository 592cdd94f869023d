"""Source, clock and repair in a row, and what they counted."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.clock import Clock
from streamer.rate import RateCheck
from streamer.repair import Repair
from streamer.sources import Source
from streamer.types import Chunk


@dataclass(frozen=True, slots=True)
class StreamCounters:
    """What happened to a stream so far.

    Attributes
    ----------
    samples_in : int
        Rows read from the source.
    samples_lost : int
        Rows missing in holes too long to repair.
    repaired, gaps : int
        Rows filled in, in how many holes.
    discontinuities : int
        Times that every state downstream had to be reset by the stream's fault.
    non_finite : int
        Values replaced because they were no numbers.
    glitches : int
        Values replaced because no electrode gives them.
    dropped : int
        Rows that arrived and were not read in time.
    reconnects : int
        Times that the source was lost and came back.
    drift_ppm, jitter_ms : float
        Measured rate against the nominal one; mean distance of the stamps from the fitted line.
    duplicates : int
        Rows dropped because their index had been there.
    clock_steps : int
        Times that the stamps stepped back and stayed there.
    """

    samples_in: int = 0
    samples_lost: int = 0
    repaired: int = 0
    gaps: int = 0
    discontinuities: int = 0
    non_finite: int = 0
    dropped: int = 0
    reconnects: int = 0
    drift_ppm: float = 0.0
    jitter_ms: float = 0.0
    duplicates: int = 0
    clock_steps: int = 0
    glitches: int = 0


class Cleaner:
    """Reads a source and returns it mended.

    Parameters
    ----------
    source : Source
        Not closed.
    clock, repair : Clock, Repair, optional
        Default: fresh ones for the source.
    """

    def __init__(self, source: Source, clock: Clock | None, repair: Repair | None) -> None:
        self._source = source
        self._clock = clock if clock is not None else Clock(source.info.sfreq)
        self._repair = repair if repair is not None else Repair(source.info)
        self._rate = RateCheck(source.info) if source.live else None
        self._samples_in = 0

    def read(self, timeout_s: float) -> list[Chunk]:
        """Read once; return what can be passed on, without empty chunks."""
        chunk = self._source.read(timeout_s)
        if chunk is None:
            return []
        self._samples_in += len(chunk)
        if self._rate is not None:
            self._rate.see(chunk)
        return self._mend(self._clock.split(chunk))

    def rest(self) -> list[Chunk]:
        """Return what was held back; for the end of the stream."""
        return self._mend(self._clock.flush())

    def _mend(self, pieces: list[Chunk]) -> list[Chunk]:
        return [chunk for piece in pieces if len(chunk := self._repair(piece))]

    def counters(self, dropped: int = 0) -> StreamCounters:
        """Return what happened so far."""
        repair, clock = self._repair, self._clock
        return StreamCounters(
            samples_in=self._samples_in,
            samples_lost=repair.lost,
            repaired=repair.repaired,
            gaps=repair.gaps,
            discontinuities=repair.discontinuities,
            non_finite=repair.non_finite,
            dropped=dropped,
            reconnects=getattr(self._source, "reconnects", 0),
            drift_ppm=clock.drift_ppm,
            jitter_ms=clock.jitter_ms,
            duplicates=repair.duplicates,
            clock_steps=clock.steps,
            glitches=repair.glitches,
        )
