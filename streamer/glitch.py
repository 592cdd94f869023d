"""Values that no electrode gives: jumps of a channel that are gone as soon as they came."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.types import Samples, StreamInfo
from streamer.units import per_volt

# From one sample to the next: in a hundred recordings by all kinds of amplifiers, offsets of up to 432 mV
# among them, no electrode does that; the rails of the usual amplifiers are 150 mV and more from zero.
JUMP_V = 0.1
CALM_S = 1.0
ELECTRODES = {"eeg", "emg", "eog", "ecg"}


class Glitches:
    """Finds single wild values, which filters and a running covariance would remember for a minute.

    A value is one that lies more than 100 mV from the channel's last good one.  What stays there for more
    than ``max_held`` samples is the channel's new level, not a glitch; and a channel is judged only when it
    has made no such jump for a second: one that always jumps is of another unit than it says, and passes.
    The result is the same for any chunking.

    Parameters
    ----------
    info : StreamInfo
        Nothing is found where its unit is unknown, nor in channels that are no electrodes.
    max_held : int
        Longest glitch, samples.
    """

    def __init__(self, info: StreamInfo, max_held: int) -> None:
        scale = per_volt(info.unit)
        kinds = [kind in ELECTRODES for kind in info.ch_types]
        self._jump = np.where(kinds, np.inf if scale is None else JUMP_V * scale, np.inf)
        self._idle = bool(np.isinf(self._jump).all())
        self._max_held, self._calm_rows = max_held, round(CALM_S * info.sfreq)
        self.reset()

    def reset(self) -> None:
        """Forget the signal."""
        n_chans = len(self._jump)
        self._level = np.full(n_chans, np.nan)
        self._calm = np.zeros(n_chans, dtype=np.int64)  # samples since the last jump that was taken
        self._held = np.zeros(n_chans, dtype=np.int64)  # samples of the glitch that goes on

    def __call__(self, data: Samples) -> NDArray[np.bool_] | None:
        """Return which values are glitches, shape (n_times, n_chans); None where none can be."""
        if self._idle or not len(data):
            return None
        before = np.concatenate([self._level[None], data[:-1]])  # float64: float32 could overflow
        with np.errstate(invalid="ignore"):  # infinity less infinity
            steady = np.abs(data - before) <= self._jump
        if steady.all() and not self._held.any():
            self._level = data[-1].astype(np.float64)
            self._calm += len(data)
            return None
        found = np.zeros(data.shape, dtype=bool)
        for column, values in enumerate(data.T):
            self._judge(column, values, np.flatnonzero(~steady[:, column]), found[:, column])
        return found

    def _judge(self, column: int, values: Samples, jumps: NDArray[np.intp], found: NDArray[np.bool_]) -> None:
        """Mark the glitches of one channel; between its jumps nothing has to be looked at."""
        row, follows = 0, not self._held[column]  # follows: the value before this one is the level
        while row < len(values):
            if follows:
                place = np.searchsorted(jumps, row)
                stop = int(jumps[place]) if place < len(jumps) else len(values)
                if stop > row:
                    self._level[column] = values[stop - 1]
                    self._calm[column] += stop - row
                    row, follows = stop, False
                    continue
            value = float(values[row])
            found[row] = self._is_glitch(column, value)
            follows = not found[row] and np.isfinite(value)
            row += 1

    def _is_glitch(self, column: int, value: float) -> bool:
        """Judge one value; one that is not finite is repaired anyway, and changes nothing."""
        if not np.isfinite(value):
            return False
        jumped = abs(value - self._level[column]) > self._jump[column]
        if jumped and self._calm[column] >= self._calm_rows and self._held[column] < self._max_held:
            self._held[column] += 1
            return True
        self._level[column], self._held[column] = value, 0
        self._calm[column] = 0 if jumped else self._calm[column] + 1
        return False
