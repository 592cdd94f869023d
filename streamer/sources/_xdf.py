"""XDF files, as LabRecorder writes them: several streams, each with its own clock.

pyxdf puts the streams on one clock.  Its removal of jitter is not used: it closes holes shorter than 500
samples (2 s at 250 Hz), and holes must stay.  The file's chunks are checked here first, because pyxdf
believes every length that it reads.
"""

from __future__ import annotations

import gzip
import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np

from streamer.sources._content import Content, code_label
from streamer.sources._grid import from_stamps
from streamer.sources._streams import StreamEntry, choose
from streamer.types import Marker

_HEADER, _SAMPLES, _CLOCK, _FOOTER = 2, 3, 4, 6  # chunk tags
_ITEM_BYTES = {"int8": 1, "int16": 2, "int32": 4, "int64": 8, "float32": 4, "double64": 8}
_MARKER_WORDS = ("marker", "event", "stim", "trigger")


@dataclass
class _Stream:
    """One stream of the file, its header read and its chunks counted."""

    number: int
    info: ElementTree.Element
    n_times: int = 0
    chunks: list[bytes] = field(default_factory=list)

    def text(self, tag: str) -> str:
        return (self.info.findtext(tag) or "").strip()

    @property
    def is_text(self) -> bool:
        return self.text("channel_format") == "string"

    @property
    def is_marker(self) -> bool:
        if self.is_text:
            return True
        irregular = float(self.text("nominal_srate")) == 0
        return irregular and any(word in self.text("type").lower() for word in _MARKER_WORDS)

    @property
    def entry(self) -> StreamEntry:
        n_chans, sfreq = int(self.text("channel_count")), float(self.text("nominal_srate"))
        why_not = "it is text" if self.is_text else "its rate is irregular" if not sfreq > 0 else ""
        why_not = why_not or ("" if self.n_times else "it has no samples")
        name, stype, source_id = self.text("name"), self.text("type"), self.text("source_id")
        return StreamEntry(str(self.number), name, stype, source_id, sfreq, n_chans, self.n_times, why_not)


def streams(path: Path) -> list[StreamEntry]:
    """Return what the file holds."""
    return [stream.entry for stream in _scan(path)[0]]


def read(path: Path, wanted: str | None) -> Content:
    """Read one stream, and the markers of all."""
    import pyxdf

    found, notes = _scan(path)
    entry = choose([stream.entry for stream in found], wanted, path)
    chosen = next(stream for stream in found if str(stream.number) == entry.key)
    markers = [stream for stream in found if stream.is_marker and stream.n_times]
    sound = b"XDF:" + b"".join(chunk for stream in (chosen, *markers) for chunk in stream.chunks)
    with _listening() as said:
        (signal, *texts), _ = pyxdf.load_xdf(BytesIO(sound), dejitter_timestamps=False)
    resets = [start for start, _ in signal["info"]["clock_segments"]]
    grid = from_stamps(np.asarray(signal["time_stamps"], np.float64), entry.sfreq, resets=resets)
    values = np.asarray(signal["time_series"])
    labels, types, units = _channels(chosen, entry)
    return Content(
        labels=labels,
        types=types,
        units=units,
        column=lambda i: values[:, i],
        grid=grid,
        markers=[marker for text in texts for marker in _markers(text, grid.origin)],
        meta={"format": "XDF", "stream": entry.key},
        notes=[*notes, *said],
        name=entry.name,
        source_id=entry.source_id,
        stype=entry.stype,
    )


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect what pyxdf logs instead of showing it, but for what it says only because jitter is left in."""
    said: list[str] = []
    logger = logging.getLogger("pyxdf")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(f"pyxdf: {record.getMessage()}")  # type: ignore[method-assign]
    handler.addFilter(lambda record: "clock-segments differ" not in record.getMessage())
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _scan(path: Path) -> tuple[list[_Stream], list[str]]:
    """Return the streams with their sound chunks, up to the first damaged one."""
    blob = path.read_bytes()
    if blob[:2] == b"\x1f\x8b":
        blob = gzip.decompress(blob)
    if blob[:4] != b"XDF:":
        raise ValueError("no XDF within the gzip file")
    found: dict[int, _Stream] = {}
    at = 4
    for start, tag, body in _chunks(blob):
        if tag in (_HEADER, _SAMPLES, _CLOCK, _FOOTER) and not _take(found, tag, body):
            break
        at = start + 2 + len(body)
    cut = f"damaged or cut at byte {at} of {len(blob)}: what comes before is read"
    return list(found.values()), [] if at == len(blob) else [cut]


def _chunks(blob: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield position, tag and body of each chunk that lies within the file."""
    at = 4
    while at < len(blob):
        length, start = _varlen(blob, at)
        if length < 2 or start + length > len(blob):
            return
        (tag,) = struct.unpack_from("<H", blob, start)
        yield start, tag, blob[start + 2 : start + length]
        at = start + length


def _take(found: dict[int, _Stream], tag: int, body: bytes) -> bool:
    """File the chunk under its stream; False when it is damaged."""
    number = int.from_bytes(body[:4], "little")
    if tag == _HEADER:
        stream = _Stream(number, ElementTree.fromstring(body[4:].decode("utf-8", "replace")))
        stream.chunks.append(_header_chunk(stream))
        found[number] = stream
        return True
    if number not in found or (tag == _CLOCK and len(body) != 20):
        return False
    stream = found[number]
    if tag == _SAMPLES:
        n_times = _count(body, stream)
        if n_times is None:
            return False
        stream.n_times += n_times
    stream.chunks.append(_chunk(tag, body))
    return True


def _header_chunk(stream: _Stream) -> bytes:
    """Return a header with what pyxdf reads of it, checked: it stumbles over an empty name."""
    n_chans, sfreq, kind = (stream.text(tag) for tag in ("channel_count", "nominal_srate", "channel_format"))
    if int(n_chans) < 1 or not 0 <= float(sfreq) < 1e7 or (kind not in _ITEM_BYTES and kind != "string"):
        raise ValueError(f"stream {stream.number} has {n_chans} channels of {kind!r} at {sfreq} Hz")
    name = escape(stream.text("name") or "unnamed")
    xml = (
        f"<info><name>{name}</name><channel_count>{int(n_chans)}</channel_count><nominal_srate>{float(sfreq)}"
        f"</nominal_srate><channel_format>{kind}</channel_format></info>"
    )
    return _chunk(_HEADER, struct.pack("<I", stream.number) + xml.encode())


def _chunk(tag: int, body: bytes) -> bytes:
    """Return a chunk in the file's layout."""
    return struct.pack("<BQH", 8, len(body) + 2, tag) + body


def _count(body: bytes, stream: _Stream) -> int | None:
    """Return the number of samples in a chunk, or None where they cannot lie within it."""
    n_times, at = _varlen(body, 4)
    n_chans = int(stream.text("channel_count"))
    if not stream.is_text:
        values = n_chans * _ITEM_BYTES[stream.text("channel_format")]
        return n_times if n_times * (1 + values) <= len(body) - at <= n_times * (9 + values) else None
    for _ in range(n_times):
        at += 9 if body[at : at + 1] != b"\x00" else 1
        for _ in range(n_chans):
            length, at = _varlen(body, at)
            at += length
            if length < 0 or at > len(body):
                return None
    return n_times


def _varlen(blob: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at ``at`` and the position after it; -1 where there is none."""
    size = blob[at] if at < len(blob) else 0
    stop = at + 1 + size
    if size not in (1, 4, 8) or stop > len(blob):
        return -1, at
    return int.from_bytes(blob[at + 1 : stop], "little"), stop


def _channels(stream: _Stream, entry: StreamEntry) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Return labels, types and units, one per channel; numbered where the header does not name them."""
    told = stream.info.findall("desc/channels/channel")
    told = told if len(told) == entry.n_chans else [ElementTree.Element("channel")] * entry.n_chans
    labels = [(c.findtext("label") or "").strip() or f"{i}" for i, c in enumerate(told, 1)]
    types = [(c.findtext("type") or entry.stype).strip() for c in told]
    return labels, types, [(c.findtext("unit") or "").strip() for c in told]


def _markers(stream: dict[str, Any], origin: float) -> list[Marker]:
    """Return a marker for each text, or for each code other than 0."""
    return [
        Marker(float(stamp) - origin, value if isinstance(value, str) else code_label(value))
        for stamp, values in zip(stream["time_stamps"], stream["time_series"], strict=True)
        for value in values
        if value
    ]
