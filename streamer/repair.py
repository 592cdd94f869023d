"""Holes, overlaps and values that cannot be: mended where that is sound, flagged where it is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamer.glitch import Glitches
from streamer.types import Chunk, Samples, StreamInfo


class Repair:
    """Make a stream contiguous and finite.

    A hole in the index of at most ``max_gap_s`` is filled by straight lines to the next sample; a longer
    one makes the chunk a discontinuity.  Rows seen before are dropped.  Values that are not finite are
    replaced by the channel's last finite one (0 before the first), so that no filter is ever poisoned; so are
    wild ones that no electrode gives (`streamer.glitch`), for at most ``max_gap_s``.
    What was not measured is marked in ``valid``.  The output is the same for any chunking of the input.

    Parameters
    ----------
    info : StreamInfo
        The stream; it leaves unchanged.
    max_gap_s : float
        Longest hole that is filled, seconds.  Above 0.1 s a line is no substitute for EEG.

    columns : sequence of int, optional
        Channels whose values count for ``valid``; all by default.
    max_bad : float
        Share of those channels that may be replaced in a row without its being marked.

    Attributes
    ----------
    repaired, gaps : int
        Samples filled in, in how many holes.
    lost, discontinuities : int
        Samples missing in holes too long to fill, and how many such holes (or resets by the source).
    duplicates : int
        Samples dropped because their index had been there.
    non_finite, glitches : int
        Values replaced: that were no numbers, and that were wild.
    """

    def __init__(
        self,
        info: StreamInfo,
        max_gap_s: float = 0.1,
        *,
        columns: Sequence[int] | None = None,
        max_bad: float = 0.0,
    ) -> None:
        self.info = info
        self._columns = list(columns) if columns is not None else list(range(info.n_chans))
        self._max_bad = max_bad
        self.max_gap = round(max_gap_s * info.sfreq)
        self.repaired = self.gaps = self.lost = self.discontinuities = 0
        self.duplicates = self.non_finite = self.glitches = 0
        self._glitches = Glitches(info, self.max_gap)
        self.reset()

    def reset(self) -> None:
        """Forget the stream, not the counters: the next chunk is treated as the first one."""
        self._next: int | None = None
        self._restart = False
        self._forget()

    def _forget(self) -> None:
        self._row = np.zeros(self.info.n_chans, dtype=np.float32)
        self._time = 0.0
        self._glitches.reset()

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk made whole; may be empty when all of it had been there."""
        restart = chunk.discontinuity or self._restart
        self._restart = restart and not len(chunk)
        if not len(chunk):
            return Chunk(chunk.data, chunk.index, chunk.times, chunk.valid)
        missing = 0 if self._next is None else chunk.index - self._next
        if restart or missing > self.max_gap:
            return self._restarted(chunk, max(missing, 0))
        if missing < 0:
            chunk = self._unseen(chunk, -missing)
        if not len(chunk):
            return chunk
        before, last = self._row, self._time
        chunk = self._plausible(chunk)
        self._advance(chunk)
        return self._filled(chunk, missing, before, last) if missing > 0 else chunk

    def _restarted(self, chunk: Chunk, missing: int) -> Chunk:
        self.lost += missing
        self.discontinuities += self._next is not None
        self._forget()
        chunk = self._plausible(chunk)
        self._advance(chunk)
        return Chunk(chunk.data, chunk.index, chunk.times, chunk.valid, True)

    def _unseen(self, chunk: Chunk, seen: int) -> Chunk:
        seen = min(seen, len(chunk))
        self.duplicates += seen
        return Chunk(chunk.data[seen:], chunk.index + seen, chunk.times[seen:], chunk.valid[seen:])

    def _plausible(self, chunk: Chunk) -> Chunk:
        good = np.isfinite(chunk.data)
        bad = good.size - np.count_nonzero(good)
        wild = self._glitches(chunk.data)
        if wild is not None:
            self.glitches += int(np.count_nonzero(wild))
            good &= ~wild
        if good.all():
            return chunk
        self.non_finite += int(bad)
        data = _hold(chunk.data, good, self._row)
        fine = (~good[:, self._columns]).mean(axis=1) <= self._max_bad
        return Chunk(data, chunk.index, chunk.times, chunk.valid & fine)

    def _advance(self, chunk: Chunk) -> None:
        self._next = chunk.index + len(chunk)
        self._row = chunk.data[-1].copy()
        self._time = float(chunk.times[-1])

    def _filled(self, chunk: Chunk, missing: int, before: Samples, last: float) -> Chunk:
        self.gaps += 1
        self.repaired += missing
        weight = np.arange(1, missing + 1) / (missing + 1)
        rise = chunk.data[0].astype(np.float64) - before  # float32 could overflow
        line = before + weight[:, None] * rise  # (missing, n_chans)
        times = last + weight * (chunk.times[0] - last)
        return Chunk(
            np.concatenate([line.astype(np.float32), chunk.data]),
            chunk.index - missing,
            np.concatenate([times, chunk.times]),
            np.concatenate([np.zeros(missing, dtype=bool), chunk.valid]),
        )


def _hold(data: Samples, good: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], before: Samples) -> Samples:
    """Return ``data`` with each bad value replaced by the good one above it, ``before`` on top."""
    padded = np.concatenate([before[None], data])  # (1 + n_times, n_chans)
    source = np.zeros(padded.shape, dtype=np.intp)
    source[1:] = np.where(good, np.arange(1, len(padded))[:, None], 0)
    np.maximum.accumulate(source, axis=0, out=source)
    held: Samples = np.take_along_axis(padded, source, axis=0)[1:]
    return held
