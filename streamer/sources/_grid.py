"""Where samples lie in time: from nothing but a rate, from a packet counter, from jittered stamps.

A recording's rows become equidistant stretches with jumps between them.  Small jitter is removed by one
straight line per stretch, a hole stays a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

# A jump counts as a hole above this.  Bursts of Bluetooth arrival reach 35 ms in the Cyton and Muse
# recordings at hand; a step shorter than this does less harm than a filter reset in its place.
HOLE_S = 0.05
# What stands in the place of a pause whose length the file does not tell.  Longer than any gap that
# `streamer.repair` fills, so that it is a gap like others, in a file run and over LSL.
PAUSE_S = 2.0
_WINDOW_S = 0.5  # a late burst is caught up within this; a hole never is
_ABSURD_S = 1e9  # longer than any recording
_ENOUGH = 8  # stamps that a rate is measured from
CONTIGUOUS = 1.5  # samples between two rows, below which none is missing
_NOMINAL = 0.01  # relative deviation up to which the nominal rate is believed


@dataclass(frozen=True)
class Grid:
    """The time axis of a recording.

    Attributes
    ----------
    times : ndarray, shape (n_times,), float64
        Seconds, 0 at the first row, increasing.
    breaks : tuple of int
        Rows before which time jumps.
    sfreq : float
        Nominal rate, or the measured one where the two differ by more than 1 %, Hz.
    origin : float
        The file's stamp at time 0; a marker's time is its stamp minus this.
    notes : tuple of str
        What a reader of the recording should know.
    """

    times: NDArray[np.float64]
    breaks: tuple[int, ...]
    sfreq: float
    origin: float = 0.0
    notes: tuple[str, ...] = ()


def regular(n_times: int, sfreq: float) -> Grid:
    """Return the axis of ``n_times`` rows without holes."""
    return Grid(np.arange(n_times) / sfreq, (), sfreq)


def from_index(index: NDArray[np.int64], sfreq: float) -> Grid:
    """Return the axis of rows whose place on the sample grid is known."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    return Grid((index - index[0]) / sfreq, tuple(breaks.tolist()), sfreq)


def open_pauses(grid: Grid) -> tuple[Grid, Callable[[float], float]]:
    """Put `PAUSE_S` where the recording was interrupted and the file does not tell for how long.

    Those are the breaks at which time goes on with the next sample.

    Returns
    -------
    grid : Grid
        With the pauses, and a note that says so.
    moved : callable
        A time on the old axis → on the new one, for markers.
    """
    rows = [row for row in grid.breaks if (grid.times[row] - grid.times[row - 1]) * grid.sfreq < CONTIGUOUS]
    pause = round(PAUSE_S * grid.sfreq) / grid.sfreq
    # A marker at the very row, rounded to below it, belongs behind the pause, too.
    starts = grid.times[rows] - 0.5 / grid.sfreq
    times = grid.times.copy()
    for row in rows:
        times[row:] += pause
    note = f"interrupted at {len(rows)} rows, for how long is not known: {pause:g} s stand there"
    told = replace(grid, times=times, notes=(*grid.notes, *[note] * bool(rows)))
    return told, lambda time: time + pause * float(np.searchsorted(starts, time, side="right"))


def unwrap_counter(counter: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Return each row's place on the sample grid from a packet counter that wraps, or None.

    Step and modulus are read off the counter itself: the commonest increment, and the commonest fall.  A
    whole turn lost is not seen here, but by the stamps.  None where the counter says nothing: constant,
    or less than nine rows in ten following the one before.
    """
    steps = np.diff(counter)
    up, down = _commonest(steps[steps > 0]), _commonest(steps[steps < 0])
    if up is None or not np.all(np.isfinite(counter)):
        return None
    if down is not None:
        steps = np.mod(steps, up - down)
    follows = np.isin(steps, (0.0, up))  # 0: two rows in one packet (Ganglion)
    if np.any(steps < 0) or follows.mean() < 0.9:
        return None
    advance = np.maximum(np.rint(steps / up), 1).astype(np.int64)
    return np.concatenate([[0], np.cumsum(advance)])


def from_counter(
    counter: NDArray[np.float64], sfreq: float, stamps: NDArray[np.float64] | None = None
) -> Grid:
    """Return the axis of rows with a packet counter, and with stamps where there are any."""
    index = unwrap_counter(counter)
    if stamps is not None:
        return from_stamps(stamps, sfreq, index)
    return regular(len(counter), sfreq) if index is None else from_index(index, sfreq)


def from_stamps(
    stamps: NDArray[np.float64],
    nominal: float,
    index: NDArray[np.int64] | None = None,
    resets: Sequence[int] = (),
) -> Grid:
    """Return the axis of rows with jittered time stamps.

    Parameters
    ----------
    stamps : ndarray, shape (n_times,), float64
        Seconds, as recorded.
    nominal : float
        Rate that the file claims, Hz.
    index : ndarray, shape (n_times,), int64, optional
        Places on the sample grid where a counter tells them; by default the rows follow each other.
    resets : sequence of int
        Rows before which the clock was reset, whatever the stamps say.

    Raises
    ------
    ValueError
        A stamp is not a number, or they span years.
    """
    span_s = np.ptp(stamps)
    if not span_s < _ABSURD_S:
        raise ValueError(f"the time stamps span {span_s:g} s: they are no times")
    index = np.arange(len(stamps)) if index is None else index
    rate = _rate(stamps, index, nominal)
    if rate is None:
        grid = from_index(index, nominal)
        why = "are too few to measure a rate" if len(stamps) < _ENOUGH else "do not grow"
        note = f"the time stamps {why}: times come from {nominal:g} Hz alone"
        return Grid(grid.times, grid.breaks, nominal, float(stamps[0]), (note,))
    late = stamps - index / rate
    jumps = set(_holes(late, rate)) | {row for row in resets if 0 < row < len(stamps)}
    rate = _refined(stamps, index, rate, sorted(jumps))
    times = _on_lines(stamps, index, rate, sorted(jumps))
    origin = float(times[0])
    breaks = sorted(jumps | set(from_index(index, rate).breaks))
    times, backward = _forward(times - origin, breaks, rate)
    notes = [f"time does not advance at row {row}" for row in backward[:3]]
    if abs(rate / nominal - 1) > _NOMINAL:
        notes.append(f"the file says {nominal:g} Hz, its time stamps {rate:.4f} Hz: the stamps are believed")
        nominal = round(rate, 4)
    return Grid(times, tuple(breaks), nominal, origin, tuple(notes))


def _commonest(values: NDArray[np.float64]) -> float | None:
    """Return the value that occurs most often, or None of nothing."""
    found, counts = np.unique(values, return_counts=True)
    return float(found[np.argmax(counts)]) if len(found) else None


def _rate(stamps: NDArray[np.float64], index: NDArray[np.int64], nominal: float) -> float | None:
    """Return the median rate over stretches of up to 10 s, which no hole, burst or reset moves; Hz."""
    if len(stamps) < _ENOUGH:
        return None
    lag = min(len(stamps) // 4, max(1, round(10 * nominal)))
    passed = float(np.median((stamps[lag:] - stamps[:-lag]) / (index[lag:] - index[:-lag])))
    return 1 / passed if np.isfinite(passed) and passed > 0 else None


def _holes(late: NDArray[np.float64], rate: float) -> list[int]:
    """Return the rows before which the lateness of the stamps steps and does not come back.

    ``late`` is stamp minus place on the grid, s.  The earliest of the next 0.5 s is compared with the
    earliest of the last: a late burst reaches back to the line that it left, a hole does not.
    """
    from scipy.ndimage import minimum_filter1d

    threshold = max(HOLE_S, 0.6 / rate)
    candidates = np.flatnonzero(np.abs(np.diff(late)) > threshold) + 1
    if len(candidates) == 0:
        return []
    width = max(8, round(_WINDOW_S * rate))
    padded = np.concatenate([np.full(width, np.inf), late, np.full(width, np.inf)])
    earliest = minimum_filter1d(padded, width, origin=-(width // 2), mode="nearest")  # of [row, row + width)
    after, before = earliest[candidates + width], earliest[candidates]
    return [int(row) for row in candidates[np.abs(after - before) > threshold]]


def _refined(
    stamps: NDArray[np.float64], index: NDArray[np.int64], rate: float, jumps: Sequence[int]
) -> float:
    """Return the least-squares rate with one slope for all stretches, Hz."""
    x, y = _centred(index.astype(np.float64), jumps), _centred(stamps, jumps)
    slope = float(x @ y) / max(float(x @ x), 1.0)
    return 1 / slope if slope > 0 and abs(slope * rate - 1) <= 0.5 else rate


def _on_lines(
    stamps: NDArray[np.float64], index: NDArray[np.int64], rate: float, jumps: Sequence[int]
) -> NDArray[np.float64]:
    """Return the stamps, each stretch moved onto its straight line.

    A stretch of 10 s or more has a slope of its own, as another clock may stand behind it (0.6 % apart on
    the two sides of a reset in the example of the XDF project); a shorter one has that of them all.
    """
    lines = []
    for x, y in zip(np.split(index, list(jumps)), np.split(stamps, list(jumps)), strict=True):
        own = rate if x[-1] - x[0] < 10 * rate else _refined(y, x, rate, ())
        lines.append(y.mean() + (x - x.mean()) / own)
    return np.concatenate(lines)


def _centred(values: NDArray[np.float64], jumps: Sequence[int]) -> NDArray[np.float64]:
    """Return the values minus the mean of their stretch."""
    return np.concatenate([part - part.mean() for part in np.split(values, list(jumps))])


def _forward(
    times: NDArray[np.float64], breaks: Sequence[int], rate: float
) -> tuple[NDArray[np.float64], list[int]]:
    """Return times that go on with the next sample where they had gone back, and the rows of that."""
    backward = [row for row in breaks if times[row] - times[row - 1] < 0.5 / rate]
    shift = np.zeros(len(times))
    for row in backward:
        shift[row:] += max(0.0, times[row - 1] + 1 / rate - times[row])
    return times + shift, backward
