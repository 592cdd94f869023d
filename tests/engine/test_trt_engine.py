"""What TensorRT refuses while a plan is put on the GPU and run is an error in its own words."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fake_gpu import FakeDevice

from engine.backends._trt import Engine
from engine.backends._trt_build import library, made
from streamer.errors import MissingDependency, PlanError


class Context:
    """An execution context that refuses one thing."""

    def __init__(self, refuses: str) -> None:
        self._refuses = refuses

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return self._refuses != "shape"

    def set_tensor_address(self, name: str, address: int) -> bool:
        return self._refuses != "address"

    def infer_shapes(self) -> list[str]:
        return ["y"] if self._refuses == "inference" else []

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == FakeDevice.stream
        return self._refuses != "step"


class Plan:
    """A plan of one input and one output."""

    num_io_tensors = 2

    def __init__(self, refuses: str) -> None:
        self._refuses = refuses

    def get_tensor_name(self, i: int) -> str:
        return "xy"[i]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name={"x": "FLOAT", "y": "INT64"}[name])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3)

    def create_execution_context(self) -> Context | None:
        return None if self._refuses == "context" else Context(self._refuses)


class Logger:
    """What a logger of TensorRT derives from."""

    WARNING = 2


def tensorrt(refuses: str) -> Any:
    """Return a TensorRT that loads any plan and refuses one thing, saying why."""

    def runtime(log: Any) -> Any:
        if refuses == "runtime":
            raise TypeError("pybind11::init(): factory function returned nullptr")

        def deserialize(plan: bytes) -> Plan | None:
            log.log(4, "chatter")
            log.log(1, "a version too new")
            return None if refuses == "plan" else Plan(refuses)

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    return Library(__name__="tensorrt", __version__="11.4.0.106", ILogger=Logger, Runtime=runtime)


class Library(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]  # as a module's


def test_a_plan_is_loaded_and_queued() -> None:
    """Names, dtypes and shapes are the plan's; a step is queued on the device's stream."""
    engine = Engine(tensorrt(""), b"plan", FakeDevice())
    assert engine.tensors == {"x": ("float32", (-1, 3)), "y": ("int64", (-1, 3))}
    engine.prepare({"x": 1, "y": 2}, {"x": (4, 3)})()


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        ("runtime", "does not make a runtime here: .*nullptr"),
        ("plan", "makes no engine: a version too new"),
    ],
)
def test_a_plan_that_is_not_loaded(refuses: str, said: str) -> None:
    """A null pointer and a None are errors alike, and the device is freed."""
    device = FakeDevice()
    with pytest.raises(PlanError, match=said):
        Engine(tensorrt(refuses), b"plan", device)
    assert device.closed == 1


@pytest.mark.parametrize(
    ("refuses", "said"),
    [
        ("context", "gives no execution context: a version too new"),
        ("shape", r"does not take 'x' of shape \(4, 3\)"),
        ("address", "takes no address for 'x'"),
        ("inference", "does not know the shapes of y"),
        ("step", "does not run a step"),
    ],
)
def test_a_step_that_is_refused(refuses: str, said: str) -> None:
    """Every False and None on the way to a step is an error that says which."""
    engine = Engine(tensorrt(refuses), b"plan", FakeDevice())
    with pytest.raises(PlanError, match=said):
        engine.prepare({"x": 1, "y": 2}, {"x": (4, 3)})()


@pytest.mark.parametrize(("version", "taken"), [("10.12.0.36", False), ("10.13.3.9", True), ("11.4.0", True)])
def test_old_versions_are_not_taken(monkeypatch: pytest.MonkeyPatch, version: str, taken: bool) -> None:
    """TensorRT before 10.13 is refused by its number, later ones are preferred to TensorRT-RTX."""
    found = SimpleNamespace(__name__="tensorrt", __version__=version)
    monkeypatch.setitem(sys.modules, "tensorrt", found)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    if taken:
        assert library(with_gpu=True) is found
        return
    with pytest.raises(MissingDependency, match=r"10\.12\.0\.36 is older than 10\.13"):
        library(with_gpu=True)


def test_without_a_gpu_only_rtx_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT itself needs a GPU to build, so it is not asked without one."""
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.4.0"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependency, match="tensorrt_rtx, which builds plans without a GPU"):
        library(with_gpu=False)


def test_what_is_made_is_returned() -> None:
    """Only nothing is an error."""
    assert made(tensorrt(""), lambda: 0, "a number") == 0
