"""A step graph in another precision, its edges (input, outputs and state) in float32 as before.

TensorRT's networks are strongly typed: what a plan computes in, its graph says.  So the graph is cast before
it is compiled, and ONNX Runtime can run the cast graph on the CPU, and say what the cast alone costs.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.agreement import Agreement, Frames
from engine.backends._plan import Precision
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.bundle import Bundle
from streamer.errors import BundleError, ConfigError, MissingDependency

# What a plan must reach against ONNX Runtime in float32.
BARS: dict[Precision, Agreement] = {
    "fp32": Agreement(values=1e-3, state=1e-3, codes=0.999, labels=0.99),
    "tf32": Agreement(values=2e-2, state=2e-2, codes=0.999, labels=0.97),
    "fp16": Agreement(values=5e-2, state=5e-2, codes=0.99, labels=0.97),
    "int8": Agreement(values=2e-1, state=2e-1, codes=1.0, labels=0.95),
}
# Products between activations do not survive: with them `gestures` keeps 77 % of its labels, without 99 %.
QUANTISED = ["Conv"]
# A bias of int32 is what TensorRT does not parse, and it wants ranges around zero.
QDQ = {"QuantizeBias": False, "ActivationSymmetric": True, "WeightSymmetric": True}


def cast(bundle: Bundle, precision: Precision, ranges: Frames | None = None) -> bytes:
    """Return the bundle's step graph in this precision.

    Parameters
    ----------
    bundle : Bundle
        With the number of rows of ``ranges``.
    ranges : ndarray, shape (n, B, C, hop), optional
        Real signal, from which int8 takes its ranges.

    Raises
    ------
    BundleError
        Its codes would not survive.
    ConfigError
        int8 without real signal.
    MissingDependency
        `onnx` is not installed.
    """
    if bundle.manifest.tokens is not None and precision in ("tf32", "int8"):
        raise BundleError(
            f"Bundle {bundle.label} puts out codes, which {precision} changes. Compile it in fp32 or fp16."
        )
    if bundle.manifest.signal is not None and precision == "int8":
        raise BundleError(
            f"Bundle {bundle.label} takes codes: there is no signal for int8 to take ranges from."
        )
    if precision == "fp16":
        return _fp16(bundle.graph_bytes)
    if precision == "int8":
        if ranges is None or not len(ranges):
            raise ConfigError(
                "int8 takes its ranges from real signal: give a recording that fits, --calibrate FILE."
            )
        return _int8(bundle, ranges)
    return bundle.graph_bytes


def _fp16(graph: bytes) -> bytes:
    onnx = _onnx()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load_from_string(graph)
    return bytes(convert_float_to_float16(model, keep_io_types=True).SerializeToString())


def _int8(bundle: Bundle, ranges: Frames) -> bytes:
    """Quantise the convolutions, 8 bits both sides, by ranges seen on the frames."""
    onnx = _onnx()
    model = onnx.load_from_string(bundle.graph_bytes)
    if not any(node.op_type in QUANTISED for node in model.graph.node):
        raise BundleError(f"Bundle {bundle.label} has no convolutions, so int8 changes nothing: take fp16.")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    del model.graph.value_info[:]  # else the exporter's own shapes contradict those that are inferred
    level = logging.root.level
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        logging.root.setLevel(logging.ERROR)  # it recommends a pass that breaks on these graphs
        try:
            quantize_static(
                model,
                path,
                _Reader(bundle, ranges),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=QUANTISED,
                per_channel=True,
                extra_options=QDQ,
            )
        finally:
            logging.root.setLevel(level)
        return path.read_bytes()


class _Reader:
    """Feeds the frames with the state that belongs to each."""

    def __init__(self, bundle: Bundle, frames: Frames) -> None:
        self._inputs = _inputs(bundle, frames)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._inputs, None)


def _inputs(bundle: Bundle, frames: Frames) -> Iterator[dict[str, NDArray[Any]]]:
    graph = bundle.manifest.graph
    with OnnxRuntimeBackend(bundle) as backend:
        runner = backend.runner()
        for frame in frames:
            state = {s.input: array for s, array in zip(graph.state, runner.snapshot(), strict=True)}
            yield {graph.input.name: np.ascontiguousarray(frame), **state}
            runner.input[:] = frame
            runner.step()


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency(
            f"fp16 and int8 need the package onnx, to cast the step graph ({error}): pip install onnx."
        ) from error
    return onnx
