"""The TensorRT of this machine: builds plans, and runs them on its GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from engine.backends._cuda import Device, PycudaDevice
from engine.backends._plan import Gpu, Here, Tensors
from engine.backends._trt_build import Built, Order, build, dtype_of, last_words, library, logger, made
from streamer.errors import PlanError


class Loaded(Protocol):
    """A plan on the GPU."""

    device: Device
    tensors: Tensors

    def prepare(
        self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
    ) -> Callable[[], None]:
        """Return what queues one step over these addresses on the device's stream.

        Parameters
        ----------
        addresses : mapping
            Device address of every input and output.
        shapes : mapping
            Shape of every input.
        """

    def close(self) -> None:
        """Free the plan and its device; may be called twice."""


class Machine(Protocol):
    """What builds plans and runs them."""

    here: Here

    def build(self, order: Order) -> Built:
        """Build a plan; `PlanError` with TensorRT's words where it does not."""

    def load(self, plan: bytes) -> Loaded:
        """Put a plan on the GPU; `PlanError` where TensorRT refuses it."""


class ThisMachine:
    """The TensorRT that is installed.

    Parameters
    ----------
    gpu : Gpu or None
        What its driver says of the GPU, if there is one.

    Raises
    ------
    MissingDependency
        No TensorRT that fits.
    """

    def __init__(self, gpu: Gpu | None) -> None:
        self._trt = library(with_gpu=gpu is not None)
        self.here = Here(self._trt.__name__, self._trt.__version__, gpu)

    def build(self, order: Order) -> Built:
        """Build a plan."""
        return build(self._trt, order)

    def load(self, plan: bytes) -> Loaded:
        """Put a plan on the GPU."""
        if self.here.gpu is None:
            raise PlanError("A plan runs on an NVIDIA GPU, and there is none here.")
        return Engine(self._trt, plan, PycudaDevice())


class Engine:
    """A plan that TensorRT has taken, one execution context per set of addresses.

    Runtime and logger outlive what they made.
    """

    def __init__(self, trt: Any, plan: bytes, device: Device) -> None:
        self._trt, self.device = trt, device
        self._log = logger(trt)
        self._log.lines.clear()
        self._contexts: list[Any] = []
        try:
            with device.current():
                self._runtime = made(trt, lambda: trt.Runtime(self._log), "a runtime")
                self._engine = made(trt, lambda: self._runtime.deserialize_cuda_engine(plan), "an engine")
        except PlanError:
            device.close()
            raise
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self.tensors: Tensors = {
            name: (dtype_of(self._engine.get_tensor_dtype(name)), tuple(self._engine.get_tensor_shape(name)))
            for name in names
        }

    def prepare(
        self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
    ) -> Callable[[], None]:
        """Return what queues one step over these addresses."""
        context = self._engine.create_execution_context()
        if context is None:
            raise self._refused("gives no execution context")
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise self._refused(f"does not take {name!r} of shape {shape}")
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise self._refused(f"takes no address for {name!r}")
        if unknown := context.infer_shapes():
            raise self._refused(f"does not know the shapes of {', '.join(unknown)}")
        self._contexts.append(context)
        stream = self.device.stream

        def queue() -> None:
            if not context.execute_async_v3(stream):
                raise self._refused("does not run a step")

        return queue

    def close(self) -> None:
        """Free contexts, plan and device, in that order."""
        with self.device.current():
            self._contexts, self._engine, self._runtime = [], None, None
        self.device.close()

    def _refused(self, what: str) -> PlanError:
        return PlanError(f"{self._trt.__name__} {self._trt.__version__} {what}: {last_words(self._trt)}")
