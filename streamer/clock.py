"""Time stamps from the sample index: a drift fit, and the holes that only the stamps show."""

from __future__ import annotations

from collections import deque

import numpy as np

from streamer.drift import DriftLine, Stamps
from streamer.types import Chunk

# How long stamps must stay ahead before it is a hole: chunks of one stall arrive together, in less.
PERSIST_S = 0.15
PERSIST_WINDOWS = 5
MAX_HELD_S = 5.0
# After a hole of this length the line starts anew: another clock may stand behind it.
RESTART_S = 1.0


class Clock:
    """Put a stream on its own time axis.

    Stamps follow a straight line over the sample index: robust, recursive, from the nominal rate on, using
    the past only.  When they jump ahead of the line and stay there, samples are missing, and ``index``
    jumps by as many.  Whether they stay takes 0.15 s of samples to see; those are held back until it is
    known (a stall that catches up is none), so that a hole lies where it was.  Otherwise nothing waits.

    Whatever the chunking, rows and indices that come out are the same.  Stamps that are not finite are
    ignored; those that jump back are followed at half speed, so times always increase.

    Parameters
    ----------
    sfreq : float
        Nominal rate, Hz.
    stamped : bool
        False for a source that counted its stamps from the index: nothing to learn, chunks pass unchanged.

    Attributes
    ----------
    steps : int
        How often the stamps stepped back and stayed there.
    holes : int
        How often they stepped ahead: missing samples that the index did not know of.
    """

    def __init__(self, sfreq: float, *, stamped: bool = True) -> None:
        self.sfreq = sfreq
        self.stamped = stamped
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next chunk is treated as the first one."""
        self._line = DriftLine(self.sfreq)
        self._held: Chunk | None = None
        self._ready: deque[Chunk] = deque()
        self._next = 0
        self._shift = 0
        self._trusted = 0
        self._last = -np.inf
        self.holes = 0

    @property
    def steps(self) -> int:
        """How often the stamps stepped back and stayed there."""
        return self._line.steps

    @property
    def drift_ppm(self) -> float:
        """Measured rate against the nominal one, parts per million; positive: the device is fast."""
        return 1e6 * (1 / (self._line.period * self.sfreq) - 1)

    @property
    def jitter_ms(self) -> float:
        """Mean distance of the stamps from the line over the last seconds, ms."""
        return 1e3 * self._line.jitter

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the next contiguous chunk; what lies behind a hole comes out of the next call."""
        self._ready.extend(self.split(chunk))
        if self._ready:
            return self._ready.popleft()
        return Chunk(chunk.data[:0], chunk.index + self._shift, chunk.times[:0], chunk.valid[:0])

    def split(self, chunk: Chunk) -> list[Chunk]:
        """Return all that this chunk makes known: one piece, more around holes, none while in doubt."""
        if not self.stamped:
            return [chunk]
        if not len(chunk) and not chunk.discontinuity:
            return []
        held = self._held
        if held is None:
            return self._advance(chunk, final=False)
        if not chunk.discontinuity and chunk.index == held.index + len(held):
            return self._advance(_join(held, chunk), final=False)
        return self.flush() + self._advance(chunk, final=False)

    def flush(self) -> list[Chunk]:
        """Return what is held back, judged by what is known: for the end of a stream."""
        held, self._held = self._held, None
        return [] if held is None else self._advance(held, final=True)

    def _advance(self, chunk: Chunk, *, final: bool) -> list[Chunk]:
        self._held = None
        far = chunk.index - self._next > RESTART_S * self.sfreq
        self._next = chunk.index + len(chunk)
        if far or chunk.discontinuity or not self._line.anchored:
            self._line.anchor(chunk.index, chunk.times)
        pieces, times = [], np.empty(len(chunk))
        start = row = 0
        while row < len(chunk):
            end = self._accept(chunk, row, times)
            if end > row:
                row = end
                continue
            verdict = self._judge(chunk, row, final=final)
            if verdict is None:
                self._held = _rows(chunk, row, len(chunk), chunk.times[row:], 0)
                break
            self._trusted, missing = verdict
            if missing:
                if row > start:
                    pieces.append(_rows(chunk, start, row, times[start:row], self._shift))
                start = row
                self._open_hole(chunk, row, missing)
        if row > start or not len(chunk):
            pieces.append(_rows(chunk, start, row, times[start:row], self._shift))
        return pieces

    def _open_hole(self, chunk: Chunk, row: int, missing: int) -> None:
        self.holes += 1
        self._shift += missing
        if missing > RESTART_S * self.sfreq:
            self._line.anchor(chunk.index + row, chunk.times[row:])
        else:
            self._line.skip(missing)

    def _accept(self, chunk: Chunk, row: int, times: Stamps) -> int:
        """Stamp rows from ``row`` to the end of the block, or to the first that is late; return where."""
        line = self._line
        end = min(len(chunk), row + line.room)
        fitted = line.predict(chunk.index + row, end - row)
        residual = chunk.times[row:end] - fitted
        late = residual > line.threshold
        late[: self._trusted] = False
        if np.count_nonzero(late):  # 0.3 us where late.any() takes 1.6
            end = row + int(late.argmax())
            fitted, residual = fitted[: end - row], residual[: end - row]
        if end > row:
            self._trusted = max(0, self._trusted - (end - row))
            line.learn(residual, chunk.index + end)
            times[row:end] = self._increasing(fitted)
        return end

    def _judge(self, chunk: Chunk, row: int, *, final: bool) -> tuple[int, int] | None:
        """Say what the late row is: (rows to take as they are, samples missing before), None: too early."""
        line = self._line
        stamps = chunk.times[row : row + round(MAX_HELD_S * self.sfreq)]
        residual = stamps - line.predict(chunk.index + row, len(stamps))
        back = np.flatnonzero(residual <= line.threshold)
        late = residual[: back[0]] if back.size else residual
        usable = np.isfinite(late)
        level = _lasting_level(stamps[: len(late)][usable], late[usable], line)
        if level is not None and level > 0:
            return 0, max(1, round(level * self.sfreq))
        if level is not None or back.size or final:
            return len(late), 0
        if len(stamps) >= round(MAX_HELD_S * self.sfreq):
            return 0, max(1, round(float(late[usable].min()) * self.sfreq))
        return None

    def _increasing(self, fitted: Stamps) -> Stamps:
        half = 0.5 / self.sfreq
        if fitted[0] < self._last + half:
            fitted = np.maximum(fitted, self._last + half * np.arange(1, len(fitted) + 1))
        self._last = float(fitted[-1])
        return fitted


def _lasting_level(stamps: Stamps, residual: Stamps, line: DriftLine) -> float | None:
    """Return by how much the stamps are ahead for good, s; 0: not for good; None: too early to say.

    A steady lead is a hole at once.  One that wavers must last, not shrink as a backlog does that drains,
    and be larger than it wavers, as a burst of jitter is not.
    """
    window = max(PERSIST_S, 3 * line.period)
    nearest, spread = [], 0.0
    for _ in range(PERSIST_WINDOWS):
        full = np.flatnonzero(stamps - stamps[:1] >= window)
        if not full.size:
            return None
        end = int(full[0]) + 1
        nearest.append(float(residual[:end].min()))
        spread = max(spread, float(np.ptp(residual[:end])))
        if spread <= max(line.tolerance, nearest[0] / 20):
            return nearest[0]
        stamps, residual = stamps[end:], residual[end:]
    shrinks = nearest[-1] < nearest[0] - line.tolerance
    return 0.0 if shrinks or min(nearest) < spread / 2 else min(nearest)


def _rows(chunk: Chunk, start: int, end: int, times: Stamps, shift: int) -> Chunk:
    flag = chunk.discontinuity and start == 0
    return Chunk(chunk.data[start:end], chunk.index + start + shift, times, chunk.valid[start:end], flag)


def _join(held: Chunk, chunk: Chunk) -> Chunk:
    return Chunk(
        np.concatenate([held.data, chunk.data]),
        held.index,
        np.concatenate([held.times, chunk.times]),
        np.concatenate([held.valid, chunk.valid]),
        held.discontinuity,
    )
