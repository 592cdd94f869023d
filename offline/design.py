"""What the nets of one recipe have in common, whomever they learned from and with whatever seed.

A benchmark's cells tell it, so that what a net said is not taken for what another one would have said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.bundle import Bundle

FITTED = {"prior"}  # of a DSP step: learned from the people at hand


def design_of(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle's system, classes, input, graph and recipe, as JSON values.

    ``recipe`` is None where the bundle does not tell it: those of before do not.
    """
    manifest, readout = bundle.manifest, bundle.readout
    signal = manifest.input.model_dump(mode="json", exclude={"min_present"})
    signal["dsp"] = [{key: step[key] for key in step if key not in FITTED} for step in signal["dsp"]]
    return {
        "system": manifest.system,
        "classes": {"names": list(readout.classes), "idle": readout.idle},
        "input": signal,
        "graph": manifest.graph.model_dump(mode="json", exclude={"file", "rows"}),
        "recipe": manifest.provenance.get("design"),
    }


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return in what two designs differ, where both tell it."""
    told = [key for key in one if one[key] is not None and other.get(key) is not None]
    return [key for key in told if one[key] != other[key]]
