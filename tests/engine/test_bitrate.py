"""What a stream of codes costs is arithmetic, and what it could cost is their entropy."""

from __future__ import annotations

import numpy as np
import pytest
from toy_codec import CODEBOOK_SIZE, CODEC, HOP, N_CODEBOOKS, N_GAINS, SFREQ

from engine.bitrate import BitRate
from engine.token_stream import TokenFrame, TokenInfo
from streamer.types import StreamInfo

NAMES = ("Fz", "C3", "Cz", "C4")
SOURCE = StreamInfo("amp", "amp-1", "EEG", SFREQ, NAMES, ("eeg",) * len(NAMES), "uV")
INFO = TokenInfo(
    bundle="toy-codec", version="1", publish="codes", ch_names=NAMES, stype="EEG", unit="uV", sfreq=SFREQ,
    hop=HOP, codec=CODEC, n_codebooks=N_CODEBOOKS, codebook_size=CODEBOOK_SIZE, n_gains=N_GAINS,
)  # fmt: skip


def test_bit_rates_are_what_the_codes_need() -> None:
    """Codes drawn evenly from 16 of 256 values have an entropy of 4 bits a level; the rest is arithmetic."""
    costs = BitRate(INFO, SOURCE)
    n_codes = len(NAMES) * N_CODEBOOKS
    for i in range(1600):
        values = np.concatenate([np.full(n_codes, i % 16), np.full(len(NAMES), i % 2)])
        costs.write(TokenFrame(i, 0.0, i, 0.0, values))
    rate = SFREQ / HOP
    assert costs.report() == {
        "codes_per_channel": pytest.approx(3 * 8 * rate, abs=0.1),
        "gain_per_channel": pytest.approx(7 * rate, abs=0.1),
        "codes_entropy_per_channel": pytest.approx(3 * 4 * rate, abs=0.1),
        "gain_entropy_per_channel": pytest.approx(1 * rate, abs=0.1),
        "all_channels": pytest.approx(4 * 31 * rate, abs=0.1),
        "raw_16_bit": 16 * 250 * 4,
        "smaller_by": pytest.approx(16 * 250 / (31 * rate), abs=0.01),
        "lsl_stream": pytest.approx((18 * 16 + 64) * rate, abs=0.1),
    }
    assert costs.used() == [16 / 256] * 3
