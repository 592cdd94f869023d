"""A plan stepped over memory of the device: the state never leaves it.

Two sets of state buffers lie on the device; a step reads one and writes the other.  A plan's addresses are
frozen once a CUDA graph holds them, so there is one set of addresses, and one graph, for each parity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import Arrays, Buffers
from engine.backends._cuda import POISON, CaptureRefused
from engine.backends._trt import Loaded

if TYPE_CHECKING:
    from engine.bundle import Graph

ITEM = {"float32": 4, "int64": 8, "bool": 1}
GRAPH_TOLERANCE = 1e-2  # kernels that add in no fixed order differ; what a graph did not write is NaN


class DeviceRunner:
    """Steps a plan and keeps its state on the device; a `Running`.

    Parameters
    ----------
    graph : Graph
        With the number of rows that is stepped.
    loaded : Loaded
        The plan.

    Attributes
    ----------
    input : ndarray, shape (B, C, hop), float32
        Pinned host memory: write the hop here, then call `step`.
    how : str
        "CUDA graph", or why there is none.
    """

    def __init__(self, graph: Graph, loaded: Loaded) -> None:
        self.graph = graph
        self._device = device = loaded.device
        self._now = 0
        with device.current():
            self.input: NDArray[np.float32] = device.host(graph.input.shape, graph.input.dtype)
            self._outputs: Arrays = {t.name: device.host(t.shape, t.dtype) for t in graph.outputs}
            self._x = device.empty(self.input.nbytes)
            self._y = {name: device.empty(array.nbytes) for name, array in self._outputs.items()}
            self._sizes = [int(np.prod(s.shape)) * ITEM[s.dtype] for s in graph.state]
            self._sets = [[device.empty(size) for size in self._sizes] for _ in range(2)]
            self._steps = [self._work(loaded, source) for source in (0, 1)]
            self._zero(0)
            self._zero(1)
            device.synchronize()
            self.how = self._capture()

    def step(self, hold: Sequence[int] = ()) -> Arrays:
        """Run one hop over `input`; rows in ``hold`` keep their state.

        Returns
        -------
        dict of str to ndarray
            The outputs, as views that the next step overwrites.
        """
        source, target = self._sets[self._now], self._sets[1 - self._now]
        with self._device.current():
            self._steps[self._now]()
            for row in hold:
                for old, new, (start, size) in zip(source, target, self._spans(row), strict=True):
                    self._device.copy(new + start, old + start, size)
            self._device.synchronize()
        self._now = 1 - self._now
        return self._outputs

    def warm_up(self, steps: int = 3) -> None:
        """Run some steps so that the first real one is not slow, then reset."""
        for _ in range(steps):
            self.step()
        self.reset()

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """Set the state, or that of some rows, to zero: the next hop is treated as the first one."""
        with self._device.current():
            if rows is None:
                self._zero(self._now)
            else:
                for row in rows:
                    for address, (start, size) in zip(self._sets[self._now], self._spans(row), strict=True):
                        self._device.fill(address + start, size)
            self._device.synchronize()

    def snapshot(self) -> list[NDArray[Any]]:
        """Return a copy of the state."""
        state = [np.empty(s.shape, dtype=s.dtype) for s in self.graph.state]
        with self._device.current():
            for array, address in zip(state, self._sets[self._now], strict=True):
                self._device.download(array, address)
            self._device.synchronize()
        return state

    def restore(self, state: list[NDArray[Any]]) -> None:
        """Go back to a state that `snapshot` returned."""
        ready = [np.empty(s.shape, dtype=s.dtype) for s in self.graph.state]
        for array, saved in zip(ready, state, strict=True):
            np.copyto(array, saved, casting="no")
        with self._device.current():
            for array, address in zip(ready, self._sets[self._now], strict=True):
                self._device.upload(address, array)
            self._device.synchronize()

    def _work(self, loaded: Loaded, source: int) -> Callable[[], None]:
        """Return what queues a step that reads state set ``source`` and writes the other one."""
        graph, device = self.graph, self._device
        addresses = {graph.input.name: self._x, **self._y}
        for state, old, new in zip(graph.state, self._sets[source], self._sets[1 - source], strict=True):
            addresses |= {state.input: old, state.output: new}
        run = loaded.prepare(addresses, input_shapes(graph))

        def work() -> None:
            device.upload(self._x, self.input)
            run()
            for name, address in self._y.items():
                device.download(self._outputs[name], address)

        return work

    def _capture(self) -> str:
        """Turn both steps into CUDA graphs and see that these do the same; say how steps are run."""
        plain = [
            self._tried(parity, self._steps[parity]) for parity in (0, 1)
        ]  # a capture wants a step before it
        try:
            replays = [self._device.capture(work) for work in self._steps]
        except CaptureRefused as error:
            return f"no CUDA graph: {error}"
        for parity, replay in enumerate(replays):
            if not _same(plain[parity], self._tried(parity, replay)):
                return "no CUDA graph: it did not compute what the steps by themselves do"
        self._steps = replays
        return "CUDA graph"

    def _tried(self, parity: int, step: Callable[[], None]) -> list[NDArray[Any]]:
        """Run one step on a ramp from a zero state; return outputs and state.  Leaves input and state zero.

        What it should write is poisoned first: a graph captured elsewhere is empty, and does not say so.
        """
        device, graph = self._device, self.graph
        self.input[:] = np.linspace(-1, 1, self.input.size, dtype=np.float32).reshape(self.input.shape)
        for name, address in self._y.items():
            device.fill(address, self._outputs[name].nbytes, POISON)
            self._outputs[name].reshape(-1).view(np.uint8).fill(POISON)
        for address, size in zip(self._sets[1 - parity], self._sizes, strict=True):
            device.fill(address, size, POISON)
        self._zero(parity)
        step()
        state = [np.empty(s.shape, dtype=s.dtype) for s in graph.state]
        for array, address in zip(state, self._sets[1 - parity], strict=True):
            device.download(array, address)
        device.synchronize()
        self._zero(1 - parity)
        device.synchronize()
        self.input.fill(0)
        return [*(array.copy() for array in self._outputs.values()), *state]

    def _zero(self, which: int) -> None:
        for address, size in zip(self._sets[which], self._sizes, strict=True):
            self._device.fill(address, size)

    def _spans(self, row: int) -> list[tuple[int, int]]:
        """Return where a row begins in each state tensor, and its size, bytes; IndexError for no row."""
        strides = [size // s.shape[0] for size, s in zip(self._sizes, self.graph.state, strict=True)]
        return [
            (range(s.shape[0])[row] * stride, stride)
            for stride, s in zip(strides, self.graph.state, strict=True)
        ]


def bound(graph: Graph, loaded: Loaded, buffers: Buffers) -> Callable[[], None]:
    """Return a function that runs one step over buffers in host memory, copying all of them."""
    device = loaded.device
    reads = {graph.input.name: buffers.input, **buffers.state_in}
    writes = {**buffers.outputs, **buffers.state_out}
    with device.current():
        addresses = {name: device.empty(array.nbytes) for name, array in (reads | writes).items()}
        run = loaded.prepare(addresses, input_shapes(graph))

    def step() -> None:
        with device.current():
            for name, array in reads.items():
                device.upload(addresses[name], array)
            run()
            for name, array in writes.items():
                device.download(array, addresses[name])
            device.synchronize()

    return step


def input_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Return the shape of every input of a step graph."""
    return {graph.input.name: graph.input.shape} | {s.input: s.shape for s in graph.state}


def _same(ones: list[NDArray[Any]], others: list[NDArray[Any]]) -> bool:
    pairs = zip(ones, others, strict=True)
    return all(np.allclose(a, b, rtol=GRAPH_TOLERANCE, atol=1e-3, equal_nan=False) for a, b in pairs)
