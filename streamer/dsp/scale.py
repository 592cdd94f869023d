"""Convert the unit of the samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from streamer.dsp import StepConfig
from streamer.errors import StreamMismatch
from streamer.types import Chunk, StreamInfo
from streamer.units import PER_VOLT, TOLD, Unit, per_volt


class Config(StepConfig):
    """Bring every channel to ``unit``, then multiply by ``factor``.

    Attributes
    ----------
    unit : str
        ``"V"``, ``"mV"`` or ``"uV"``.
    assume : str or None
        The unit of a stream that does not say it.  A stream that does is believed.
    factor : float
        E.g. 0.1 for a model that wants tens of microvolts; then the unit that leaves is ``"unknown"``.
    """

    kind: Literal["scale"] = "scale"
    unit: Unit = "uV"
    assume: Unit | None = None
    factor: float = Field(default=1.0, gt=0)

    def build(self, info: StreamInfo) -> Scale:
        """Return the step; `StreamMismatch` when the stream's unit is unknown and none is assumed."""
        known = per_volt(info.unit) or (PER_VOLT[self.assume] if self.assume else None)
        if known is None:
            raise StreamMismatch(
                f"scale to {self.unit} needs the unit of stream {info.name!r}, which gives {info.unit!r}. "
                f"Set `unit:` in the source block: {TOLD}."
            )
        out = replace(info, unit=self.unit if self.factor == 1.0 else "unknown")
        return Scale(out, self.factor * PER_VOLT[self.unit] / known)


class Scale:
    """Multiplies by ``gain``; a `Step`, stateless."""

    def __init__(self, info: StreamInfo, gain: float) -> None:
        self.info = info
        self.delay = 0
        self.gain = np.float64(gain)

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk in the new unit."""
        return chunk.carrying((chunk.data * self.gain).astype(np.float32))

    def reset(self) -> None:
        """Nothing to forget."""
