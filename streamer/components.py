"""How a folder of components becomes a YAML vocabulary.

A *slot* is a package (``streamer.sources``, ``streamer.dsp``, ``streamer.sinks``).  Each of its modules is
one component, the module's name is its ``kind``, and the module holds a class ``Config``.  `union` turns the
slot into a pydantic union discriminated by ``kind``, so a new component is configured by existing.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Base of all settings: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def modules(slot: str) -> dict[str, ModuleType]:
    """Return the components of a slot by kind; modules starting with ``_`` are helpers and left out."""
    package = importlib.import_module(slot)
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
    return {name: importlib.import_module(f"{slot}.{name}") for name in names}


def union(slot: str) -> Any:
    """Return the slot's configs as one pydantic type, discriminated by ``kind``."""
    configs = tuple(module.Config for module in modules(slot).values())
    if len(configs) == 1:
        return configs[0]
    return Annotated[Union[configs], Field(discriminator="kind")]  # noqa: UP007 - built at run time
