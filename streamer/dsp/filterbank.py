"""Split every channel into frequency bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveFloat

from streamer.dsp import Step, StepConfig
from streamer.dsp.bandpass import Config as Bandpass
from streamer.types import Chunk, StreamInfo

Band = tuple[PositiveFloat, PositiveFloat]


class Config(StepConfig):
    """Give each band channels of its own: all channels in the first band, then all in the next.

    So that what follows can treat the bands apart: `align` with ``groups`` whitens each by its own
    covariance, where one of the whole signal is that of its slow, strong part.

    Attributes
    ----------
    bands : tuple of (float, float)
        Corner frequencies (-3 dB), Hz.
    order : int
        Of each Butterworth prototype, as in `bandpass`.
    """

    kind: Literal["filterbank"] = "filterbank"
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]
    order: int = Field(default=2, ge=1, le=12)

    @property
    def outputs_per_channel(self) -> int:
        """One per band."""
        return len(self.bands)

    def build(self, info: StreamInfo) -> Filterbank:
        """Return the filters; `StreamMismatch` for a corner at or above half the sampling rate."""
        filters = [Bandpass(low=low, high=high, order=self.order).build(info) for low, high in self.bands]
        return Filterbank(info, self.bands, filters)


class Filterbank:
    """One band-pass per band over the same input; a `Step` whose ``delay`` is that of the slowest."""

    def __init__(self, info: StreamInfo, bands: tuple[Band, ...], filters: Sequence[Step]) -> None:
        names = tuple(f"{name} {low:g}-{high:g} Hz" for low, high in bands for name in info.ch_names)
        self.info = replace(info, ch_names=names, ch_types=info.ch_types * len(bands))
        self.delay = max(each.delay for each in filters)
        self._filters = filters

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk with ``n_bands * n_chans`` columns."""
        return chunk.carrying(np.concatenate([each(chunk).data for each in self._filters], axis=1))

    def reset(self) -> None:
        """Forget the state of every filter."""
        for each in self._filters:
            each.reset()
