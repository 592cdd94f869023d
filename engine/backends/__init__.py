"""What executes a step graph: one module per kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from streamer.components import Config

if TYPE_CHECKING:
    from engine.bundle import Bundle, Graph

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Buffers:
    """Host memory of one step: inputs are read, outputs are written, nothing else is touched.

    ``state_in`` and ``state_out`` are keyed by the graph's own tensor names.
    """

    input: NDArray[np.float32]
    state_in: Arrays
    outputs: Arrays
    state_out: Arrays


class Running(Protocol):
    """A compiled graph that is stepped hop by hop and keeps its state, wherever that lies.

    Attributes
    ----------
    input : ndarray, shape (B, C, hop), float32
        In host memory; write the hop here, then call `step`.
    """

    input: NDArray[np.float32]

    def step(self, hold: Sequence[int] = ()) -> Arrays:
        """Run one hop over `input`.

        Parameters
        ----------
        hold : sequence of int
            Rows whose state stays as it is: nothing came for them, and what is put out for them is void.

        Returns
        -------
        dict of str to ndarray
            The outputs, as views that the next step overwrites.
        """

    def warm_up(self, steps: int = 3) -> None:
        """Run some steps so that the first real one is not slow, then reset."""

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """Set the state, or that of some rows, to zero: the next hop is treated as the first one."""

    def snapshot(self) -> list[NDArray[Any]]:
        """Return a copy of the state, in the order of the manifest."""

    def restore(self, state: list[NDArray[Any]]) -> None:
        """Go back to a state that `snapshot` returned."""


class Backend(Protocol):
    """Executes a step graph over buffers that somebody else owns; a context manager.

    Over `bind` it holds no state of the stream: the same buffers give the same outputs.  `runner` is what a
    stream is run with: there the backend decides where the state lies.
    """

    graph: Graph
    name: str

    def bind(self, buffers: Buffers) -> Callable[[], None]:
        """Return a function that runs one step over these buffers.

        Raises
        ------
        ValueError
            A buffer that is missing, or whose shape, dtype or memory layout is not the graph's.
        """

    def runner(self) -> Running:
        """Return a runner over this graph, its state zero; each has a state of its own."""

    def close(self) -> None:
        """Let go of the compiled graph; may be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class BackendConfig(Config, ABC):
    """Base of the ``backend:`` blocks."""

    kind: str

    @abstractmethod
    def open(self, bundle: Bundle) -> Backend:
        """Compile the bundle's graph; `BundleError` when it is not what the manifest says."""


def check(graph: Graph, buffers: Buffers) -> None:
    """Raise ValueError unless the buffers are exactly what the graph reads and writes."""
    wanted: list[tuple[str, tuple[int, ...], str, NDArray[Any] | None]] = [
        (graph.input.name, graph.input.shape, graph.input.dtype, buffers.input)
    ]
    wanted += [(s.input, s.shape, s.dtype, buffers.state_in.get(s.input)) for s in graph.state]
    wanted += [(t.name, t.shape, t.dtype, buffers.outputs.get(t.name)) for t in graph.outputs]
    wanted += [(s.output, s.shape, s.dtype, buffers.state_out.get(s.output)) for s in graph.state]
    for name, shape, dtype, array in wanted:
        if array is None:
            raise ValueError(f"no buffer for {name!r}: expected {dtype} {shape}")
        if array.shape != shape or array.dtype != np.dtype(dtype) or not array.flags.c_contiguous:
            raise ValueError(
                f"buffer {name!r} is {array.dtype} {array.shape}; expected contiguous {dtype} {shape}"
            )
