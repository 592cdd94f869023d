"""Change the sampling rate by a rational factor: a stateful polyphase FIR filter."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from scipy import signal

from streamer.dsp import Step, StepConfig
from streamer.errors import StreamMismatch
from streamer.types import Chunk, StreamInfo

Index = NDArray[np.int64]
MAX_FACTOR = 1024  # 2048 Hz to 250 Hz is 125/1024; a nominal rate that needs more is a mistyped one
CUTOFF = 0.45  # -6 dB, share of the lower rate


class Config(StepConfig):
    """Resample to ``sfreq``.

    A Kaiser-windowed sinc, -6 dB at 0.45 of the lower of the two rates, runs over the samples so far.  With
    the defaults it is flat to 0.02 dB up to 0.30 of the lower rate and 60 dB down from 0.60 of it, so
    what folds lands above 0.40; and it lags by 7 samples at the lower rate (44 ms at 160 Hz).

    Attributes
    ----------
    sfreq : float
        Hz.
    width : float
        Of the transition band, as a share of the lower rate, centred on the cutoff.  The lag goes with its
        inverse.
    attenuation_db : float
        In the stop band.
    """

    kind: Literal["resample"] = "resample"
    sfreq: PositiveFloat
    width: float = Field(default=0.3, gt=0, le=0.8)
    attenuation_db: float = Field(default=60.0, ge=30, le=160)

    def build(self, info: StreamInfo) -> Step:
        """Return the step; `StreamMismatch` when the rates are not in a ratio of small numbers."""
        ratio = Fraction(self.sfreq / info.sfreq).limit_denominator(MAX_FACTOR)
        up, down = ratio.numerator, ratio.denominator
        if not 1 <= up <= MAX_FACTOR or abs(info.sfreq * up / down - self.sfreq) > 1e-6 * self.sfreq:
            raise StreamMismatch(
                f"resample to {self.sfreq:g} Hz needs a rate in a ratio of numbers up to {MAX_FACTOR} to it; "
                f"stream {info.name!r} gives {info.sfreq:.10g} Hz. Have the recorder state its nominal rate."
            )
        if up == down:
            return _Same(info)
        return Resample(replace(info, sfreq=self.sfreq), info.sfreq, up, down, self._taps(up, down))

    def _taps(self, up: int, down: int) -> NDArray[np.float64]:
        """Filter at ``up`` times the input rate; its group delay is whole output samples."""
        lower = 1.0 / max(up, down)  # the lower rate, as a share of the rate the filter runs at
        length, beta = signal.kaiserord(self.attenuation_db, 2 * self.width * lower)
        half = int(np.ceil((length - 1) / 2 / down)) * down
        taps: NDArray[np.float64] = signal.firwin(2 * half + 1, 2 * CUTOFF * lower, window=("kaiser", beta))
        # Every phase passes a constant unchanged: a raw 0.1-V offset leaves no image, not even at -60 dB.
        for phase in range(up):
            taps[phase::up] /= taps[phase::up].sum()
        return taps


class Resample:
    """The polyphase filter; a `Step`.

    Output row m of the stream's grid belongs to input position ``m * down / up``: the first row after a
    reset is the first one at or after the first input sample.  It comes as soon as the last input at or
    before its position is there, and carries the time of its position; the filter's lag is in ``delay``.
    It is valid when the inputs under the central taps that hold 99 % of the filter's energy are.  The
    filter starts as if the first sample had been there for ever.

    Parameters
    ----------
    info : StreamInfo
        Of the output.
    source_sfreq : float
        Rate of the input, Hz.
    up, down : int
        Output rate over input rate, in lowest terms.
    taps : ndarray, shape (n_taps,), float64
        Symmetric, at ``up`` times the input rate.
    """

    def __init__(
        self, info: StreamInfo, source_sfreq: float, up: int, down: int, taps: NDArray[np.float64]
    ) -> None:
        self.info = info
        self.delay = len(taps) // 2 // down
        self._source_sfreq, self._up, self._down = source_sfreq, up, down
        self._reach = -(-len(taps) // up)  # inputs under the filter
        padded = np.zeros(self._reach * up)
        padded[: len(taps)] = taps
        # Row p: weights of the inputs, oldest first, for an output p/up after the newest of them.
        self._phases = np.ascontiguousarray(padded.reshape(self._reach, up).T[:, ::-1])
        self._core = _central(taps)
        self._late = np.arange(up) / (
            up * source_sfreq
        )  # of an output of each phase after its newest input, s
        self.reset()

    def reset(self) -> None:
        """Forget the past; the next chunk's index starts the grid anew."""
        self._past: NDArray[np.float64] | None = None  # (reach - 1, n_chans)
        self._past_valid = np.ones(self._reach - 1, dtype=bool)

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the output rows whose inputs are there; may be empty."""
        first, stop = (-(-i * self._up // self._down) for i in (chunk.index, chunk.index + len(chunk)))
        # Plain numbers: for the few rows of a chunk NumPy takes three times as long.
        places = [divmod(row * self._down, self._up) for row in range(first, stop)]
        newest = np.array([place - chunk.index for place, _ in places], dtype=np.intp)  # row of the chunk
        phase = np.array([part for _, part in places], dtype=np.intp)
        data = self._filter(self._extend(chunk), newest, phase)
        times = chunk.times[newest] + self._late[phase]
        return Chunk(data, first, times, self._judge(chunk, newest, phase), chunk.discontinuity)

    def _extend(self, chunk: Chunk) -> NDArray[np.float64]:
        """Return the chunk's rows with the ``reach - 1`` before them, and keep as many for the next."""
        if not len(chunk):
            return np.empty((0, chunk.data.shape[1]))
        if self._past is None:
            self._past = np.repeat(chunk.data[:1].astype(np.float64), self._reach - 1, axis=0)
        rows = np.concatenate([self._past, chunk.data], dtype=np.float64)
        self._past = rows[len(chunk) :].copy()  # not a view: that would keep a long chunk
        return rows

    def _filter(self, rows: NDArray[np.float64], newest: Index, phase: Index) -> NDArray[np.float32]:
        out = np.empty((len(newest), rows.shape[1]))
        # One product of one fixed shape per output row: the same bits however many come together.
        for row, first, weights in zip(out, newest.tolist(), self._phases[phase], strict=True):
            np.dot(weights, rows[first : first + self._reach], out=row)  # (reach,) (reach, n_chans)
        return out.astype(np.float32)

    def _judge(self, chunk: Chunk, newest: Index, phase: Index) -> NDArray[np.bool_]:
        """Return which output rows have only valid inputs under the central taps."""
        valid = np.concatenate([self._past_valid, chunk.valid])
        self._past_valid = valid[len(chunk) :].copy()
        if np.count_nonzero(valid) == len(valid):
            return np.ones(len(newest), dtype=bool)
        bad = np.cumsum(np.concatenate([[False], ~valid]))
        now = newest + self._reach  # number of rows up to and with the newest input
        latest = -((phase - self._core[0]) // self._up)  # inputs ago, rounded up
        earliest = (self._core[1] - phase) // self._up
        fine: NDArray[np.bool_] = bad[now - latest] == bad[now - earliest - 1]
        return fine


class _Same:
    """The rate is already right; a `Step`, stateless."""

    def __init__(self, info: StreamInfo) -> None:
        self.info = info
        self.delay = 0

    def __call__(self, chunk: Chunk) -> Chunk:
        return chunk

    def reset(self) -> None:
        """Nothing to forget."""


def _central(taps: NDArray[np.float64]) -> tuple[int, int]:
    """Return the first and last of the central taps that hold 99 % of a symmetric filter's energy."""
    middle = len(taps) // 2
    energy = np.square(taps[middle:])
    energy[1:] *= 2  # both sides
    radius = int(np.searchsorted(np.cumsum(energy), 0.99 * energy.sum()))
    return middle - radius, middle + radius
