"""The GPU: what its driver says of it, and memory, copies and CUDA graphs on one stream of it.

The driver is asked first, and by itself: a TensorRT object that is made without one may take the process
down.  Memory comes from pycuda over the device's *primary* context, which every other CUDA library in the
process shares (`pycuda.autoinit` would make one of its own).  pycuda has no CUDA graphs: those are captured
by cuda-bindings on the same stream, where it is installed.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.backends._plan import Gpu
from streamer.errors import MissingDependency, PlanError

MULTIPROCESSORS, CAPABILITY_MAJOR, CAPABILITY_MINOR = (
    16,
    75,
    76,
)  # CUdevice_attribute; part of the driver's ABI
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: work of others on the default stream does not hold this one up
POISON = 0xFF  # NaN in float32, -1 in int64


class Device(Protocol):
    """Memory and one stream of a GPU.  Copies are queued on the stream, `synchronize` waits for them.

    Addresses are integers.  Every call but `current` and `close` belongs inside ``with device.current():``,
    in whichever thread.
    """

    stream: int

    def current(self) -> AbstractContextManager[None]:
        """Make the GPU current in this thread."""

    def host(self, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        """Return a pinned array of zeros in host memory."""

    def empty(self, nbytes: int) -> int:
        """Return the address of so many bytes on the device."""

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the device; it must live until `synchronize`."""

    def download(self, array: NDArray[Any], address: int) -> None:
        """Fill a contiguous array from the device; it is filled after `synchronize`."""

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy from the device to the device."""

    def fill(self, address: int, nbytes: int, byte: int = 0) -> None:
        """Set every byte."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what ``work`` queues as a graph; return what queues all of it at once.

        Raises
        ------
        CaptureRefused
            There are no CUDA graphs here, or this work cannot be captured; the message says why.
        """

    def synchronize(self) -> None:
        """Wait until everything that was queued is done."""

    def close(self) -> None:
        """Free all of it; may be called twice."""


class CaptureRefused(Exception):
    """Work that cannot become a CUDA graph: it is queued step by step instead."""


def driver() -> Any | None:
    """Return the NVIDIA driver's library, started; None where there is none that works."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return None
    return library if library.cuInit(0) == 0 else None


def gpu_count(library: Any | None) -> int:
    """Return how many GPUs a driver has."""
    count = ctypes.c_int(0)
    if library is None or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def gpu(library: Any | None) -> Gpu | None:
    """Return what a driver says of its first GPU; None where it has none."""
    if library is None or gpu_count(library) == 0:
        return None
    handle, version, name = ctypes.c_int(0), ctypes.c_int(0), ctypes.create_string_buffer(256)
    answers = [
        library.cuDeviceGet(ctypes.byref(handle), 0),
        library.cuDeviceGetName(name, len(name), handle),
        library.cuDriverGetVersion(ctypes.byref(version)),
    ]
    facts = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR, MULTIPROCESSORS):
        value = ctypes.c_int(0)
        answers.append(library.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle))
        facts.append(value.value)
    if any(answers):
        return None
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=f"{facts[0]}.{facts[1]}",
        multiprocessors=facts[2],
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


class PycudaDevice:
    """The first GPU, through pycuda.

    Raises
    ------
    MissingDependency
        pycuda is not installed, or does not find the driver.
    """

    def __init__(self) -> None:
        self._cuda = _pycuda()
        self._context = _primary_context()
        self._memory: list[Any] = []
        with self.current():
            self._stream: Any = self._cuda.Stream(NON_BLOCKING)
        self.stream = int(self._stream.handle)
        self._graphs: list[Any] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the primary context, and pop it: the stack is the thread's own, and must end up empty."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def host(self, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        """Return a pinned array of zeros."""
        array: NDArray[Any] = self._cuda.pagelocked_empty(tuple(shape), np.dtype(dtype))
        array.fill(0)
        return array

    def empty(self, nbytes: int) -> int:
        """Return the address of so many bytes on the device."""
        allocation = self._cuda.mem_alloc(nbytes)
        self._memory.append(allocation)
        return int(allocation)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queue a copy to the device."""
        self._cuda.memcpy_htod_async(address, array, self._stream)

    def download(self, array: NDArray[Any], address: int) -> None:
        """Queue a copy from the device."""
        self._cuda.memcpy_dtoh_async(array, address, self._stream)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy on the device."""
        self._cuda.memcpy_dtod_async(target, source, nbytes, self._stream)

    def fill(self, address: int, nbytes: int, byte: int = 0) -> None:
        """Queue a fill."""
        self._cuda.memset_d8_async(address, byte, nbytes, self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture on this stream, this thread alone: another thread's CUDA work goes on unharmed."""
        try:
            runtime = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise CaptureRefused("cuda-bindings is not installed") from error
        self.synchronize()
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _ask(runtime, runtime.cudaStreamBeginCapture(self.stream, mode))
        try:
            work()
        except (PlanError, self._cuda.Error) as error:
            runtime.cudaStreamEndCapture(self.stream)  # else the stream takes no work ever again
            raise CaptureRefused(str(error)) from error
        (recorded,) = _ask(runtime, runtime.cudaStreamEndCapture(self.stream))
        (graph,) = _ask(runtime, runtime.cudaGraphInstantiate(recorded, 0))
        _ask(runtime, runtime.cudaGraphDestroy(recorded))
        self._graphs.append(lambda: runtime.cudaGraphExecDestroy(graph))

        def replay() -> None:
            (status,) = runtime.cudaGraphLaunch(graph, self.stream)
            if status != runtime.cudaError_t.cudaSuccess:
                raise PlanError(f"the CUDA graph does not start: {status.name}.")

        return replay

    def synchronize(self) -> None:
        """Wait for the stream; the GIL is released meanwhile."""
        self._stream.synchronize()

    def close(self) -> None:
        """Free graphs, memory and stream, in that order; the context belongs to the whole process."""
        if self._stream is None:
            return
        with self.current():
            self._stream.synchronize()
            for destroy in self._graphs:
                destroy()
            for allocation in self._memory:
                allocation.free()
            self._graphs, self._memory, self._stream = [], [], None


def _ask(runtime: Any, answer: Sequence[Any]) -> Sequence[Any]:
    """Return what a call of the CUDA runtime gave beside its status; CaptureRefused for an error."""
    status, *rest = answer
    if status != runtime.cudaError_t.cudaSuccess:
        raise CaptureRefused(f"CUDA answers {status.name}")
    return rest


def _pycuda() -> Any:
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise MissingDependency(
            f"The TensorRT backend needs pycuda for memory on the GPU ({error}): pip install pycuda, with "
            "CUDA's headers at hand (CUDA_ROOT)."
        ) from error


@lru_cache(maxsize=1)
def _primary_context() -> Any:
    """Retain the primary context of the first GPU, once for the process, until it exits."""
    cuda = _pycuda()
    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    atexit.register(context.detach)  # its destructor would give it back as if pycuda had made it
    return context
