"""Units of samples: volts and their parts, and counts of which so many microvolts are one."""

from __future__ import annotations

import math
from typing import Literal

Unit = Literal["V", "mV", "uV"]
PER_VOLT = {"V": 1.0, "mV": 1e3, "uV": 1e6}
TOLD = (
    f"one of {', '.join(PER_VOLT)}, or how many microvolts one count is, such as 10 for the counts of a Myo"
)


def told_unit(unit: str | float) -> str:
    """Return the unit that a source block says: its name, or one count of so many microvolts."""
    return unit if isinstance(unit, str) else f"{unit!r} uV"


def per_volt(unit: str) -> float | None:
    """Return how many of this unit a volt is; None of one that is not known."""
    if unit in PER_VOLT:
        return PER_VOLT[unit]
    count, _, of = unit.partition(" ")
    try:
        microvolts = float(count)
    except ValueError:
        return None
    return PER_VOLT["uV"] / microvolts if of == "uV" and 0 < microvolts < math.inf else None
