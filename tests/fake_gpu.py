"""A GPU and a TensorRT that are neither: host memory for the device's, ONNX Runtime for the plan's.

Work is queued and done at `synchronize`, as on a stream: who reads a result before that reads the old one.
A captured graph repeats the very copies and addresses that it was captured with.  New memory is full of
rubbish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.backends._cuda import CaptureRefused
from engine.backends._plan import Gpu, Here
from engine.backends._trt_build import Built, Order
from streamer.errors import PlanError

CARD = Gpu(name="Fake RTX", capability="8.9", multiprocessors=46, driver="13.0")
HERE = Here("tensorrt_rtx", "1.7.1.116", CARD)
HEADER = b"vtrt" + bytes(20) + bytes([1, 7, 1, 116])
NUMPY = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(bool)": "bool"}

Graphs = Literal["captured", "refused", "empty", "copies"]


class FakeDevice:
    """Host memory and a queue, in the form of `engine.backends._cuda.Device`."""

    stream = 7

    def __init__(self, graphs: Graphs = "captured") -> None:
        self.graphs = graphs
        self.replayed = self.closed = 0
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._queue: list[Callable[[], None]] = []
        self._depth = 0

    @contextmanager
    def current(self) -> Iterator[None]:
        self._depth += 1
        yield
        self._depth -= 1

    def host(self, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        assert self._depth
        return np.zeros(tuple(shape), dtype=dtype)

    def empty(self, nbytes: int) -> int:
        assert self._depth
        block = np.full(nbytes, 0xAB, dtype=np.uint8)
        self._memory[block.ctypes.data] = block
        return int(block.ctypes.data)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        target, source = self._at(address, array.nbytes), _bytes(array)
        self.queue(lambda: np.copyto(target, source))

    def download(self, array: NDArray[Any], address: int) -> None:
        target, source = _bytes(array), self._at(address, array.nbytes)
        self.queue(lambda: np.copyto(target, source))

    def copy(self, target: int, source: int, nbytes: int) -> None:
        to, of = self._at(target, nbytes), self._at(source, nbytes)
        self.queue(lambda: np.copyto(to, of))

    def fill(self, address: int, nbytes: int, byte: int = 0) -> None:
        block = self._at(address, nbytes)
        self.queue(lambda: block.fill(byte))

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.graphs == "refused":
            raise CaptureRefused("cuda-bindings is not installed")
        self.synchronize()
        work()
        recorded, self._queue = self._queue, []
        if self.graphs == "empty":
            recorded = []
        if self.graphs == "copies":
            recorded = [one for one in recorded if not isinstance(one, Run)]

        def replay() -> None:
            self.replayed += 1
            for one in recorded:
                self.queue(one)

        return replay

    def synchronize(self) -> None:
        assert self._depth
        queue, self._queue = self._queue, []
        for one in queue:
            one()

    def close(self) -> None:
        self.closed += 1

    def queue(self, one: Callable[[], None]) -> None:
        """Put work on the stream."""
        assert self._depth, "the GPU is not current in this thread"
        self._queue.append(one)

    def _at(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        for start, block in self._memory.items():
            if start <= address and address + nbytes <= start + len(block):
                return block[address - start : address - start + nbytes]
        raise AssertionError(f"{nbytes} bytes at {address} are not the device's")


class Run:
    """A step of a plan, which a graph that was captured on another device does not hold."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def __call__(self) -> None:
        self._work()


class FakeLoaded:
    """A plan whose steps ONNX Runtime executes over the device's addresses."""

    def __init__(self, graph: bytes, device: FakeDevice) -> None:
        self._session = session(graph)
        self.device = device
        self.tensors = tensors(self._session)
        self.prepared: list[dict[str, int]] = []

    def prepare(
        self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
    ) -> Callable[[], None]:
        self.prepared.append(dict(addresses))
        rows = next(iter(shapes.values()))[0]
        binding = self._session.io_binding()
        inputs = {node.name for node in self._session.get_inputs()}
        for name, (dtype, shape) in self.tensors.items():
            sizes = [rows if n == -1 else n for n in shape]
            bind = binding.bind_input if name in inputs else binding.bind_output
            bind(name, "cpu", 0, np.dtype(dtype).type, sizes, addresses[name])
        return lambda: self.device.queue(Run(lambda: self._session.run_with_iobinding(binding)))

    def close(self) -> None:
        self.device.close()


class FakeMachine:
    """Builds "plans" that are the step graph behind a header, and runs them.

    Parameters
    ----------
    here : Here
    graphs : str
        What becomes of CUDA graphs: captured, refused, or captured on another device: empty, or copies alone.
    spoil : callable, optional
        What goes wrong with the graph between parsing and running.
    """

    def __init__(
        self,
        here: Here = HERE,
        graphs: Graphs = "captured",
        spoil: Callable[[bytes], bytes] = lambda graph: graph,
    ) -> None:
        self.here, self.graphs, self.spoil = here, graphs, spoil
        self.orders: list[Order] = []
        self.loaded: list[FakeLoaded] = []

    def build(self, order: Order) -> Built:
        self.orders.append(order)
        ends = tensors(session(order.graph))
        free = any(-1 in shape for _, shape in ends.values())
        rows = (1, order.rows, order.rows) if free else (1, 1, 1)
        return Built(HEADER + self.spoil(order.graph), ends, rows, b"times")

    def load(self, plan: bytes) -> FakeLoaded:
        if not plan.startswith(HEADER):
            raise PlanError("tensorrt_rtx 1.7.1.116 refuses the plan: without a word")
        self.loaded.append(FakeLoaded(plan[len(HEADER) :], FakeDevice(self.graphs)))
        return self.loaded[-1]


def session(graph: bytes) -> Any:
    """Return ONNX Runtime's session over a graph."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def tensors(made: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of a session's ends, -1 where a dimension is free."""
    ends = [*made.get_inputs(), *made.get_outputs()]
    return {
        node.name: (NUMPY[node.type], tuple(n if isinstance(n, int) else -1 for n in node.shape))
        for node in ends
    }


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    assert array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8)
