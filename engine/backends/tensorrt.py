"""A plan of TensorRT or TensorRT-RTX on an NVIDIA GPU, the state kept there from hop to hop.

`bcistream compile` makes the plan and sees that it computes what ONNX Runtime computes; here it is only
found, checked and run.  Nothing of this has run on a GPU yet: see the README.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from engine.backends import Backend, BackendConfig, Buffers, Running, check
from engine.backends._cache import find
from engine.backends._cuda import driver, gpu
from engine.backends._device import DeviceRunner, bound
from engine.backends._plan import Precision, compare
from engine.backends._trt import Loaded, Machine, ThisMachine
from engine.backends.onnxruntime import OnnxRuntimeBackend
from streamer.errors import MissingDependency, PlanError

if TYPE_CHECKING:
    from engine.bundle import Bundle


class Config(BackendConfig):
    """Settings of the TensorRT backend.

    Attributes
    ----------
    precision : "fp32", "tf32", "fp16" or "int8"
        Which of the bundle's plans to run.
    cache : Path or None
        Folder of the plans; None: `BCISTREAM_CACHE`, or the user's own cache.
    fallback : bool
        Where there is no plan that runs here, go on with ONNX Runtime on the CPU; the report says so.
    """

    kind: Literal["tensorrt"] = "tensorrt"
    precision: Precision = "fp32"
    cache: Path | None = None
    fallback: bool = False

    def open(self, bundle: Bundle) -> Backend:
        """Load the bundle's plan; `PlanError` or `MissingDependency` where it cannot be run here."""
        try:
            return self._open(bundle)
        except (PlanError, MissingDependency) as error:
            if not self.fallback:
                raise
            backend = OnnxRuntimeBackend(bundle)
            backend.name += f", instead of TensorRT: {str(error).splitlines()[0]}"
            return backend

    def _open(self, bundle: Bundle) -> TensorRTBackend:
        where = machine(to_run=True)
        here = where.here
        plan, beside = find(bundle, self.precision, here, self.cache)
        assert here.gpu is not None
        name = f"{here.flavour} {here.version}, {here.gpu.name}, {beside.precision}"
        return TensorRTBackend(bundle, where.load(plan), name)


class TensorRTBackend:
    """A step graph that TensorRT compiled, on the GPU.

    Parameters
    ----------
    bundle : Bundle
        With the number of rows that is stepped.
    loaded : Loaded
        Its plan; closed with the backend.
    name : str
        What runs it where, for people.

    Raises
    ------
    PlanError
        The plan's tensors are not those of the manifest.
    """

    def __init__(self, bundle: Bundle, loaded: Loaded, name: str) -> None:
        self.graph = bundle.manifest.graph
        self.name = name
        self._loaded: Loaded | None = loaded
        try:
            compare(loaded.tensors, self.graph, bundle.label)
        except PlanError:
            self.close()
            raise

    def bind(self, buffers: Buffers) -> Callable[[], None]:
        """Return a function that runs one step over these buffers, which lie in host memory."""
        check(self.graph, buffers)
        assert self._loaded is not None
        return bound(self.graph, self._loaded, buffers)

    def runner(self) -> Running:
        """Return a runner whose state stays on the device."""
        assert self._loaded is not None
        made = DeviceRunner(self.graph, self._loaded)
        self.name = f"{self.name.split(' (')[0]} ({made.how})"
        return made

    def close(self) -> None:
        """Let go of the plan and of all memory on the device."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def machine(to_run: bool) -> Machine:
    """Return this machine's TensorRT; tests put another in its place.

    Raises
    ------
    PlanError
        Plans are to be run, and there is no GPU.
    MissingDependency
        There is no TensorRT.
    """
    found = gpu(driver())  # before any object of TensorRT
    if to_run and found is None:
        raise PlanError(
            "The TensorRT backend needs an NVIDIA GPU, and there is none here. Leave out `backend:` to run "
            "on the CPU, or set `fallback: true`."
        )
    return ThisMachine(found)
