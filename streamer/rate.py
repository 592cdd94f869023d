"""Whether a live stream delivers at the rate that it promises."""

from __future__ import annotations

from collections import deque
from statistics import median

from streamer.errors import StreamMismatch
from streamer.types import Chunk, StreamInfo

WINDOW_S = 1.0
WINDOWS = 7  # their median: three holes, stalls or bursts among them do not matter
TOLERANCE = 0.05  # crystals are off by 0.1 % at most, a rate taken for another by 10 % and more


class RateCheck:
    """Compares rows with stamps over the last seconds, from chunk end to chunk end.

    Parameters
    ----------
    info : StreamInfo
        Its ``sfreq`` is the promise.
    """

    def __init__(self, info: StreamInfo) -> None:
        self._info = info
        self._rates: deque[float] = deque(maxlen=WINDOWS)
        self._start: float | None = None
        self._rows = 0

    def see(self, chunk: Chunk) -> None:
        """Take in a chunk as it came, before its stamps are smoothed.

        Raises
        ------
        StreamMismatch
            The median rate of the last windows is off by more than 5 %.
        """
        if not len(chunk):
            return
        now = float(chunk.times[-1])
        if self._start is None or chunk.discontinuity or now < self._start:
            self._start, self._rows = now, 0
            return
        self._rows += len(chunk)
        if now - self._start < WINDOW_S:
            return
        self._rates.append(self._rows / (now - self._start))
        self._start, self._rows = now, 0
        self._judge()

    def _judge(self) -> None:
        promised, measured = self._info.sfreq, median(self._rates)
        if len(self._rates) == WINDOWS and abs(measured / promised - 1) > TOLERANCE:
            raise StreamMismatch(
                f"Stream {self._info.name!r} says {promised:g} Hz and delivers {measured:.4g} Hz. Every "
                "filter would be off: set the right rate in the program that sends it."
            )
