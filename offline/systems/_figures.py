"""Figures collected over validation batches."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Figures:
    """Means over rows, or over whatever is counted."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add each element of the tensors, of any shape."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.detach().double().sum())
            self._counts[name] = self._counts.get(name, 0) + value.numel()

    def means(self) -> dict[str, float]:
        """Return the mean of everything added, by name; 0 where nothing was."""
        return {name: total / max(self._counts[name], 1) for name, total in self._sums.items()}
