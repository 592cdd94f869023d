"""An LSL outlet that lets its readers fetch the end, and says when somebody else goes by its name."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from numpy.typing import NDArray

from streamer.lsl import LOOK_S, load, predicate, resolve

log = logging.getLogger(__name__)

# A reader whose pull times out after a second, pylsl's and mne-lsl's way, missed the last 3 to 8 decisions
# of a run that closed its outlet at once.
LINGER_S = 1.5


class Outlet:
    """A stream on the network; a context manager.

    Parameters
    ----------
    described : pylsl.StreamInfo
        Whose source_id a reader tells this stream from others by.
    wait : callable
        For tests: a pause of so many seconds.

    Attributes
    ----------
    lost : int
        0: LSL says nothing of what a reader missed.
    """

    def __init__(self, described: Any, *, wait: Callable[[float], object] = time.sleep) -> None:
        self.lost = 0
        self._wait = wait
        self._outlet: Any = load().StreamOutlet(described)
        # Aside: the look takes LOOK_S, and the stream to work on is running already.
        own = self._outlet.get_info().uid()
        self._look = threading.Thread(target=_tell_namesakes, args=(described.source_id(), own), daemon=True)
        self._look.start()

    def push(self, row: Sequence[float], stamp: float) -> None:
        """Send one sample."""
        self._outlet.push_sample(row, stamp)

    def push_rows(self, rows: NDArray[Any], stamps: NDArray[Any]) -> None:
        """Send several, ``rows`` (n_times, n_chans) with a stamp each."""
        self._outlet.push_chunk(rows, stamps.tolist())

    def close(self) -> None:
        """Take the stream off the network once its readers could fetch the end; may be called twice."""
        self._look.join()
        if self._outlet is not None and self._outlet.have_consumers():
            self._wait(LINGER_S)
        self._outlet = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _tell_namesakes(source_id: str, own: str) -> None:
    """Say on the log that another stream than our ``own`` is on the network under this id."""
    found = resolve(predicate(source_id=source_id), 2, LOOK_S)
    if any(stream.uid() != own for stream in found):
        log.warning(
            "a stream with source_id %r is on the network already: readers cannot tell it from this one. "
            "Stop the other one, or give this one another 'name'.",
            source_id,
        )
