"""Models on the state contract: one module per kind.

A model is an ``nn.Module`` with

``init_state(batch) -> state``
    A nested tuple of tensors, batch first, all zeros.
``forward(x, state) -> (outputs, state)``
    ``x`` of shape (B, C, T), T a multiple of ``hop``; every output has shape (B, T / hop, ...).
``hop``, ``left_context``, ``delay``
    Samples at the model's rate: consumed per frame; seen before the hop at most; lag of the output.

Offline is one long chunk and live is many short ones: the outputs are the same.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any


def kinds() -> dict[str, ModuleType]:
    """Return the modules that hold a model (they have a ``Config``), by kind."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in found.items() if hasattr(module, "Config")}


def left_context(config: Any) -> int:
    """Return the samples before a hop that a model of this config sees.

    A config that knows is not built for it: that may take a library or weights that are not here.
    """
    known = getattr(config, "left_context", None)
    return int(config.build().left_context if known is None else known)
