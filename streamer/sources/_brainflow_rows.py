"""Rows of numbers as BrainFlow's ``DataFilter.write_file`` and its file streamer leave them.

The file does not name its board.  Without ``board_id`` the number of columns and the measured rate must
leave one reading of the rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import MissingDependency, RecordingError
from streamer.sources._content import Content
from streamer.sources._grid import from_counter, from_stamps
from streamer.sources._table import read_columns, read_lines

_RATE_TOLERANCE = 0.1  # chunks arrive in bursts: the rate of a short file is not exact
_LAYOUT = ("eeg_channels", "emg_channels", "ecg_channels", "timestamp_channel", "sampling_rate", "eeg_names")
_SIGNALS = ("eeg", "emg", "ecg")  # the first that a board has; several boards call the same rows all three


def read(path: Path, board_id: int | None) -> Content:
    """Read BrainFlow rows; biosignal channels are in µV."""
    lines, notes = read_lines(path)
    delimiter = "\t" if lines and "\t" in lines[0] else ","
    n_columns = lines[0].count(delimiter) + 1 if lines else 0
    columns = read_columns(path, lines, delimiter, range(n_columns))
    boards = _boards()
    if board_id is None:
        board_id = _guess(path, columns, boards)
        notes.append(f"board {board_id} guessed from {len(columns)} columns and the rate: board_id= sets it")
    board = _checked(path, len(columns), boards, board_id)
    labels, rows, kind = _signals(board)
    marker = [board["marker_channel"]] if "marker_channel" in board else []
    sfreq, stamps = float(board["sampling_rate"]), columns[board["timestamp_channel"]]
    counter = board.get("package_num_channel")
    return Content(
        labels=[*labels, *["Marker"] * len(marker)],
        types=[*[kind] * len(rows), *["stim"] * len(marker)],
        units=["uV"] * (len(rows) + len(marker)),
        column=lambda i: columns[[*rows, *marker][i]],
        grid=from_stamps(stamps, sfreq) if counter is None else from_counter(columns[counter], sfreq, stamps),
        meta={"format": "BrainFlow", "board": board["name"], "board_id": board_id},
        notes=notes,
    )


def _boards() -> dict[int, Mapping[str, Any]]:
    """Return BrainFlow's description of every board that has a rate and time stamps."""
    try:
        from brainflow.board_shim import BoardIds, BoardShim
        from brainflow.exit_codes import BrainFlowError
    except ImportError as error:
        raise MissingDependency(
            "rows of BrainFlow need the brainflow package: pip install brainflow 'setuptools<82'"
        ) from error

    boards: dict[int, Mapping[str, Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its first call imports pkg_resources, which warns of its own end
        for board in BoardIds:
            try:
                description = BoardShim.get_board_descr(board.value)
            except BrainFlowError:
                continue  # a number without a board behind it
            if {"sampling_rate", "timestamp_channel", "num_rows"} <= description.keys():
                boards[int(board.value)] = description
    return boards


def _guess(path: Path, columns: dict[int, NDArray[np.float64]], boards: dict[int, Mapping[str, Any]]) -> int:
    """Return a board that reads these rows as every other fitting board does."""
    fitting = {
        number: board
        for number, board in boards.items()
        if board["num_rows"] == len(columns) and _rate_fits(columns[board["timestamp_channel"]], board)
    }
    if len({repr([board.get(key) for key in _LAYOUT]) for board in fitting.values()}) == 1:
        return min(fitting)
    several = ", ".join(f"{number} ({board['name']})" for number, board in fitting.items())
    raise RecordingError(
        f"{path.name} has {len(columns)} columns and does not name its board: "
        + (f"boards {several} would fit" if fitting else "no BrainFlow board has such rows at such a rate")
        + "; give board_id="
    )


def _rate_fits(stamps: NDArray[np.float64], board: Mapping[str, Any]) -> bool:
    """Say whether the rows came at the board's rate."""
    passed = stamps[-1] - stamps[0]
    return bool(passed > 0 and abs((len(stamps) - 1) / passed / board["sampling_rate"] - 1) < _RATE_TOLERANCE)


def _checked(
    path: Path, n_columns: int, boards: dict[int, Mapping[str, Any]], board_id: int
) -> Mapping[str, Any]:
    """Return the board's description, if its rows have as many columns as the file."""
    if board_id not in boards:
        raise RecordingError(f"{path.name}: BrainFlow has no board {board_id}; its documentation lists them")
    board = boards[board_id]
    if board["num_rows"] != n_columns:
        raise RecordingError(
            f"{path.name} has {n_columns} columns, but board {board_id} ({board['name']}) writes "
            f"{board['num_rows']}: give the board_id that the file was recorded with"
        )
    return board


def _signals(board: Mapping[str, Any]) -> tuple[list[str], list[int], str]:
    """Return labels, columns and type of the board's biosignal channels."""
    kind = next((kind for kind in _SIGNALS if board.get(f"{kind}_channels")), "other")
    rows = [int(row) for row in board.get(f"{kind}_channels", ())]
    names = str(board.get("eeg_names", "")).split(",") if kind == "eeg" else []
    labels = names if len(names) == len(rows) else [f"{i}" for i in range(1, len(rows) + 1)]
    return labels, rows, kind
