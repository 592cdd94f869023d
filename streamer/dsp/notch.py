"""Notch filter against line noise and its harmonics."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat
from scipy import signal

from streamer.dsp import StepConfig
from streamer.dsp._sos import SosStep, group_delay
from streamer.errors import StreamMismatch
from streamer.types import StreamInfo


class Config(StepConfig):
    """Take narrow bands out.

    Attributes
    ----------
    freqs : tuple of float
        Hz: 50 in most of the world, 60 in the Americas.
    harmonics : bool
        Also every multiple below half the sampling rate, each notch as wide as the fundamental's.
    q : float
        Frequency over width (-3 dB): 50 Hz at 30 is 1.7 Hz wide.
    """

    kind: Literal["notch"] = "notch"
    freqs: tuple[PositiveFloat, ...] = Field(default=(50.0,), min_length=1)
    harmonics: bool = True
    q: PositiveFloat = 30.0

    def build(self, info: StreamInfo) -> SosStep:
        """Return the filter, its ``delay`` taken an octave below the lowest notch.

        Raises
        ------
        StreamMismatch
            One of ``freqs`` at or above half the stream's sampling rate.
        """
        nyquist = info.sfreq / 2
        if max(self.freqs) >= nyquist:
            raise StreamMismatch(
                f"notch at {max(self.freqs):g} Hz needs a stream sampled faster than twice that; stream "
                f"{info.name!r} gives {info.sfreq:g} Hz. Leave that frequency out."
            )
        sections = []
        for freq in self.freqs:
            last = int(np.ceil(nyquist / freq)) - 1 if self.harmonics else 1  # multiples below Nyquist
            for k in range(1, last + 1):
                sections.append(np.concatenate(signal.iirnotch(k * freq, k * self.q, fs=info.sfreq)))
        sos = np.array(sections)
        return SosStep(info, sos, round(group_delay(sos, min(self.freqs) / 2, info.sfreq)))
