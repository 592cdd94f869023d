"""Causal Butterworth band-pass, high-pass or low-pass."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator
from scipy import signal

from streamer.dsp import StepConfig
from streamer.dsp._sos import SosStep, group_delay
from streamer.errors import StreamMismatch
from streamer.types import StreamInfo


class Config(StepConfig):
    """Keep the frequencies from ``low`` to ``high``.

    Attributes
    ----------
    low, high : float or None
        Corner frequencies (-3 dB), Hz.  Without ``low`` a low-pass, without ``high`` a high-pass.
    order : int
        Of the Butterworth prototype; a band-pass has twice as many poles, as in SciPy.
    """

    kind: Literal["bandpass"] = "bandpass"
    low: PositiveFloat | None = None
    high: PositiveFloat | None = None
    order: int = Field(default=4, ge=1, le=12)

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both: without either nothing is filtered")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g} Hz")
        return self

    def build(self, info: StreamInfo) -> SosStep:
        """Return the filter, its ``delay`` taken at the geometric centre of the band.

        Raises
        ------
        StreamMismatch
            A corner at or above half the stream's sampling rate.
        """
        sos = self._design(info)
        return SosStep(info, sos, round(group_delay(sos, self._centre(info.sfreq), info.sfreq)))

    def _design(self, info: StreamInfo) -> NDArray[np.float64]:
        nyquist = info.sfreq / 2
        if max(self.low or 0.0, self.high or 0.0) >= nyquist:
            raise StreamMismatch(
                f"bandpass from {self.low} to {self.high} Hz needs a stream sampled faster than twice that; "
                f"stream {info.name!r} gives {info.sfreq:g} Hz. Choose corners below {nyquist:g} Hz."
            )
        corners = np.array([freq for freq in (self.low, self.high) if freq is not None])
        btype = "bandpass" if len(corners) == 2 else "lowpass" if self.low is None else "highpass"
        sos: NDArray[np.float64] = signal.butter(
            self.order, np.squeeze(corners), btype, fs=info.sfreq, output="sos"
        )
        return sos

    def _centre(self, sfreq: float) -> float:
        """Geometric centre of the pass band, Hz; a low-pass has none, half its corner stands for it."""
        if self.low is None:
            assert self.high is not None
            return self.high / 2
        return float(np.sqrt(self.low * (self.high or sfreq / 2)))
