"""What can be replayed in a file, and which of it is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import RecordingError

_EXG = ("EEG", "EMG", "EXG", "ECOG", "IEEG", "SEEG")


@dataclass(frozen=True)
class StreamEntry:
    """One stream in a file.

    Attributes
    ----------
    key : str
        Its number in the file: chooses it where name and type do not.
    name, stype, source_id : str
        As the recorder wrote them.
    sfreq : float
        Nominal rate, Hz; 0 for an irregular one.
    n_chans, n_times : int
        Channels and samples.
    why_not : str
        Empty, or why it cannot be replayed.
    """

    key: str
    name: str
    stype: str
    source_id: str
    sfreq: float
    n_chans: int
    n_times: int
    why_not: str = ""


def choose(entries: Sequence[StreamEntry], wanted: str | None, path: Path) -> StreamEntry:
    """Return the stream named ``wanted`` (a name, type or number); without it the first EEG, EMG or ExG.

    Raises
    ------
    RecordingError
        None fits, or several do; the message lists what is there.
    """
    fitting = [entry for entry in entries if wanted is None or wanted.lower() in _answers_to(entry)]
    usable = [entry for entry in fitting if not entry.why_not]
    if wanted is None:
        usable = [entry for entry in usable if entry.stype.upper() in _EXG][:1] or usable
    if len(usable) == 1:
        return usable[0]
    asked = "a stream with a regular rate and samples" if wanted is None else f"stream {wanted!r}"
    if usable:
        found = f"more than one stream answers to {wanted!r}" if wanted else "more than one can be replayed"
    elif fitting and wanted is not None:
        found = f"stream {wanted!r} cannot be replayed: {fitting[0].why_not}"
    else:
        found = f"{asked} is not there"
    raise RecordingError(f"{path.name}: {found}; choose one with stream= from: {_listed(entries)}")


def _answers_to(entry: StreamEntry) -> tuple[str, str, str]:
    return entry.name.lower(), entry.stype.lower(), entry.key


def _listed(entries: Sequence[StreamEntry]) -> str:
    """Return one phrase per stream."""
    phrases = []
    for entry in entries:
        refused = f", not replayable: {entry.why_not}" if entry.why_not else ""
        size = f"{entry.n_chans} channels, {entry.sfreq:g} Hz"
        phrases.append(f"{entry.key}: {entry.name!r} ({entry.stype}, {size}{refused})")
    return "; ".join(phrases) or "nothing"
