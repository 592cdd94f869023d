"""Whose a recording says that it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from offline.data.fingerprint import DAMAGED


def own_subject(path: Path) -> str | None:
    """Return the subject that an npz says it is of (``subject`` in its ``meta``); None: it says nothing."""
    if path.suffix.lower() != ".npz":
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
        subject = meta.get("subject")
        return None if subject in (None, "") else str(subject)
    except DAMAGED:
        return None  # reading it will say what is wrong
