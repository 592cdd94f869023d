"""BrainFlow's boards: found by name, started, with its errors in words that help."""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Mapping
from typing import Any

from streamer.errors import MissingDependency, StreamNotFound

log = logging.getLogger(__name__)

HINTS = {
    1: "The port is in use: close the program that has it (OpenBCI GUI?).",
    2: "The port cannot be opened: is the dongle plugged in, its name right, another program using it, "
    "and do you have the right to (on Linux: group dialout)?",
    6: "The board does not answer: is it on, charged and in range?",
    7: "The board does not answer: is it on, charged and in range?",
    13: "A setting is missing or wrong: see 'serial_port', 'mac_address', 'ip_address', 'ip_port', 'file', "
    "'master_board' and which of them BrainFlow's documentation wants for this board.",
    14: "This BrainFlow does not support the board on this system.",
    16: "The board is open already in this program.",
    18: "The board was not found in time: is it on and in range? Raise 'timeout'.",
}


def load() -> Any:
    """Return the module ``brainflow.board_shim``, its library loaded and its log silent unless we debug."""
    try:
        with warnings.catch_warnings():  # on Python < 3.12 it looks for its library through pkg_resources
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            from brainflow import board_shim

            if log.isEnabledFor(logging.DEBUG):
                board_shim.BoardShim.enable_dev_board_logger()
            else:
                board_shim.BoardShim.disable_board_logger()
    except (ImportError, OSError) as error:
        raise MissingDependency(
            f"BrainFlow did not load here ({error}). Install it: pip install brainflow 'setuptools<82'"
        ) from error
    return board_shim


def board_name(shim: Any, board: int | str) -> str:
    """Return BrainFlow's name for a number or a name in any spelling; `StreamNotFound` lists them all."""
    names = [one.name for one in shim.BoardIds]
    if isinstance(board, int):
        found = [one.name for one in shim.BoardIds if one.value == board]
    else:
        wanted = board.upper()
        found = [name for name in (wanted, f"{wanted}_BOARD") if name in names]
    if found:
        return str(found[0])
    close = difflib.get_close_matches(str(board).upper(), names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise StreamNotFound(f"BrainFlow knows no board {board!r}. {hint}It knows: {', '.join(names)}.")


def start(shim: Any, name: str, master: str, settings: Mapping[str, Any], buffer: int) -> Any:
    """Return BrainFlow's board object, streaming.

    Parameters
    ----------
    shim : module
        As from `load`.
    name, master : str
        The board, and the one whose data it plays (else the same).
    settings : mapping
        Attributes of BrainFlow's ``BrainFlowInputParams``.
    buffer : int
        Samples that BrainFlow holds.

    Raises
    ------
    StreamNotFound
        It does not start; the message says what to do.
    """
    from brainflow.exit_codes import BrainFlowError

    class Board(shim.BoardShim):  # type: ignore[misc]
        """A board that is let go of by `close` only.

        BrainFlow's own lets go of the *session* when the object is collected, and so ends the stream of
        another object for the same board.
        """

        def __del__(self) -> None: ...

    params = shim.BrainFlowInputParams()
    for key, value in settings.items():
        setattr(params, key, value)
    params.master_board = shim.BoardIds[master].value
    board = Board(shim.BoardIds[name].value, params)
    try:
        board.prepare_session()
        board.start_stream(max(buffer, 1000))
    except BrainFlowError as error:
        if error.exit_code != 16 and board.is_prepared():
            board.release_session()
        raise StreamNotFound(f"{name} does not start ({error}). {HINTS.get(error.exit_code, '')}") from error
    return board
