"""A live LSL stream."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat

from streamer.errors import EndOfStream, StreamLost, StreamMismatch
from streamer.lsl import (
    ATTACH_S,
    ClockOffset,
    Drain,
    LslMarkers,
    Search,
    answering,
    describe,
    find,
    load,
    predicate,
)
from streamer.lsl_info import to_stream_info, told_replay
from streamer.sources import SourceConfig
from streamer.types import Chunk, Marker, Samples, StreamInfo
from streamer.units import Unit

log = logging.getLogger(__name__)

# A player that came to its end stays for 2 s (`streamer.player`); one that is stopped or killed goes at once.
ENDED_S = 1.0
# Buffer for a replay that comes faster than real time: room for what arrives between two fetches.
WHOLE_S = 3600.0


class Config(SourceConfig):
    """Which stream, and how patient to be with it.

    Attributes
    ----------
    name, stype, source_id : str or None
        What the stream must be called; without any, the only regular stream there is.
    timeout_s : float
        How long to wait for it to appear.
    buffer_s : float
        What liblsl holds for us unread, s; beyond it the oldest samples are lost (and found missing).
    recover_s : float
        How long to look for the stream after it was lost.
    channels : tuple of str or None
        Names of all channels, in order, for a stream that does not tell them.
    unit : "uV", "mV", "V", float (the microvolts of one count) or None
        For a stream that does not tell it.
    markers : str or None
        Name of the marker stream that goes with it.
    """

    kind: Literal["lsl"] = "lsl"
    name: str | None = None
    stype: str | None = None
    source_id: str | None = None
    timeout_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    buffer_s: Annotated[float, Field(ge=1, le=3600)] = 4.0
    recover_s: Annotated[float, Field(ge=0, le=86400)] = 30.0
    channels: tuple[str, ...] | None = None
    unit: Unit | PositiveFloat | None = None
    markers: str | None = None

    def open(self) -> LslSource:
        """Find the stream and subscribe to it; `StreamNotFound`, `StreamMismatch`."""
        return LslSource(self)

    def look(self) -> StreamInfo:
        """Fetch the description alone: a replay starts when somebody subscribes."""
        found = find(predicate(self.name, self.stype, self.source_id), self.timeout_s)
        with answering(found):
            return to_stream_info(_description(found), self.channels, self.unit)


class LslSource:
    """Reads a stream as its samples arrive; blocks in liblsl, without holding the interpreter.

    A lost stream is looked for again, by us: liblsl's own recovery splices both sides of the hole without
    telling, and may take another machine's stream of the same name.  What comes after is flagged as a
    discontinuity, its index ahead by the time that passed.

    A stream that says it is a replay (`streamer.player`) ends with its last sample; one that does not run in
    real time is fetched as fast as it comes and waits here for its reader.  When it goes away before all of
    it came, some time after its last sample, its reader had joined late: it is over, which is said on the
    log.  Else its player was stopped or killed, and the replay is lost: nobody will play the rest.

    Attributes
    ----------
    live : bool
        False for a replay at another speed than 1: it waits for its reader.
    n_times : int or None
        Length of a replay, samples.
    reconnects : int
        How often the stream was lost and came back.
    described : pylsl.StreamInfo
        All that the stream says of itself, as it was when it came or came back.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._pylsl = load()
        self._condition = predicate(config.name, config.stype, config.source_id)
        self._markers: LslMarkers | None = None
        self._inlet: Any = None
        self._drain: Drain | None = None
        self._search: Search | None = None
        self._index = 0
        self._due: float | None = None
        self._heard = 0.0  # when something came last, by the local clock
        self._lost_at = 0.0
        self._left: int | None = None
        self._resumed = False
        self.live = True
        self.reconnects = 0
        with ExitStack() as undo:
            undo.callback(self.close)
            self.info = self._open()
            undo.pop_all()
        self.n_times: int | None = self._left

    def read(self, timeout_s: float) -> Chunk | None:
        """Return what has arrived, or None after ``timeout_s``.

        Raises
        ------
        EndOfStream
            It is a replay and over.
        StreamLost
            It was gone for ``recover_s``, or the source is closed, or a replay was stopped early.
        StreamMismatch
            It came back with another rate or other channels.
        """
        if self._left is not None and self._left <= 0:
            raise EndOfStream(f"replay {self.info.name!r} is over")
        if self._search is not None:
            self._look(self._search, timeout_s)
            return None
        if self._inlet is None:
            raise StreamLost(f"Stream {self.info.name!r} is closed. Open it again to read on.")
        try:
            pulled = self._drain.get(timeout_s) if self._drain is not None else self._pull(timeout_s)
        except self._pylsl.util.LostError:
            if self._left is None:
                self._lose()
            else:
                self._end(self._left)
            return None
        return self._chunk(*pulled) if pulled is not None and len(pulled[1]) else None

    def markers(self) -> Sequence[Marker]:
        """Return the marker stream's events so far."""
        return self._markers.read() if self._markers is not None else ()

    def close(self) -> None:
        """Unsubscribe."""
        self._detach()
        if self._search is not None:
            self._search.close()
            self._search = None
        if self._markers is not None:
            self._markers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> StreamInfo:
        """Find the streams; markers first, as a player starts when its samples have a reader."""
        config = self._config
        if config.markers:
            self._markers = LslMarkers(config.markers, config.timeout_s)
        found = find(self._condition, config.timeout_s)
        self._host = found.hostname()
        with answering(found):
            return self._attach(found)

    def _pull(self, timeout_s: float) -> tuple[Any, Any]:
        return self._inlet.pull_chunk(  # type: ignore[no-any-return]
            timeout_s, len(self._buffer), dest_obj=self._buffer, min_samples=1, as_numpy=True
        )

    def _chunk(self, data: np.ndarray[Any, Any], stamps: np.ndarray[Any, Any]) -> Chunk:
        offset = self._offset.value
        times = stamps + offset if offset else stamps
        resumed, self._resumed = self._resumed, False
        if resumed:
            self._index += self._missed(float(times[0]))
        chunk = Chunk(_float32(data), self._index, times, np.ones(len(times), dtype=bool), resumed)
        self._index += len(times)
        if self._left is not None:
            self._left -= len(times)
        self._due = float(times[-1]) + 1 / self.info.sfreq
        self._heard = self._pylsl.local_clock()
        return chunk

    def _missed(self, time: float) -> int:
        """Return how many samples would have come since the last one."""
        gap = time - self._due if self._due is not None else 0.0
        return max(0, round(gap * self.info.sfreq)) if math.isfinite(gap) else 0

    def _attach(self, found: Any) -> StreamInfo:
        """Subscribe to a resolved stream; return what it says of itself."""
        full = _description(found)
        info = to_stream_info(full, self._config.channels, self._config.unit)
        self.described: Any = full
        replay = told_replay(full)
        self.live = replay is None or replay.speed == 1
        self._left = replay.n_times if replay and replay.n_times else None
        seconds = self._config.buffer_s if self.live else WHOLE_S
        # liblsl takes whole seconds.
        inlet = self._pylsl.StreamInlet(found, max_buflen=math.ceil(seconds), recover=False)
        inlet.open_stream(ATTACH_S)
        rows = max(64, round(0.1 * info.sfreq))
        self._buffer = np.empty((rows, info.n_chans), dtype=inlet.np_dtype)
        self._offset = ClockOffset(inlet, found.hostname())
        if not self.live:
            self._drain = Drain(lambda timeout: inlet.pull_chunk(timeout, rows, min_samples=1, as_numpy=True))
        self._inlet = inlet
        self._heard = self._pylsl.local_clock()
        return info

    def _detach(self) -> None:
        if self._drain is not None:
            self._drain.close()
            self._drain = None
        if self._inlet is not None:
            self._offset.close()
            self._inlet = None

    def _end(self, left: int) -> None:
        """Take a replay that went away for over, or raise `StreamLost` where it was stopped early."""
        name, missing = self.info.name, f"{left} of its {self.n_times} samples did not come"
        self._detach()
        if not self._came_to_its_end():
            raise StreamLost(f"Replay {name!r} is lost: {missing}. Was its player stopped? Play it again.")
        log.warning("replay %r is over; %s: it was joined late", name, missing)
        self._left = 0

    def _came_to_its_end(self) -> bool:
        """Say whether a replay went away some time after its last sample, or after it was joined."""
        return bool(self._pylsl.local_clock() - self._heard > ENDED_S)

    def _lose(self) -> None:
        log.warning("stream %r is lost; looking for it", self.info.name)
        self._detach()
        self._lost_at = self._pylsl.local_clock()
        self._search = Search(self._condition, self._ours)

    def _look(self, search: Search, timeout_s: float) -> None:
        """Wait for the lost stream and subscribe to it again."""
        left = self._lost_at + self._config.recover_s - self._pylsl.local_clock()
        if left <= 0:
            raise StreamLost(
                f"Stream {self.info.name!r} (source_id {self.info.source_id!r}) is gone and did not come "
                f"back within {self._config.recover_s:g} s. Is the device on and in range?"
            )
        found = search.wait(min(timeout_s, left))
        if found is None:
            return
        search.close()
        self._search = None
        try:
            info = self._attach(found)
        except (self._pylsl.util.LostError, self._pylsl.util.TimeoutError):  # gone again already
            self._search = Search(self._condition, self._ours)
            return
        self._check_shape(info)
        self.reconnects += 1
        self._resumed = self._due is not None
        log.warning("stream is back: %s", describe(found))

    def _ours(self, found: Sequence[Any]) -> Any:
        """Choose our stream: of its id, or, restarted under a new one, of its name on its machine."""
        for one in found:
            if one.source_id() == self.info.source_id:
                return one
        return next(
            (one for one in found if one.name() == self.info.name and one.hostname() == self._host), None
        )

    def _check_shape(self, info: StreamInfo) -> None:
        old, new = self.info, info
        changed = [
            f"{what} {getattr(old, what)!r} is now {getattr(new, what)!r}"
            for what in ("sfreq", "ch_names", "ch_types", "unit")
            if getattr(old, what) != getattr(new, what)
        ]
        if changed:
            self._detach()
            raise StreamMismatch(
                f"Stream {old.name!r} came back with another shape: {'; '.join(changed)}. "
                "Start again to use it as it is now."
            )


def _description(found: Any) -> Any:
    """Return the full description of a resolved stream, without subscribing to it."""
    return load().StreamInlet(found, recover=False).info(ATTACH_S)


def _float32(data: np.ndarray[Any, Any]) -> Samples:
    """Return a copy; a double that is too large becomes infinite, which is repair's business."""
    if data.dtype == np.float32:
        return data.copy()
    with np.errstate(over="ignore"):
        return data.astype(np.float32)
