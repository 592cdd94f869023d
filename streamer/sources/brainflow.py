"""Any board that BrainFlow knows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamer.errors import EndOfStream, StreamLost, StreamMismatch, StreamNotFound
from streamer.sources import SourceConfig, _boards
from streamer.sources._packages import PackageCounter
from streamer.types import Chunk, Marker, StreamInfo, make_chunk

PLAYBACK, STREAMING = "PLAYBACK_FILE_BOARD", "STREAMING_BOARD"
SETTINGS = {"serial_port", "mac_address", "ip_address", "ip_port", "serial_number", "other_info", "timeout"}
PRESETS = {"default": 0, "auxiliary": 1, "ancillary": 2}
# What BrainFlow holds for us unread, s; its default of 30 minutes takes 115 MB for 32 rows.
BUFFER_S = 20.0
# The end of a played file shows only as silence.
PLAYED_S = 1.0


class Config(SourceConfig):
    """Which board, and how to reach it.

    Attributes
    ----------
    board : int or str
        BrainFlow's number or name, such as ``SYNTHETIC_BOARD``, ``PLAYBACK_FILE_BOARD``, ``CYTON_BOARD``.
    serial_port, mac_address, ip_address, ip_port, serial_number, other_info, timeout
        As BrainFlow's documentation asks for the board; ``timeout`` is for finding it, s.
    file : Path or None
        For the playback board: a BrainFlow file, played once, in real time, with new stamps.
    master_board : int, str or None
        For the playback and streaming boards: the board whose data it is.
    stype : str
        Which of the board's channels: EEG, EMG, ECG or EOG.
    channels : tuple of str or None
        Their names, in order; else the board's own, else ``"1"`` to ``"n"``.
    preset : str
        Which of the board's data sets.
    silent_s : float
        The board is lost when it is silent for so long, s.
    """

    kind: Literal["brainflow"] = "brainflow"
    board: int | str
    serial_port: str = ""
    mac_address: str = ""
    ip_address: str = ""
    ip_port: Annotated[int, Field(ge=0, le=65535)] = 0
    serial_number: str = ""
    other_info: str = ""
    timeout: Annotated[int, Field(ge=0, le=600)] = 0
    file: Path | None = None
    master_board: int | str | None = None
    stype: Literal["EEG", "EMG", "ECG", "EOG"] = "EEG"
    channels: tuple[str, ...] | None = None
    preset: Literal["default", "auxiliary", "ancillary"] = "default"
    silent_s: Annotated[float, Field(gt=0, le=3600)] = 10.0

    def open(self) -> BrainFlowSource:
        """Connect to the board and start its stream; `StreamNotFound`, `StreamMismatch`."""
        return BrainFlowSource(self)

    @property
    def board_id(self) -> int:
        """BrainFlow's number of the board whose data it is; `StreamNotFound` where it knows none."""
        shim = _boards.load()
        board = self.board if self.master_board is None else self.master_board
        return int(shim.BoardIds[_boards.board_name(shim, board)].value)


class BrainFlowSource:
    """Reads a board through BrainFlow's own thread and buffer.

    BrainFlow cannot be waited for, so `read` looks every half sample period (1 to 5 ms): at 250 Hz that adds
    1 ms of age on average.  Stamps are BrainFlow's, moved from the
    computer's clock to LSL's.  Lost packages show in the package numbers, as jumps of the index.

    Parameters
    ----------
    config : Config
        The board.
    wait : callable, optional
        For tests: a pause of so many seconds.
    clock : callable, optional
        For tests: seconds on the local LSL clock.
    """

    live = True
    n_times: int | None = None

    def __init__(
        self,
        config: Config,
        *,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] | None = None,
    ) -> None:
        from pylsl import local_clock

        self._clock = clock or local_clock
        self._wait = wait
        self._silent_s = config.silent_s
        self._preset = PRESETS[config.preset]
        shim = _boards.load()
        self._name = _boards.board_name(shim, config.board)
        master = (
            _boards.board_name(shim, config.master_board) if config.master_board is not None else self._name
        )
        _check_settings(config, self._name)
        self._rows, self.info = _describe(config, master, shim)
        self._pause = min(max(0.5 / self.info.sfreq, 1e-3), 5e-3)
        self._packages = PackageCounter()
        self._ready: deque[Chunk] = deque()
        self._index = 0
        settings = config.model_dump(include=SETTINGS) | {"file": str(config.file or "")}
        self._board = _boards.start(shim, self._name, master, settings, round(BUFFER_S * self.info.sfreq))
        self._heard = self._clock()

    def read(self, timeout_s: float) -> Chunk | None:
        """Return what has arrived up to the next lost package, or None after ``timeout_s``.

        Raises
        ------
        StreamLost
            The board was silent for ``silent_s``.
        EndOfStream
            The playback board's file is over.
        """
        if self._ready:
            return self._ready.popleft()
        end = self._clock() + timeout_s
        while not self._board.get_board_data_count(self._preset):
            now = self._clock()
            self._check_alive(now - self._heard)
            if now >= end:
                return None
            self._wait(min(self._pause, end - now))
        self._heard = self._clock()
        self._ready.extend(self._chunks(self._board.get_board_data(preset=self._preset)))
        return self._ready.popleft()

    def markers(self) -> Sequence[Marker]:
        """Return nothing: boards know no events."""
        return ()

    def close(self) -> None:
        """Stop the stream and let go of the board; may be called twice."""
        board, self._board = self._board, None
        if board is not None:
            from brainflow.exit_codes import BrainFlowError

            with suppress(BrainFlowError):  # it may be gone already
                board.stop_stream()
            with suppress(BrainFlowError):
                board.release_session()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _chunks(self, table: NDArray[np.float64]) -> list[Chunk]:
        """Cut BrainFlow's table, shape (n_rows, n_times), where packages are missing."""
        data = table[self._rows.signal].T.astype(np.float32, order="C")
        # Both clocks are read together, so a step of the computer's clock cancels.
        times = table[self._rows.stamp] + (self._clock() - time.time())
        missing = self._packages.missing(table[self._rows.package])
        holes = np.flatnonzero(missing)
        edges = [0, *holes[holes > 0].tolist(), len(data)]
        chunks = []
        for start, end in pairwise(edges):
            self._index += int(missing[start])
            chunks.append(make_chunk(data[start:end], self._index, times[start:end]))
            self._index += end - start
        return chunks

    def _check_alive(self, silence: float) -> None:
        if self._name == PLAYBACK and self._index and silence > PLAYED_S:
            raise EndOfStream("the playback board has played its file to the end")
        if silence <= self._silent_s:
            return
        hint = (
            "Is the board on, charged and in range?"
            if self._name != PLAYBACK
            else "Is the file one that BrainFlow wrote, and 'master_board' the board that recorded it?"
        )
        raise StreamLost(f"No sample from {self.info.name!r} ({self._name}) for {silence:.1f} s. {hint}")


class _Rows:
    """Where things are in BrainFlow's table."""

    def __init__(self, described: dict[str, Any], signal: list[int]) -> None:
        self.signal = signal
        self.stamp: int = described["timestamp_channel"]
        self.package: int = described["package_num_channel"]


def _check_settings(config: Config, name: str) -> None:
    """Say what BrainFlow would only call an invalid argument."""
    if name in {PLAYBACK, STREAMING} and config.master_board is None:
        raise StreamNotFound(f"{name} needs 'master_board': the board whose data it is, such as CYTON_BOARD.")
    if name == PLAYBACK and (config.file is None or not config.file.is_file()):
        raise StreamNotFound(f"{name} needs 'file': a file that BrainFlow wrote; there is no {config.file}.")


def _describe(config: Config, master: str, shim: Any) -> tuple[_Rows, StreamInfo]:
    from brainflow.exit_codes import BrainFlowError

    try:
        described = shim.BoardShim.get_board_descr(shim.BoardIds[master].value, PRESETS[config.preset])
    except BrainFlowError as error:
        raise StreamMismatch(f"{master} has no preset {config.preset!r}. Choose another.") from error
    rows = described.get(f"{config.stype.lower()}_channels", [])
    if not rows:
        there = [t for t in ("EEG", "EMG", "ECG", "EOG") if described.get(f"{t.lower()}_channels")]
        raise StreamMismatch(
            f"{master} ({config.preset} preset) has no {config.stype} channels, but: "
            f"{', '.join(there) or 'no biosignal at all'}. Change 'stype' or 'preset'."
        )
    return _Rows(described, rows), StreamInfo(
        name=described["name"],
        source_id=f"brainflow-{master}-{config.serial_number or config.mac_address or config.serial_port}",
        stype=config.stype,
        sfreq=float(described["sampling_rate"]),
        ch_names=_ch_names(config, described, len(rows), master),
        ch_types=(config.stype.lower(),) * len(rows),
        unit="uV",
    )


def _ch_names(config: Config, described: dict[str, Any], n_chans: int, board: str) -> tuple[str, ...]:
    if config.channels is not None:
        if len(config.channels) != n_chans:
            raise StreamMismatch(
                f"{len(config.channels)} names under 'channels', but {board} has {n_chans} {config.stype} "
                "channels. Name each one, in order, or none."
            )
        return config.channels
    told = described["eeg_names"].split(",") if "eeg_names" in described else []
    if config.stype == "EEG" and len(told) == n_chans:
        return tuple(told)
    return tuple(str(i) for i in range(1, n_chans + 1))
