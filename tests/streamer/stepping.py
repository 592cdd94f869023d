"""What the tests of single DSP steps share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from streamer.dsp import StepConfig
from streamer.types import Chunk, StreamInfo, make_chunk


def eeg(*ch_names: str, sfreq: float = 250.0, unit: str = "uV") -> StreamInfo:
    """Return an EEG stream of these channels."""
    return StreamInfo("headset", "id", "EEG", sfreq, ch_names, ("eeg",) * len(ch_names), unit)


def chunk_of(data: ArrayLike, info: StreamInfo, index: int = 0) -> Chunk:
    """Return samples (n_times, n_chans) as one chunk of the stream."""
    samples = np.asarray(data, dtype=np.float32)
    return make_chunk(samples, index, (index + np.arange(len(samples))) / info.sfreq)


def apply(config: StepConfig, data: ArrayLike, info: StreamInfo) -> Chunk:
    """Return what a fresh step makes of samples (n_times, n_chans)."""
    return config.build(info)(chunk_of(data, info))
