"""The running model: the one owner of state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import Arrays, Backend, Buffers


class Runner:
    """Steps a compiled graph and keeps its state.

    Two sets of state buffers are allocated once; each step reads one and writes the other.

    Attributes
    ----------
    input : ndarray, shape (1, C, hop), float32
        Write the hop here, then call `step`.
    """

    def __init__(self, backend: Backend) -> None:
        graph = backend.graph
        self.graph = graph
        self.input: NDArray[np.float32] = np.zeros(graph.input.shape, dtype=np.float32)
        self._outputs: Arrays = {t.name: np.zeros(t.shape, dtype=t.dtype) for t in graph.outputs}
        self._sets = [[np.zeros(s.shape, dtype=s.dtype) for s in graph.state] for _ in range(2)]
        self._steps = [backend.bind(self._buffers(source)) for source in (0, 1)]
        self._now = 0

    def _buffers(self, source: int) -> Buffers:
        """Return the buffers of a step that reads state set ``source`` and writes the other one."""
        state_in = {s.input: a for s, a in zip(self.graph.state, self._sets[source], strict=True)}
        state_out = {s.output: a for s, a in zip(self.graph.state, self._sets[1 - source], strict=True)}
        return Buffers(self.input, state_in, self._outputs, state_out)

    def step(self, hold: Sequence[int] = ()) -> Arrays:
        """Run one hop over `input`; rows in ``hold`` keep their state.

        Returns
        -------
        dict of str to ndarray
            The outputs, as views that the next step overwrites.
        """
        self._steps[self._now]()
        for row in hold:
            for kept, moved in zip(self._sets[self._now], self._sets[1 - self._now], strict=True):
                moved[row] = kept[row]
        self._now = 1 - self._now
        return self._outputs

    def warm_up(self, steps: int = 3) -> None:
        """Run some steps so that the first real one is not slow, then reset."""
        for _ in range(steps):
            self.step()
        self.reset()

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """Set the state, or that of some rows, to zero: the next hop is treated as the first one."""
        for array in self._sets[self._now]:
            array[... if rows is None else list(rows)] = 0

    def snapshot(self) -> list[NDArray[Any]]:
        """Return a copy of the state."""
        return [array.copy() for array in self._sets[self._now]]

    def restore(self, state: list[NDArray[Any]]) -> None:
        """Go back to a state that `snapshot` returned."""
        for array, saved in zip(self._sets[self._now], state, strict=True):
            np.copyto(array, saved, casting="no")
