"""Re-reference the EEG channels."""

from __future__ import annotations

from typing import Literal

import numpy as np

from streamer.dsp import StepConfig
from streamer.errors import StreamMismatch
from streamer.types import Chunk, StreamInfo


class Config(StepConfig):
    """Subtract a reference from every EEG channel; the other channels are left as they are.

    Attributes
    ----------
    channels : "average" or tuple of str
        The mean of all EEG channels, or of the named ones (two mastoids, say), which stay in the stream.
    """

    kind: Literal["reference"] = "reference"
    channels: Literal["average"] | tuple[str, ...] = "average"

    def build(self, info: StreamInfo) -> Reference:
        """Return the step; `StreamMismatch` without an EEG channel or without one of the named."""
        eeg = [i for i, ch_type in enumerate(info.ch_types) if ch_type == "eeg"]
        if not eeg:
            raise StreamMismatch(
                f"reference needs EEG channels; stream {info.name!r} has only "
                f"{', '.join(sorted(set(info.ch_types)))}. Leave the step out."
            )
        if self.channels == "average":
            return Reference(info, eeg, eeg)
        missing = [name for name in self.channels if name not in info.ch_names]
        if missing or not self.channels:
            raise StreamMismatch(
                f"reference to {', '.join(missing) or 'no channel'}: not in stream {info.name!r}, "
                f"which has {', '.join(info.ch_names)}. Name channels of the stream, or 'average'."
            )
        return Reference(info, eeg, [info.ch_names.index(name) for name in self.channels])


class Reference:
    """Subtracts the mean of the columns ``reference`` from the columns ``eeg``; a `Step`, stateless."""

    def __init__(self, info: StreamInfo, eeg: list[int], reference: list[int]) -> None:
        self.info = info
        self.delay = 0
        self._eeg = eeg
        self._reference = reference

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk re-referenced."""
        x = chunk.data.astype(np.float64)
        # The mean runs along contiguous rows: row by row the same sum, however many rows there are.
        mean = np.take(x, self._reference, axis=1).mean(axis=1)
        x[:, self._eeg] -= mean[:, None]
        return chunk.carrying(x.astype(np.float32))

    def reset(self) -> None:
        """Nothing to forget."""
