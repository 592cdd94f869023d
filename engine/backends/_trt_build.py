"""From a step graph to a plan: parse, profile, build, with TensorRT or TensorRT-RTX.

One code path for `tensorrt` 10.13 to 11 and `tensorrt_rtx`, by names alone: the integers behind them moved
between versions.  Networks are strongly typed, so precision is the graph's, see `engine.precision`.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from engine.backends._plan import Tensors
from streamer.errors import MissingDependency, PlanError

LIBRARIES = ("tensorrt", "tensorrt_rtx")
OLDEST = (10, 13)  # of tensorrt
WORKSPACE_BYTES = 1 << 30
DTYPES = {"FLOAT": "float32", "INT64": "int64", "BOOL": "bool"}
FIXED = (1, 1, 1)


@dataclass(frozen=True, slots=True)
class Order:
    """What to build.

    Attributes
    ----------
    graph : bytes
        ONNX; in the precision that is wanted, with float32 edges.
    rows : int
        The greatest number of rows; taken where the graph's first dimension is free.
    tf32 : bool
        Let float32 products be rounded to 10 bits: faster, and enough to change codes.
    capability : str or None
        Compute capability to build for, such as "8.9"; None: that of the GPU here.
    timing : bytes
        The timing cache of an earlier build of `tensorrt`; empty for none.
    """

    graph: bytes
    rows: int
    tf32: bool = False
    capability: str | None = None
    timing: bytes = b""


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and what it takes and gives."""

    plan: bytes = field(repr=False)
    tensors: Tensors
    rows: tuple[int, int, int]
    timing: bytes = field(default=b"", repr=False)


def library(with_gpu: bool) -> Any:
    """Return the TensorRT that is installed; without a GPU only `tensorrt_rtx` builds plans.

    Raises
    ------
    MissingDependency
        None is installed, or only an old one.
    """
    missing = []
    for name in LIBRARIES if with_gpu else LIBRARIES[1:]:
        try:
            found = importlib.import_module(name)
        except ImportError as error:  # also a library that the bindings do not find
            missing.append(f"{name}: {error}")
            continue
        if name == "tensorrt" and tuple(int(part) for part in found.__version__.split(".")[:2]) < OLDEST:
            missing.append(f"tensorrt {found.__version__} is older than {'.'.join(map(str, OLDEST))}")
            continue
        return found
    needed = " or ".join(LIBRARIES) if with_gpu else "tensorrt_rtx, which builds plans without a GPU"
    raise MissingDependency(
        f"TensorRT is not to be had here. Needed: {needed} ({'; '.join(missing)}): pip install "
        "'bcistream[tensorrt]', or pip install tensorrt_rtx."
    )


@lru_cache(maxsize=2)
def logger(trt: Any) -> Any:
    """Return the process's one logger for a TensorRT: a second one would be ignored."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of a library chosen at run time
        """Keeps the last warnings and errors."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: deque[str] = deque(maxlen=20)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.WARNING:
                self.lines.append(message)

    return Logger()


def last_words(trt: Any) -> str:
    """Return what a TensorRT said last, and forget it: its only reason for returning nothing."""
    lines = logger(trt).lines
    said = "; ".join(list(lines)[-3:]) or "without a word"
    lines.clear()
    return said


def build(trt: Any, order: Order) -> Built:
    """Build a plan.

    Raises
    ------
    PlanError
        TensorRT does not take the graph, or does not build it; with its own words.
    """
    log = logger(trt)
    log.lines.clear()
    builder = made(trt, lambda: trt.Builder(log), "a builder")
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = made(trt, lambda: builder.create_network(typed), "a network")
    parser = trt.OnnxParser(network, log)
    if not parser.parse(order.graph):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise PlanError(f"{trt.__name__} {trt.__version__} cannot parse the step graph: {errors}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if not order.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    _aim(trt, config, order.capability)
    rows = _profile(trt, builder, network, config, order.rows)
    timing = _timing(trt, config, order.timing)
    plan = made(trt, lambda: builder.build_serialized_network(network, config), "a plan")
    return Built(bytes(plan), _tensors(network), rows, b"" if timing is None else bytes(timing.serialize()))


def made(trt: Any, make: Callable[[], Any], what: str) -> Any:
    """Return what TensorRT makes; `PlanError`, with its last words, where it makes nothing."""
    try:
        result = make()
    except TypeError as error:  # pybind's answer to a constructor that gave a null pointer
        raise PlanError(f"{trt.__name__} {trt.__version__} does not make {what} here: {error}") from error
    if result is None:
        raise PlanError(f"{trt.__name__} {trt.__version__} makes no {what.split()[1]}: {last_words(trt)}")
    return result


def _aim(trt: Any, config: Any, capability: str | None) -> None:
    """Build for a GPU that is not here, which only TensorRT-RTX can."""
    if capability is None:
        return
    kinds = getattr(trt, "ComputeCapability", None)
    if kinds is None:
        raise PlanError(f"{trt.__name__} builds for the GPU that is here, not for {capability}.")
    known = {f"{name[2:-1]}.{name[-1]}": name for name in dir(kinds) if name.startswith("SM")}
    if capability not in known:
        raise PlanError(
            f"{trt.__name__} {trt.__version__} does not build for compute capability {capability}; it does "
            f"for {', '.join(sorted(known, key=float))}."
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(kinds, known[capability]), 0)


def _timing(trt: Any, config: Any, earlier: bytes) -> Any | None:
    """Give the builder what an earlier build has timed; TensorRT-RTX times nothing, and warns of it."""
    if trt.__name__ != "tensorrt":
        return None
    cache = config.create_timing_cache(earlier)
    config.set_timing_cache(cache, False)  # False: one of another device is refused
    return cache


def _profile(trt: Any, builder: Any, network: Any, config: Any, rows: int) -> tuple[int, int, int]:
    """Say between which numbers of rows the plan is to work; a graph of one row has no choice."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    free = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not free:
        if rows != 1:
            raise PlanError(
                f"the step graph has a fixed shape, {tuple(inputs[0].shape)}; for {rows} rows its first "
                "dimension must be free."
            )
        return FIXED
    profile = builder.create_optimization_profile()
    for tensor in free:
        head, *rest = tuple(tensor.shape)
        if head != -1 or -1 in rest:
            raise PlanError(f"input {tensor.name!r} is {tuple(tensor.shape)}: only its rows may be free.")
        profile.set_shape(tensor.name, (1, *rest), (rows, *rest), (rows, *rest))
    if config.add_optimization_profile(profile) < 0:
        raise PlanError(f"{trt.__name__} refuses 1 to {rows} rows: {last_words(trt)}")
    return (1, rows, rows)


def _tensors(network: Any) -> Tensors:
    ends = [network.get_input(i) for i in range(network.num_inputs)]
    ends += [network.get_output(i) for i in range(network.num_outputs)]
    return {tensor.name: (dtype_of(tensor.dtype), tuple(tensor.shape)) for tensor in ends}


def dtype_of(dtype: Any) -> str:
    """Return NumPy's name of a TensorRT dtype; TensorRT's own for one that no manifest has."""
    return DTYPES.get(dtype.name, str(dtype.name).lower())
