"""Watch the signal: flat, too large, railed and noisy channels, and samples that are no numbers."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from streamer.dsp import StepConfig
from streamer.errors import StreamMismatch
from streamer.types import Chunk, StreamInfo
from streamer.units import PER_VOLT, TOLD, per_volt

NON_FINITE, RAILED, TOO_LARGE, FLAT, LINE_NOISE = "non-finite", "railed", "too large", "flat", "line noise"

# In 500 recordings of seven kinds no second of EEG has more than 0.6 mV rms, with all its artefacts, and none
# of EMG more than 0.9 mV; the quietest EEG in a unit a thousand times too large has 4 mV, such EMG 11.
LARGE_UV, LARGE_EEG_UV = 10_000.0, 2_000.0
SLOW_HZ = 3.0  # below are drifts, which may be of any size
STEPPED = 2  # windows in which a step of an offset is over, of any size too, and the step back soon after it
HANN_BINS = 1.5  # in so many bins the taper spreads the power of one
CURE = (
    f"the unit is wrong. `unit:` in the source block says another one ({TOLD}); `--uv-per-count` does so of "
    "a folder of recordings that tell none; a file that tells a wrong one has to be corrected"
)


class Config(StepConfig):
    """What makes a channel bad.

    Every ``update_s`` the last ``window_s`` of each channel are judged, and the verdict holds for the rows
    from there to the next one: it never looks ahead.  There is none before the first full window.

    Attributes
    ----------
    window_s, update_s : float
        Seconds; the grid is counted from the first sample after a reset.
    flat_uv : float
        A channel whose standard deviation is less, µV, is flat.
    large_uv : float or None
        A channel whose rms is more, µV, is too large: line noise and what is slower than 3 Hz left aside.  It
        has to be so for more than two ``window_s`` on end once, since a step of an offset is over by then.
        By default 2 mV for EEG and 10 mV for all else, more than either ever gives: the unit is wrong.
    rail_uv : float or None
        The amplifier's limit, µV, where it is known.
    share : float
        A channel is railed that spends more than this share of the window at its limit or, the limit being
        unknown, at one and the same extreme value; non-finite, where more than this share of it is.
    line_freqs : tuple of float
        Hz; those that the stream cannot carry are left out.
    line_ratio : float
        Line noise is bad when the power at a line frequency is so many times the median within 10 Hz around
        it, and its rms more than ``flat_uv``.
    max_bad : float
        Rows are marked not valid where more than this share of channels is flat, too large, railed or
        non-finite.  Line noise is only told: filters take it out, and in EEGMMIDB a sixth of all good windows
        have it.
    """

    kind: Literal["quality"] = "quality"
    window_s: PositiveFloat = 1.0
    update_s: PositiveFloat = 0.25
    flat_uv: float = Field(default=0.5, ge=0)
    large_uv: PositiveFloat | None = None
    rail_uv: PositiveFloat | None = None
    share: float = Field(default=0.2, gt=0, lt=1)
    line_freqs: tuple[PositiveFloat, ...] = (50.0, 60.0)
    line_ratio: float = Field(default=1000.0, gt=1)
    max_bad: float = Field(default=0.25, ge=0, le=1)

    def build(self, info: StreamInfo) -> Quality:
        """Return the step; `StreamMismatch` when the unit is unknown, the limits being in microvolts."""
        if per_volt(info.unit) is None:
            raise StreamMismatch(
                f"quality judges in microvolts; the unit of stream {info.name!r} is {info.unit!r}. "
                f"Set `unit:` in the source block: {TOLD}."
            )
        return Quality(info, self)


class Quality:
    """The watch; a `Step`.  Samples pass unchanged, but one that is not finite repeats its channel's last.

    Attributes
    ----------
    bad : dict of str to str
        Channels that are bad now, and why: ``"flat"``, ``"too large"``, ``"railed"``, ``"line noise"``,
        ``"non-finite"``.
    counts : dict of str to int
        Since the step was built, resets included: values replaced (``"non-finite"``), rows marked not valid
        (``"rows"``), and for each other reason how often a channel turned bad.
    """

    def __init__(self, info: StreamInfo, config: Config) -> None:
        self.info = info
        self.delay = 0
        self.counts = dict.fromkeys((NON_FINITE, RAILED, TOO_LARGE, FLAT, LINE_NOISE, "rows"), 0)
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._max_bad = config.max_bad * info.n_chans
        self._judge = _Judge(info, config)
        self._n_window, self._n_update = _lengths(info, config)
        self.reset()

    def reset(self) -> None:
        """Forget the window and the verdict; the counts go on."""
        n_chans = self.info.n_chans
        self.bad: dict[str, str] = {}
        self._is_dead = np.zeros(n_chans, dtype=bool)
        self._last = np.zeros(n_chans, dtype=np.float32)
        self._window = np.empty((self._n_window, n_chans), dtype=np.float32)  # a ring of rows
        self._wrong = np.zeros((self._n_window, n_chans), dtype=bool)  # where they were not finite
        self._seen = 0
        self._judge.reset()

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk with finite samples, its rows judged."""
        wrong = ~np.isfinite(chunk.data)
        n_wrong = np.count_nonzero(wrong)
        data = self._fill(chunk.data, wrong) if n_wrong else chunk.data
        if len(data):
            self._last = data[-1]
        too_bad = np.zeros(len(data), dtype=bool)
        start = 0
        while start < len(data):
            stop = min(len(data), start + self._n_update - self._seen % self._n_update)
            if n_wrong or self.bad:  # 15 us that a good signal need not take
                too_bad[start:stop] = (wrong[start:stop] | self._is_dead).sum(axis=1) > self._max_bad
            self._watch(data[start:stop], wrong[start:stop])
            start = stop
        n_bad = np.count_nonzero(too_bad)
        self.counts[NON_FINITE] += int(n_wrong)
        self.counts["rows"] += int(n_bad)
        return chunk.carrying(data, chunk.valid & ~too_bad if n_bad else None)

    @property
    def bad_s(self) -> dict[str, dict[str, float]]:
        """Seconds for which each channel was judged bad since the step was built, by reason."""
        seconds: dict[str, dict[str, float]] = {}
        for (name, reason), n in self._verdicts.items():
            seconds.setdefault(name, {})[reason] = round(n * self._n_update / self.info.sfreq, 3)
        return seconds

    def _fill(self, data: NDArray[np.float32], wrong: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Repeat the last finite value of each channel; 0 before there is one."""
        rows = np.concatenate([self._last[None], data])
        row = np.where(wrong, 0, np.arange(1, len(rows))[:, None])  # 0: from before this chunk
        latest = np.maximum.accumulate(row, axis=0)
        return np.take_along_axis(rows, latest, axis=0)

    def _watch(self, data: NDArray[np.float32], wrong: NDArray[np.bool_]) -> None:
        size, n = self._n_window, len(data)
        kept = min(n, size)  # a chunk longer than the window leaves only its end
        first = (self._seen + n - kept) % size
        head = min(kept, size - first)
        for ring, rows in ((self._window, data[n - kept :]), (self._wrong, wrong[n - kept :])):
            ring[first : first + head] = rows[:head]
            ring[: kept - head] = rows[head:]
        self._seen += n
        if self._seen % self._n_update == 0 and self._seen >= self._n_window:
            order = np.arange(self._seen, self._seen + self._n_window) % self._n_window  # oldest first
            self._decide(self._judge(self._window[order], self._wrong[order]))

    def _decide(self, reasons: dict[int, str]) -> None:
        names = self.info.ch_names
        bad = {names[i]: reason for i, reason in reasons.items()}
        for name, reason in bad.items():
            if reason != NON_FINITE and self.bad.get(name) != reason:
                self.counts[reason] += 1
        self.bad = bad
        self._verdicts.update(bad.items())
        dead = [i for i, reason in reasons.items() if reason != LINE_NOISE]
        self._is_dead = np.isin(np.arange(len(names)), dead)


class _Judge:
    """Says of one window after another which channels are bad, and why."""

    def __init__(self, info: StreamInfo, config: Config) -> None:
        known = per_volt(info.unit)
        assert known is not None, "`Config.build` refuses a unit that is not known"
        gain = PER_VOLT["uV"] / known
        self._flat = config.flat_uv / gain
        self._rail = np.inf if config.rail_uv is None else config.rail_uv / gain
        large = [LARGE_EEG_UV if kind == "eeg" else LARGE_UV for kind in info.ch_types]
        self._large = np.array(large if config.large_uv is None else config.large_uv) / gain
        self._share = config.share
        self._line_ratio = config.line_ratio
        n_window, n_update = _lengths(info, config)
        self._n_stepped = STEPPED * math.ceil(n_window / n_update)
        self._taper = np.hanning(n_window)[:, None]
        freqs = np.fft.rfftfreq(n_window, 1 / info.sfreq)
        usable = [freq for freq in config.line_freqs if freq < info.sfreq / 2 - 2]
        self._lines = [np.abs(freqs - freq) <= max(1.0, freqs[1]) for freq in usable]
        self._around = [np.abs(freqs - freq) <= 10.0 for freq in usable]
        self._counted = (freqs >= SLOW_HZ) & ~np.any([freqs < 0, *self._lines], axis=0)
        self._n_chans = info.n_chans

    def reset(self) -> None:
        """Forget the windows before."""
        self._n_large = np.zeros(self._n_chans, dtype=int)  # windows on end
        self._stays = np.zeros(self._n_chans, dtype=bool)  # was too large for longer than a step is seen

    def __call__(self, window: NDArray[np.float32], wrong: NDArray[np.bool_]) -> dict[int, str]:
        """Return the reason of each bad column; the gravest one counts."""
        x = window.astype(np.float64)
        spectrum = np.fft.rfft((x - x.mean(axis=0)) * self._taper, axis=0) / self._taper.sum()
        power = 2 * np.square(np.abs(spectrum))  # mean square of a sine at that frequency
        large = power[self._counted].sum(axis=0) > HANN_BINS * self._large**2
        self._n_large = np.where(large, self._n_large + 1, 0)
        self._stays |= self._n_large > self._n_stepped
        faults = {
            NON_FINITE: wrong.mean(axis=0) > self._share,
            RAILED: self._railed(x),
            TOO_LARGE: large & self._stays,
            FLAT: x.std(axis=0) < self._flat,
            LINE_NOISE: self._line_noise(power),
        }
        reasons: dict[int, str] = {}
        for reason, columns in faults.items():
            for column in np.flatnonzero(columns):
                reasons.setdefault(int(column), reason)
        return reasons

    def _railed(self, x: NDArray[np.float64]) -> NDArray[np.bool_]:
        at_limit = (np.abs(x) >= self._rail).mean(axis=0)
        low, high = x.min(axis=0), x.max(axis=0)
        stuck = np.maximum((x == low).mean(axis=0), (x == high).mean(axis=0))
        moving = high - low > self._flat  # one value only: flat, not railed
        railed: NDArray[np.bool_] = (at_limit > self._share) | (moving & (stuck > self._share))
        return railed

    def _line_noise(self, power: NDArray[np.float64]) -> NDArray[np.bool_]:
        noisy = np.zeros(power.shape[1], dtype=bool)
        for line, around in zip(self._lines, self._around, strict=True):
            floor = np.maximum(self._line_ratio * _median(power[around]), self._flat**2)
            noisy |= power[line].max(axis=0) > floor
        return noisy


def _lengths(info: StreamInfo, config: Config) -> tuple[int, int]:
    """Return of how many samples a window is, and how many are between two."""
    return max(2, round(config.window_s * info.sfreq)), max(1, round(config.update_s * info.sfreq))


def _median(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median of each column: `np.median` takes five times as long for so few rows."""
    ordered = np.sort(x, axis=0)
    middle: NDArray[np.float64] = (ordered[(len(x) - 1) // 2] + ordered[len(x) // 2]) / 2
    return middle
