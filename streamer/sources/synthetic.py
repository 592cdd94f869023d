"""A simulated subject who imagines moving a fist when told to: for demonstrations and tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator

from streamer.errors import EndOfStream
from streamer.montage import located
from streamer.sources import SourceConfig
from streamer.sources._subject import Strengths, Subject
from streamer.sources._trials import Trials
from streamer.types import Chunk, Marker, Samples, StreamInfo, make_chunk

# The montage of BCI Competition IV 2a, which most imagery data sets contain.
CH_NAMES = (
    *("Fz", "FC3", "FC1", "FCz", "FC2", "FC4", "C5", "C3", "C1", "Cz", "C2"),
    *("C4", "C6", "CP3", "CP1", "CPz", "CP2", "CP4", "P1", "Pz", "P2", "POz"),
)
Speed = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["max"]


class Config(SourceConfig):
    """Simulate a person with electrodes on, against linked ears.

    Rest and trials alternate; in a trial the mu and beta rhythms of the hand area opposite the imagined
    fist fade.  Spectra and correlations between electrodes are near those of EEGMMIDB; the imagery is clearer
    than that of nearly all its people (lateralisation of the mu rhythm over C3 and C4 about -1.0; EEGMMIDB:
    median -0.09, 5th percentile -0.65).  That it is decoded shows that the chain works, not how well people
    are.

    Attributes
    ----------
    seed : int
        Of the person and of everything that happens: the same seed gives the same samples bit for bit.
    sfreq : float
        Hz.
    ch_names : tuple of str
        Electrodes of the 10-05 system.
    trial_s, rest_s : float
        Seconds; the defaults are EEGMMIDB's.
    n_trials : int or None
        The stream ends after the rest that follows the last one; None: it does not.
    seconds : float or None
        The stream ends after so long; None: it does not.
    chunk : int or None
        Samples to a chunk; about 40 ms by default.
    speed : float or "max"
        1 is real time, 2 twice as fast; "max" does not wait.
    erd : float
        Share of the power that the rhythms lose in a trial, on average; 0 makes imagery undecodable.
    background_uv, alpha_uv, mu_uv, beta_uv, sensor_uv, drift_uv : float
        Rms of the parts, µV: background from 4 to 40 Hz; alpha at Pz; mu and beta at C3 and C4 at rest; white
        noise and slow drift of each channel.
    line_uv, line_freq : float
        Rms of the line, µV, and its frequency, Hz.
    blink_uv, blinks_per_min : float
        Peak at Fp1 and Fp2, µV, and how often.
    emg_uv, bursts_per_min : float
        Rms of a burst of the temporal muscles at T7 or T8, µV, and how often.
    """

    kind: Literal["synthetic"] = "synthetic"
    seed: int = Field(default=0, ge=0)
    sfreq: float = Field(default=250.0, ge=100, le=5000)
    ch_names: tuple[str, ...] = Field(default=CH_NAMES, min_length=1)
    trial_s: float = Field(default=4.1, ge=2)
    rest_s: float = Field(default=4.2, ge=2)
    n_trials: int | None = Field(default=None, ge=1)
    seconds: PositiveFloat | None = None
    chunk: int | None = Field(default=None, ge=1)
    speed: Speed = 1.0
    erd: float = Field(default=0.6, ge=0, le=1)
    background_uv: NonNegativeFloat = 14.0
    alpha_uv: NonNegativeFloat = 6.0
    mu_uv: NonNegativeFloat = 10.0
    beta_uv: NonNegativeFloat = 4.0
    sensor_uv: NonNegativeFloat = 1.0
    drift_uv: NonNegativeFloat = 10.0
    line_uv: NonNegativeFloat = 1.0
    line_freq: PositiveFloat = 50.0
    blink_uv: NonNegativeFloat = 100.0
    blinks_per_min: NonNegativeFloat = 10.0
    emg_uv: NonNegativeFloat = 15.0
    bursts_per_min: NonNegativeFloat = 4.0

    @field_validator("ch_names")
    @classmethod
    def _check_places(cls, ch_names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in ch_names if not located(name)]
        if unknown:
            raise ValueError(f"not electrodes of the 10-05 system: {', '.join(unknown)}")
        return ch_names

    def open(self) -> SyntheticSource:
        """Seat the subject; the first sample is due at once."""
        return SyntheticSource(self)


class SyntheticSource:
    """The simulated subject as a source.

    At speed ``"max"`` nothing waits and the first sample's time is 0, so that two runs are equal bit for
    bit.  At any other speed the first sample's time is that of opening on the LSL clock, and a chunk comes
    when its last sample is due.  The samples do not depend on the speed or on the size of the chunks.

    Parameters
    ----------
    config : Config
        What to simulate.
    clock, wait : callable, optional
        Seconds on the local LSL clock; a wait of so many seconds.  Unused at speed ``"max"``.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Callable[[], float] | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        n_chans = len(config.ch_names)
        name = f"synthetic-{config.seed}"
        self.info = StreamInfo(name, name, "EEG", config.sfreq, config.ch_names, ("eeg",) * n_chans, "uV")
        self.live = config.speed != "max"
        self._speed = config.speed
        self._clock = _lsl_clock() if clock is None and self.live else clock
        self._wait = wait
        self._opened = self._clock() if self._clock and self.live else 0.0
        self._chunk = config.chunk or max(1, round(0.04 * config.sfreq))
        self._end = _length(config)
        self.n_times = None if np.isinf(self._end) else int(self._end)
        self._index = 0
        trials = Trials(config.seed, config.rest_s, config.trial_s, config.erd)
        strengths = Strengths(**{field.name: getattr(config, field.name) for field in fields(Strengths)})
        self._subject = Subject(config.ch_names, config.sfreq, config.seed, trials, strengths)
        self._ready: Samples = np.empty((0, n_chans), dtype=np.float32)
        self._upcoming = trials.markers()
        self._next_marker = next(self._upcoming)
        self._markers: list[Marker] = []

    def read(self, timeout_s: float) -> Chunk | None:
        """Return the next samples when they are due; `EndOfStream` after the last."""
        start = self._index
        if start >= self._end:
            raise EndOfStream(f"the simulated subject {self.info.name!r} has done all that was asked")
        stop = int(min(start + self._chunk, self._end))
        while len(self._ready) < stop - start:  # before the wait: a block takes 3 ms to make
            self._ready = np.concatenate([self._ready, self._subject.block()])
        if not self._is_due(stop, timeout_s):
            return None
        taken, self._ready = self._ready[: stop - start], self._ready[stop - start :]
        self._index = stop
        self._tell(stop)
        return make_chunk(taken, start, self._opened + np.arange(start, stop) / self.info.sfreq)

    def markers(self) -> Sequence[Marker]:
        """Return the rests and cues so far, on the axis of the chunks' times: the truth."""
        return tuple(self._markers)

    def close(self) -> None:
        """Send the subject home; reading goes on with `EndOfStream`."""
        self._end = self._index

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _is_due(self, stop: int, timeout_s: float) -> bool:
        """Wait for the sample before ``stop``, at most ``timeout_s``; say whether it is there."""
        if self._speed == "max" or self._clock is None:
            return True
        left = self._opened + stop / self.info.sfreq / self._speed - self._clock()
        if left > 0:
            self._wait(min(left, max(timeout_s, 0.0)))
        return left <= timeout_s

    def _tell(self, stop: int) -> None:
        """Take up the markers that lie before a sample."""
        while self._next_marker.time * self.info.sfreq < stop:
            marker = self._next_marker
            self._markers.append(Marker(self._opened + marker.time, marker.label, marker.duration))
            self._next_marker = next(self._upcoming)


def _length(config: Config) -> float:
    """Return how many samples there are; infinity without an end."""
    ends = [np.inf]
    if config.seconds is not None:
        ends.append(config.seconds)
    if config.n_trials is not None:
        ends.append(config.n_trials * (config.rest_s + config.trial_s) + config.rest_s)
    return float(np.round(min(ends) * config.sfreq))


def _lsl_clock() -> Callable[[], float]:
    """Return LSL's clock, loaded only where the subject is simulated in time."""
    from pylsl import local_clock

    clock: Callable[[], float] = local_clock
    return clock
