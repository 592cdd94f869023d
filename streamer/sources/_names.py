"""Channel names, types and units as files write them, brought to the project's words."""

from __future__ import annotations

import re
from collections.abc import Sequence

# The 10-05 system as a grammar; its 343 names are spelled so, whatever the capitals in the file.
_REGIONS = "AFp|AFF|AF|A|Fp|FFT|FFC|FTT|FCC|FT|FC|F|TTP|TPP|TP|T|CCP|CPP|CP|C|PPO|POO|PO|P|OI|O|I|M|N"
_SPELLING = {region.lower(): region for region in _REGIONS.split("|")}
_TEN_05 = re.compile(rf"({_REGIONS})(z|10|[1-9])(h?)", re.IGNORECASE)
_PREFIX = re.compile(r"^(EEG|EMG|EOG|ECG|EKG)[ :_-]+(?=.*[A-Z])", re.IGNORECASE)
_REFERENCE = re.compile(r"-(ref|le|ar|avg)$", re.IGNORECASE)  # a suffix that names no second electrode

# In order: the first that is found in a name says its type.  "other" is no electrode: it is left out.
_TYPE_PATTERNS = (
    (re.compile(r"^(status|stim?\b.*|sti ?\d+|.*trig.*|(event )?markers?\d*|events?)$", re.I), "stim"),
    (re.compile(r"^(acc|gyro|mag|counter|sample.?(index|counter)|battery|temp|resp|sp?a?o2)", re.I), "other"),
    (re.compile(r"eog", re.I), "eog"),
    (re.compile(r"ecg|ekg", re.I), "ecg"),
    (re.compile(r"emg", re.I), "emg"),
    (re.compile(r"aux", re.I), "misc"),
)
_DECLARED = {
    **{word: word for word in ("emg", "eog", "ecg", "stim", "misc", "seeg", "ecog", "dbs", "bio")},
    **dict.fromkeys(("trigger", "triggers", "marker", "markers", "event", "events"), "stim"),
    "aux": "misc",
    "ekg": "ecg",
}
_BY_NAME = ("", "eeg", "exg", "signal", "data")  # says little: recorders write it on every channel
_TO_MICROVOLTS = {
    **dict.fromkeys(("nv", "nanovolt", "nanovolts"), 1e-3),
    # micro sign, Greek mu, and the Greek mu of a Japanese code page read as Latin-1
    **dict.fromkeys(("uv", "µv", "μv", "\x83êv", "microvolt", "microvolts"), 1.0),
    **dict.fromkeys(("mv", "millivolt", "millivolts"), 1e3),
    **dict.fromkeys(("v", "volt", "volts"), 1e6),
}


def tidy_name(label: str) -> str:
    """Return the electrode's name in standard spelling, or the label without what is not its name.

    ``"Fc5."`` → ``"FC5"``, ``"EEG FP1-Ref"`` → ``"Fp1"``; a bipolar ``"Fpz-Cz"`` stays, and so does an old
    ``"T3"``: that it is today's T7 is for `streamer.montage` to know.
    """
    name = _PREFIX.sub("", label.strip(), count=1)
    name = _REFERENCE.sub("", name).rstrip(".").strip() or label.strip()
    match = _TEN_05.fullmatch(name)
    if match is None:
        return name
    region, number, half = match.groups()
    return _SPELLING[region.lower()] + number.lower() + half.lower()


def channel_type(label: str, declared: str = "") -> str:
    """Return the channel's type in MNE's words, or ``"other"`` for what is no electrode.

    ``declared`` is what the file says; a plain "EEG" there gives way to a name such as ``"VEOG"``.
    """
    declared = declared.strip().lower()
    if declared not in _BY_NAME:
        return _DECLARED.get(declared, "other")
    for pattern, ch_type in _TYPE_PATTERNS:
        if pattern.search(label.strip()):
            return ch_type
    return "eeg"


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names with a running number on every repetition: F1, F2, F1-1."""
    seen: dict[str, int] = {}
    unique: list[str] = []
    for name in names:
        numbered = name
        while numbered in seen:
            seen[name] += 1
            numbered = f"{name}-{seen[name]}"
        seen[numbered] = 0
        unique.append(numbered)
    return unique


def to_microvolts(unit: str) -> float | None:
    """Return the factor from ``unit`` to µV, or None where it is no voltage."""
    return _TO_MICROVOLTS.get(unit.strip().lower())
