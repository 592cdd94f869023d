"""Settings of small corpora of shards, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offline.data.prepare import Prepare, parse, prepare


def settings(corpus: Path, output: Path, **others: Any) -> Prepare:
    """Return settings for 200 Hz, 1-40 Hz, segments of 4 s."""
    raw = {
        "folders": [corpus],
        "stype": "EEG",
        "sfreq": 200.0,
        "dsp": [{"kind": "bandpass", "low": 1.0, "high": 40.0, "order": 2}],
        "segment_s": 4.0,
        "output": output,
    }
    return parse(raw | others)


def make(corpus: Path, output: Path, **others: Any) -> dict[str, Any]:
    """Prepare a corpus in this process."""
    return prepare(settings(corpus, output, **others), workers=1)
