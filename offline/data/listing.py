"""What a folder of recordings holds, a row per recording: what to look at before asking a bundle about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from offline.data.sources import Folder, find
from streamer.errors import RecordingError
from streamer.sources.recording import Recording

Progress = Callable[[str, int, int], None]


def recordings(
    folder: Folder, progress: Progress = lambda what, done, total: None
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return a row per recording, and those that cannot be read, each with ``why``.

    Raises
    ------
    RecordingError
        No such folder, or no recording in it.
    """
    rows, unreadable, people = [], [], find([folder], [])
    for done, person in enumerate(people):
        progress(person.name, done, len(people))
        for name, read in person.openers():
            try:
                recording, fingerprint = read()
            except RecordingError as error:
                unreadable.append({"recording": f"{person.name}/{name}", "why": str(error)})
                continue
            row = {"subject": person.name, "recording": name, **_row(recording)}
            rows.append({**row, "fingerprint": fingerprint})
    return rows, unreadable


def _row(recording: Recording) -> dict[str, Any]:
    info = recording.info
    return {
        "seconds": round(len(recording.data) / info.sfreq, 1),
        "sfreq": info.sfreq,
        "unit": info.unit,
        "channels": dict(Counter(info.ch_types)),
        "holes": len(recording.breaks),
        "markers": dict(sorted(Counter(marker.label for marker in recording.markers).items())),
    }
