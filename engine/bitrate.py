"""What a stream of codes costs, against the samples that it stands for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.token_stream import TokenFrame, TokenInfo
from streamer.types import StreamInfo

RAW_BITS = 16  # per sample and channel: what compact recorders store
STAMP_BITS = 64  # LSL stamps every row with a double


class BitRate:
    """Counts codes; a receiver of frames.

    The entropy is that of each level by itself, over all channels and frames so far: what an entropy coder
    without memory would need.  From few frames it comes out too low.

    Parameters
    ----------
    info : TokenInfo
    source : StreamInfo
        What the codes stand for, as the device sends it.
    """

    def __init__(self, info: TokenInfo, source: StreamInfo) -> None:
        self.lost = 0
        self._info, self._source = info, source
        self._n_codes = len(info.ch_names) * (info.n_codebooks or 0)
        self._counts = np.zeros((info.n_codebooks or 0, info.codebook_size or 0), dtype=np.int64)
        self._gains = np.zeros((1, info.n_gains or 0), dtype=np.int64)

    def write(self, frame: TokenFrame) -> None:
        """Count the codes of one frame."""
        codes = frame.values[: self._n_codes].reshape(-1, len(self._counts))  # (C, K)
        np.add.at(self._counts, (np.arange(len(self._counts)), codes), 1)
        np.add.at(self._gains[0], frame.values[self._n_codes :], 1)

    def report(self) -> dict[str, Any]:
        """Return bits per second: of one channel, of all of them, and what they are compared with."""
        info, n = self._info, len(self._info.ch_names)
        codes = (info.n_codebooks or 0) * math.log2(info.codebook_size or 1) * info.rate
        gain = math.log2(info.n_gains) * info.rate if info.n_gains else 0.0
        raw = RAW_BITS * self._source.sfreq * n
        return {
            "codes_per_channel": round(codes, 1),
            "gain_per_channel": round(gain, 1),
            "codes_entropy_per_channel": round(_entropy(self._counts) * info.rate, 1),
            "gain_entropy_per_channel": round(_entropy(self._gains) * info.rate, 1),
            "all_channels": round(n * (codes + gain), 1),
            "raw_16_bit": round(raw, 1),
            "smaller_by": round(raw / (n * (codes + gain)), 2),
            "lsl_stream": round(self._wire() * info.rate, 1),
        }

    def used(self) -> list[float]:
        """Return which share of its codes each level has used."""
        return [round(float(share), 4) for share in (self._counts > 0).mean(axis=1)]

    def _wire(self) -> int:
        """Return the bits of one row as LSL sends it: whole integers, counters and a stamp."""
        bits = np.dtype(self._info.dtype).itemsize * 8
        return len(self._info.columns) * bits + STAMP_BITS


def _entropy(counts: NDArray[np.int64]) -> float:
    """Return the entropies of the rows' histograms, summed, bits."""
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(total, 1)
    seen = share > 0
    return float(-(share[seen] * np.log2(share[seen])).sum()) + 0.0
