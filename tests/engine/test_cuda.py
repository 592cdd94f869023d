"""Memory, copies and graphs of a GPU through stand-ins of pycuda and cuda-bindings."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.backends import _cuda
from engine.backends._cuda import CaptureRefused, PycudaDevice
from streamer.errors import MissingDependency, PlanError

STREAM = 0x5EED


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorStreamCaptureUnsupported = 900


class Pycuda:
    """pycuda's driver over host memory, with the names and arguments that pycuda 2026.1 has."""

    class Error(Exception):
        """What every error of pycuda is."""

    def __init__(self) -> None:
        self.depth = 0
        self.log: list[str] = []
        self.Context = SimpleNamespace(push=self.push, pop=self.pop, detach=lambda: None)

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1

    def init(self) -> None:
        self.log.append("init")

    def Device(self, index: int) -> Any:
        return SimpleNamespace(retain_primary_context=lambda: self.Context)

    def Stream(self, flags: int) -> Any:
        assert self.depth, "a stream is made where its context is current"
        assert flags == 1, "the stream must not wait for the default one"
        return SimpleNamespace(handle=STREAM, synchronize=lambda: self.log.append("synchronize"))

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.full(shape, 9, dtype=dtype)

    def mem_alloc(self, nbytes: int) -> Any:
        block = np.full(nbytes, 0xAB, dtype=np.uint8)
        return Allocation(block, self.log)

    def memcpy_htod_async(self, dest: int, src: Any, stream: Any) -> None:
        assert self.depth
        assert stream.handle == STREAM
        ctypes.memmove(dest, src.ctypes.data, src.nbytes)

    def memcpy_dtoh_async(self, dest: Any, src: int, stream: Any) -> None:
        assert self.depth
        assert stream.handle == STREAM
        ctypes.memmove(dest.ctypes.data, src, dest.nbytes)

    def memcpy_dtod_async(self, dest: int, src: int, size: int, stream: Any) -> None:
        assert stream.handle == STREAM
        ctypes.memmove(dest, src, size)

    def memset_d8_async(self, dest: int, data: int, size: int, stream: Any) -> None:
        assert stream.handle == STREAM
        ctypes.memset(dest, data, size)


class Allocation:
    def __init__(self, block: Any, log: list[str]) -> None:
        self._block, self._log = block, log

    def __int__(self) -> int:
        return int(self._block.ctypes.data)

    def free(self) -> None:
        self._log.append("free")


class Runtime:
    """The calls of cuda-bindings that capture a graph; ``fails`` names the one that does not succeed."""

    cudaError_t = Status
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread local")

    def __init__(self, log: list[str], fails: str = "") -> None:
        self._log, self._fails = log, fails

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        def call(*args: Any) -> tuple[Any, ...]:
            self._log.append(name)
            if name == "cudaStreamBeginCapture":
                assert args == (STREAM, "thread local")
            status = Status.cudaErrorStreamCaptureUnsupported if name == self._fails else Status.cudaSuccess
            made = {"cudaStreamEndCapture": ("graph",), "cudaGraphInstantiate": ("executable",)}
            return (status, *made.get(name, ()))

        return call


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> Pycuda:
    fake = Pycuda()
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=fake))
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setattr(_cuda.atexit, "register", lambda work: None)
    _cuda._primary_context.cache_clear()
    monkeypatch.setattr(_cuda, "_primary_context", _cuda._primary_context.__wrapped__)
    return fake


def put(monkeypatch: pytest.MonkeyPatch, runtime: Runtime | None) -> None:
    """Put a stand-in of cuda-bindings there, or nothing."""
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)


def test_copies_go_there_and_back(pycuda: Pycuda) -> None:
    """What is uploaded, moved and downloaded is what comes back; filled bytes are filled."""
    device = PycudaDevice()
    with device.current():
        array = device.host((2, 3), "float32")
        assert not array.any()
        array[:] = np.arange(6).reshape(2, 3)
        a, b = device.empty(24), device.empty(24)
        device.fill(b, 24)
        device.upload(a, array)
        device.copy(b + 12, a, 12)
        got = device.host((2, 3), "float32")
        device.download(got, b)
        device.synchronize()
    assert np.array_equal(got, [[0, 0, 0], [0, 1, 2]])
    assert pycuda.depth == 0


def test_everything_is_freed_once(pycuda: Pycuda) -> None:
    """Closing waits for the stream, frees every block, and does nothing the second time."""
    device = PycudaDevice()
    with device.current():
        device.empty(4)
        device.empty(4)
    device.close()
    device.close()
    assert pycuda.log == ["init", "synchronize", "free", "free"]
    assert pycuda.depth == 0


def test_a_context_is_popped_when_the_work_fails(pycuda: Pycuda) -> None:
    """Whatever is raised inside, this thread's stack of contexts is empty after it: pycuda aborts else."""
    device = PycudaDevice()
    with pytest.raises(ZeroDivisionError), device.current():
        raise ZeroDivisionError
    assert pycuda.depth == 0


def test_a_graph_is_captured_on_the_stream_and_launched(
    monkeypatch: pytest.MonkeyPatch, pycuda: Pycuda
) -> None:
    """Begin, the work, end, instantiate, drop the recording; a replay is one launch, closing destroys."""
    device, log = PycudaDevice(), pycuda.log
    put(monkeypatch, Runtime(log))
    with device.current():
        replay = device.capture(lambda: log.append("work"))
        replay()
    device.close()
    assert log == [
        "init", "synchronize", "cudaStreamBeginCapture", "work", "cudaStreamEndCapture",
        "cudaGraphInstantiate", "cudaGraphDestroy", "cudaGraphLaunch", "synchronize", "cudaGraphExecDestroy",
    ]  # fmt: skip


@pytest.mark.parametrize("fails", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_a_capture_that_fails_is_refused(monkeypatch: pytest.MonkeyPatch, pycuda: Pycuda, fails: str) -> None:
    """An error of CUDA's at any point of it is a refusal with CUDA's name for it."""
    put(monkeypatch, Runtime(pycuda.log, fails))
    device = PycudaDevice()
    with device.current(), pytest.raises(CaptureRefused, match="cudaErrorStreamCaptureUnsupported"):
        device.capture(lambda: None)


@pytest.mark.parametrize("error", [PlanError("does not run a step"), Pycuda.Error("not permitted")])
def test_work_that_fails_ends_the_capture(
    monkeypatch: pytest.MonkeyPatch, pycuda: Pycuda, error: Exception
) -> None:
    """The stream is given back to ordinary work, and the reason is told."""

    def work() -> None:
        raise error

    put(monkeypatch, Runtime(pycuda.log))
    device = PycudaDevice()
    with device.current(), pytest.raises(CaptureRefused, match=str(error)):
        device.capture(work)
    assert pycuda.log[-1] == "cudaStreamEndCapture"


def test_a_graph_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, pycuda: Pycuda) -> None:
    """A launch that CUDA refuses ends the run with CUDA's name for it."""
    put(monkeypatch, Runtime(pycuda.log, "cudaGraphLaunch"))
    device = PycudaDevice()
    with device.current():
        replay = device.capture(lambda: None)
        with pytest.raises(PlanError, match="does not start: cudaErrorStreamCaptureUnsupported"):
            replay()


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, pycuda: Pycuda) -> None:
    """Without cuda-bindings there is no graph; without pycuda no device, and how to get it is said."""
    put(monkeypatch, None)
    device = PycudaDevice()
    with device.current(), pytest.raises(CaptureRefused, match="cuda-bindings is not installed"):
        device.capture(lambda: None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingDependency, match="pip install pycuda"):
        PycudaDevice()
