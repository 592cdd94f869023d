"""People of the same name as somebody whom a bundle has learned from: perhaps the same, in another form.

A recording is known by its content.  The same one as EDF instead of npz is other bytes, and nothing but its
subject's name is left to tell it by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from engine.bundle import Bundle


def namesakes(bundle: Bundle, people: Iterable[str], part: str | None = None) -> list[str]:
    """Return whom of these people a bundle may have learned from, by name; sorted.

    Parameters
    ----------
    part : str, optional
        Of the training: ``train`` or ``validate``; all by default.
    """
    provenance = bundle.manifest.provenance
    listed = provenance.get("trained_on", {})
    groups = [names for key, names in listed.items() if part in (None, key)]
    learned = {str(name) for names in groups if isinstance(names, list | tuple) for name in names}
    if own := provenance.get("personal"):
        learned.add(str(own.get("subject")))
    return sorted(one for one in set(people) if any(_called(one, name) for name in learned))


def _called(person: str, name: str) -> bool:
    """Say whether somebody is called so, or as a file of theirs may be: S007R04 is S007, S010 is not S01.

    Something may stand before the name, eegmmidb_S007R04, unless the name is a number, which may be anything.
    """
    if not name[-1:].isdigit():
        return person == name
    before = r"\A" if name.isdigit() else r"(?<![^\W_])"  # no letter and no digit
    return re.search(rf"{before}{re.escape(name)}(?!\d)", person) is not None


def told_met(names: Iterable[str]) -> list[str]:
    """Say of whom all is left out since one recording of theirs was known; nothing where there is nobody."""
    if not (listed := ", ".join(sorted(names))):
        return []
    why = "since one of theirs had a part in the bundle's training"
    return [f"{listed}: left out with all recordings, {why}"]


def told(names: Sequence[str]) -> list[str]:
    """Say it; nothing where there are none."""
    if not names:
        return []
    return [
        f"{', '.join(names)}: somebody of this name was learned from; if these are the same recordings in "
        "another form, the figures are too good"
    ]
