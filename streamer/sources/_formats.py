"""The file formats, by suffix and by their first bytes."""

from __future__ import annotations

import configparser
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from streamer.errors import ConfigError, RecordingError
from streamer.sources import _brainflow_rows, _edf, _mne, _muse, _npz, _openbci, _xdf
from streamer.sources._content import Content, Recording, assemble
from streamer.sources._streams import StreamEntry, choose

_HEAD_BYTES = 4096
_MIN_ROWS = 6  # of BrainFlow's boards: package number, a few channels, time stamp, marker
_MIN_MUSE = 5  # a time stamp and four electrodes
_UNIX_S = (1e9, 4e9)  # seconds since 1970, in the years 2001 to 2096
# What the parsers, ours and others', raise on bytes that are not what they expect.
_FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,  # xml.etree.ElementTree.ParseError
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    configparser.Error,
)


@dataclass(frozen=True)
class Format:
    """A file format: its name, how its files begin, and what reads it.

    ``read`` takes the path, the stream asked for and the board; most readers need the path alone.
    """

    name: str
    matches: Callable[[bytes], bool]
    read: Callable[[Path, str | None, int | None], Content]


def _begins(*starts: bytes) -> Callable[[bytes], bool]:
    """Return a check for a file's first bytes, a byte order mark aside."""
    return lambda head: head.removeprefix(b"\xef\xbb\xbf").startswith(starts)


def _numbers(head: bytes) -> list[float]:
    """Return the numbers of the first line, or nothing where it is anything else."""
    fields = head.partition(b"\n")[0].replace(b"\t", b",").split(b",")
    try:
        return [float(field) for field in fields]
    except ValueError:
        return []


def _is_rows(head: bytes) -> bool:
    """Say whether the first line is nothing but numbers."""
    return len(_numbers(head)) > 1


def _alone(read: Callable[[Path], Content]) -> Callable[[Path, str | None, int | None], Content]:
    """Return a reader that takes the stream and the board without needing them."""
    return lambda path, _stream, _board_id: read(path)


_EDF = Format("EDF", _begins(b"0       "), _alone(_edf.read))
_BDF = Format("BDF", _begins(b"\xffBIOSEMI"), _alone(_edf.read))
_GDF = Format("GDF", _begins(b"GDF "), _alone(_mne.read_gdf))
_FIF = Format("FIF", _begins(b"\x00\x00\x00\x64"), _alone(_mne.read_fif))
_VHDR = Format("BrainVision", _begins(b"Brain Vision", b"BrainVision"), _alone(_mne.read_brainvision))
_PART = Format("BrainVision", lambda head: True, _alone(_mne.refuse_part))
_XDF = Format("XDF", _begins(b"XDF:", b"\x1f\x8b"), lambda path, stream, _: _xdf.read(path, stream))
_OPENBCI = Format("OpenBCI GUI", _begins(b"%OpenBCI"), _alone(_openbci.read))
_MUSE = Format("muse-lsl", _begins(b"timestamps,"), _alone(_muse.read))
_ROWS = Format("BrainFlow", _is_rows, lambda path, _, board_id: _brainflow_rows.read(path, board_id))
_NPZ = Format("npz", _begins(b"PK\x03\x04"), _alone(_npz.read))

READERS: dict[str, tuple[Format, ...]] = {
    ".edf": (_EDF,),
    ".bdf": (_BDF,),
    ".gdf": (_GDF,),
    ".fif": (_FIF,),
    ".vhdr": (_VHDR,),
    ".vmrk": (_PART,),
    ".eeg": (_PART,),
    ".xdf": (_XDF,),
    ".xdfz": (_XDF,),
    ".txt": (_OPENBCI, _ROWS),
    ".csv": (_MUSE, _ROWS, _OPENBCI),
    ".npz": (_NPZ,),
}


def of_brainflow(path: Path) -> bool:
    """Say whether a file holds rows of BrainFlow, which take a ``board_id``; `RecordingError` as `load`."""
    return _format_of(path) is _ROWS


def of_signal(path: Path) -> bool:
    """Say whether a text file begins like a recording, and not like any other text or table.

    Rows of numbers alone are taken for BrainFlow's where they are as many as its smallest board gives and one
    is a Unix time stamp, which every row of its has; those of muse-lsl need a row of numbers under their
    names.  `load` takes any.
    """
    try:
        form = _format_of(path)
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (RecordingError, OSError):
        return False
    if form is _MUSE:
        return len(_numbers(head.partition(b"\n")[2])) >= _MIN_MUSE
    numbers = _numbers(head)
    stamped = any(_UNIX_S[0] < number < _UNIX_S[1] for number in numbers)
    return form is not _ROWS or (stamped and len(numbers) >= _MIN_ROWS)


def load(path: str | Path, stream: str | None = None, *, board_id: int | None = None) -> Recording:
    """Read a recording into memory.

    Parameters
    ----------
    path : str or Path
        EDF, BDF, GDF, FIF, BrainVision (``.vhdr``), XDF, OpenBCI GUI text, BrainFlow rows, muse-lsl CSV, or
        the project's npz.
    stream : str, optional
        Name, type or number of the stream in a file of several; by default the first EEG, EMG or ExG.
    board_id : int, optional
        BrainFlow's number of the board, for rows of BrainFlow that leave a doubt.

    Raises
    ------
    RecordingError
        The file cannot be replayed; the message says why and what to do.
    """
    path = Path(path)
    form = _format_of(path)
    if board_id is not None and form is not _ROWS:
        raise ConfigError(f"board_id is for rows of BrainFlow, but {path.name} is {form.name}: leave it out")
    with _reading(path, form) as said:
        recording = assemble(form.read(path, stream, board_id), path)
    if form is not _XDF:
        choose([_entry(recording)], stream, path)
    notes = (*recording.meta["notes"], *(f"reader: {message}" for message in said))
    return replace(recording, meta=MappingProxyType({**recording.meta, "notes": notes}))


def streams(path: str | Path) -> tuple[StreamEntry, ...]:
    """Return what a file holds, and for each stream that cannot be replayed why.

    Raises
    ------
    RecordingError
        The file cannot be read.
    """
    path = Path(path)
    form = _format_of(path)
    if form is not _XDF:
        return (_entry(load(path)),)
    with _reading(path, form):
        return tuple(_xdf.streams(path))


def _format_of(path: Path) -> Format:
    """Return the file's format: its suffix says it, its first bytes must agree."""
    if not path.is_file():
        what = "is a folder: name a file in it" if path.is_dir() else "does not exist: check the path"
        raise RecordingError(f"{path} {what}")
    formats = READERS.get(path.suffix.lower(), ())
    if not formats:
        raise RecordingError(
            f"{path.name}: recordings are read by suffix, one of {', '.join(READERS)}; "
            f"{path.suffix or 'none'} is not among them"
        )
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise RecordingError(f"{path.name} is empty: nothing was recorded, or the copy failed")
    for form in formats:
        if form.matches(head):
            return form
    expected = " or ".join(dict.fromkeys(form.name for form in formats))
    looks = [suffix for suffix, (form, *_) in READERS.items() if form is not _PART and form.matches(head)]
    advice = f"rename it to {looks[0]}" if looks else "copy or export it again"
    raise RecordingError(f"{path.name} does not begin like {expected}: {advice}")


@contextmanager
def _reading(path: Path, form: Format) -> Iterator[list[str]]:
    """Turn the faults of parsers into one sentence, and collect their warnings instead of showing them."""
    said: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
        said += [str(warning.message).splitlines()[0] for warning in caught]
    except _FAULTS as fault:
        told = str(fault) if isinstance(fault, (ValueError, OSError, RuntimeError)) else repr(fault)
        detail = " ".join(told.split())[:200] or type(fault).__name__
        raise RecordingError(
            f"{path.name} is damaged or not {form.name} ({detail}): copy or export it again"
        ) from fault


def _entry(recording: Recording) -> StreamEntry:
    """Return the description of a file's only stream."""
    info = recording.info
    return StreamEntry(
        "1", info.name, info.stype, info.source_id, info.sfreq, info.n_chans, len(recording.times)
    )
