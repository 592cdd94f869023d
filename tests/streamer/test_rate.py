"""A stream that is not at its rate is refused; one that only stumbles is not."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.errors import StreamMismatch
from streamer.rate import RateCheck
from streamer.types import Chunk, StreamInfo, make_chunk

INFO = StreamInfo("amp", "amp-1", "EEG", 160.0, ("C3",), ("eeg",), "uV")


def played(
    true_sfreq: float, seconds: float = 12.0, rows: int = 16, pauses: tuple[float, ...] = ()
) -> list[Chunk]:
    """Return chunks stamped at their end, back-dated at the nominal rate as LSL does, with pauses of 1 s."""
    chunks, n, late = [], 0, 0.0
    waiting = list(pauses)
    while n < seconds * true_sfreq:
        n += rows
        if waiting and n / true_sfreq > waiting[0]:
            late += 1.0
            waiting.pop(0)
        jitter = 0.004 * np.sin(n)
        times = n / true_sfreq + late + jitter - np.arange(rows)[::-1] / INFO.sfreq
        chunks.append(make_chunk(np.zeros((rows, 1), dtype=np.float32), n - rows, times))
    return chunks


def watch(chunks: list[Chunk]) -> None:
    check = RateCheck(INFO)
    for chunk in chunks:
        check.see(chunk)


@pytest.mark.parametrize("true_sfreq", [80.0, 144.0, 176.0, 320.0])
def test_another_rate_is_refused(true_sfreq: float) -> None:
    """Half, double, and ten per cent to either side: both rates are in the message."""
    with pytest.raises(StreamMismatch, match="says 160 Hz and delivers") as error:
        watch(played(true_sfreq))
    measured = float(str(error.value).split("delivers ")[1].split(" Hz")[0])
    assert measured == pytest.approx(true_sfreq, rel=0.01)


@pytest.mark.parametrize("true_sfreq", [159.8, 160.0, 160.3])
@pytest.mark.parametrize("rows", [1, 16, 100])
def test_the_right_rate_passes(true_sfreq: float, rows: int) -> None:
    """Drift of a real clock, jitter and any size of chunk are no fault."""
    watch(played(true_sfreq, seconds=60.0, rows=rows))


def test_stalls_are_not_a_rate() -> None:
    """Three holes of a second within seven are holes, not another rate."""
    watch(played(160.0, seconds=40.0, pauses=(8.0, 10.0, 12.0)))
