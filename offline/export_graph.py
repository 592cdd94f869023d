"""A model's step function in ONNX, described for a manifest and compared with the model.

The first dimension of the graph is free: "channels" for a part that works on one channel per row
(``per_channel``), settled by `engine.bundle.Bundle.sized` when the stream is known; "batch" for any other,
settled by `Bundle.batched`, one stream a row.  A model that torch cannot write so gets a graph of one row.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from engine.bundle import Graph, State
from engine.bundle import Tensor as TensorSpec
from engine.manifest import FREE_DIMENSION, FREE_ROWS, MAX_CHANNELS, MAX_ROWS
from offline.export_lower import lower
from offline.quiet import EXPORTER, quiet
from streamer.errors import BundleError

OPSET = 20  # from 23 on torch writes Attention, which TensorRT does not build in float32
TOLERANCE = 1e-5  # of the tensor's largest value, or absolute where that is below 1
NUDGE, NUDGES = 1e-5, 16  # of the signal's size, ten times float32's rounding; and how often
TIES = 1e-3  # share of codes; a trained codec had one of 12,000, at its finest level
CODES = "codes"
GRAPH_FILE = "step.onnx"
ROWS = (1, 3)  # of the parity check, where any number must do
EXAMPLE_ROWS = 2  # torch.export takes a size of 0 or 1 for a constant
Array = NDArray[np.float32]


class _Step(nn.Module):
    """The model with its state as flat arguments and its outputs in a fixed order.

    A state tensor without elements (a convolution that needs no past) is no argument: it is made here.
    """

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names
        leaves, self.spec = pytree.tree_flatten(model.init_state(1))
        self.shapes = [(tuple(leaf.shape[1:]), leaf.dtype) for leaf in leaves]
        self.empty = [leaf.numel() == 0 for leaf in leaves]

    def forward(self, x: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, then the new state."""
        given = iter(leaves)
        whole = [
            x.new_zeros((x.shape[0], *shape), dtype=dtype) if empty else next(given)
            for empty, (shape, dtype) in zip(self.empty, self.shapes, strict=True)
        ]
        outputs, state = self.model(x, pytree.tree_unflatten(whole, self.spec))
        return (*(outputs[name] for name in self.names), *state_leaves(state))


def state_leaves(state: Any) -> list[Tensor]:
    """Return the tensors of a state that have elements, in order."""
    return [leaf for leaf in pytree.tree_leaves(state) if leaf.numel()]


def per_channel(model: Any) -> bool:
    """Say whether a model takes each channel as a row of its own."""
    return bool(getattr(model, "per_channel", False))


def describe(model: Any, n_chans: int) -> Graph:
    """Return the manifest's description of the step graph: names, shapes of one row, geometry."""
    x = torch.zeros(1, n_chans, model.hop)
    with torch.inference_mode():
        outputs, _ = model(x, model.init_state(1))
    return Graph(
        file=GRAPH_FILE,
        input=TensorSpec(name="x", shape=tuple(x.shape)),
        outputs=tuple(
            TensorSpec(name=name, shape=tuple(value.shape), dtype=_dtype(value))
            for name, value in outputs.items()
        ),
        state=tuple(
            State(input=f"state_{i}", output=f"state_{i}_out", shape=tuple(leaf.shape), dtype=_dtype(leaf))
            for i, leaf in enumerate(state_leaves(model.init_state(1)))
        ),
        hop=model.hop,
        left_context=model.left_context,
        delay=model.delay,
        bounded=bool(getattr(model, "bounded", True)),
    )


def export_step(model: Any, n_chans: int) -> tuple[bytes, Graph]:
    """Return the step as ONNX, and what the manifest says of it."""
    content = step_graph(model, n_chans)
    return content, describe(model, n_chans).model_copy(update={"rows": _rows_of(content)})


def step_graph(model: Any, n_chans: int) -> bytes:
    """Return the step as ONNX: one hop, float32 in, the state explicit, rows free where torch can write it.

    Raises
    ------
    BundleError
        Torch cannot write it; or the rows of a ``per_channel`` part are not free.
    """
    if per_channel(model):
        return _exported(model, n_chans, (FREE_DIMENSION, MAX_CHANNELS))
    try:
        return _exported(model, n_chans, (FREE_ROWS, MAX_ROWS))
    except BundleError:  # some nets of others fix the rows of the example
        return _exported(model, n_chans, None)


def _exported(model: Any, n_chans: int, free: tuple[str, int] | None) -> bytes:
    """Return the step as ONNX, its first dimension of this name and up to this size, or 1."""
    import onnx

    graph = describe(model, n_chans)
    names = [tensor.name for tensor in graph.outputs]
    rows = EXAMPLE_ROWS if free else 1
    leaves = state_leaves(model.init_state(rows))
    first = {0: torch.export.Dim(free[0], min=1, max=free[1])} if free else {}
    options = {
        "input_names": ["x", *(s.input for s in graph.state)],
        "output_names": [*names, *(s.output for s in graph.state)],
        "dynamic_shapes": (first, tuple(first for _ in leaves)) if free else None,
    }
    program = _traced(_Step(model, names).eval(), (torch.zeros(rows, n_chans, model.hop), *leaves), options)
    proto = program.model_proto
    _strip(proto)
    if free:
        _check_free(proto, free[0])
    lower(proto)
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString()
    return content


def streamlined(model: Any, n_chans: int) -> Any:
    """Return the model in fewer operations where it knows how to be (``fused``), else as it is.

    Raises
    ------
    BundleError
        It says something else then.
    """
    if not hasattr(model, "fused"):
        return model
    fused, signal = model.fused(), noise(model, n_chans)
    wanted, found = _whole(model, signal)[0], _whole(fused, signal)[0]
    for name, value in wanted.items():
        _difference(name, found[name], value, signal.shape, TOLERANCE)
    return fused


def _rows_of(content: bytes) -> str:
    """Say whether a graph's first dimension is "free", or that of "one" stream."""
    import onnx

    first = onnx.load_from_string(content).graph.input[0].type.tensor_type.shape.dim[0]
    return "free" if first.dim_param == FREE_ROWS else "one"


def _traced(step: nn.Module, example: tuple[Tensor, ...], options: dict[str, Any]) -> Any:
    """Return torch's ONNX program of a step; BundleError with torch's own reason where there is none."""
    try:
        with warnings.catch_warnings(), quiet(EXPORTER):
            # The exporter's own use of torch's and onnxscript's deprecated names is no concern of the user.
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                step, example, dynamo=True, opset_version=OPSET, verbose=False, **options
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        raise BundleError(
            f"Export refused: torch cannot write the model as a graph of fixed shapes: {reason}  Does it "
            "branch on values that it computes, or use an operation that ONNX has not?"
        ) from error


def _check_free(proto: Any, name: str) -> None:
    """Refuse a graph that the exporter has quietly fixed to the rows of the example."""
    for value in (*proto.graph.input, *proto.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param != name:
            raise BundleError(
                f"Export refused: the graph fixes the first dimension of {value.name} at "
                f"{first.dim_value or first.dim_param}, where any number of rows must do. Does the "
                "model read the number of rows with len(), or loop over them? Use shape[0]."
            )


def _strip(proto: Any) -> None:
    """Drop the exporter's notes: stack traces name the folders of this machine."""
    del proto.metadata_props[:]
    graph = proto.graph
    del graph.metadata_props[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    graph.doc_string = proto.doc_string = ""


def check_parity(model: Any, graph_bytes: bytes, graph: Graph, signals: Sequence[Array]) -> float:
    """Step the graph through each signal and compare with the model's one call: values and final state.

    Integers are exactly equal, but for `CODES` where two are equally near: there the model, too, names the
    other one when its input changes by `NUDGE`.  At most `TIES` of them may be of that sort.

    Parameters
    ----------
    signals : sequence of ndarray, shape (B, C, T), float32
        Any number of rows B where the graph's are free, else one.

    Returns
    -------
    float
        The largest difference, relative to its tensor's largest value where that exceeds 1.

    Raises
    ------
    BundleError
        It exceeds `TOLERANCE`, or the model's own ``tolerance``; or an integer is another one.
    """
    worst, allowed = 0.0, float(getattr(model, "tolerance", TOLERANCE))
    for signal in signals:
        wanted = _named(graph, *_whole(model, signal))
        got = _named(graph, *stepped(graph_bytes, graph, signal))
        differ = CODES in wanted and (got[CODES] != wanted[CODES]).any()
        undecided = _undecided(model, signal, wanted[CODES]) if differ else None
        for name, value in wanted.items():
            if np.issubdtype(value.dtype, np.integer):
                _check_codes(name, got[name], value, undecided if name == CODES else None, signal.shape)
            else:
                worst = max(worst, _difference(name, got[name], value, signal.shape, allowed))
    return worst


def _named(
    graph: Graph, outputs: dict[str, NDArray[Any]], state: Sequence[NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    return outputs | {s.output: value for s, value in zip(graph.state, state, strict=True)}


def _undecided(model: Any, signal: Array, wanted: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which codes of the model change when its input does, by a random `NUDGE`."""
    rng, size = np.random.default_rng(0), NUDGE * np.sqrt(np.square(signal).mean())
    found = np.zeros(wanted.shape, dtype=bool)
    for _ in range(NUDGES):
        nudged = signal + (size * rng.standard_normal(signal.shape)).astype(np.float32)
        found |= _whole(model, nudged)[0][CODES] != wanted
    return found


def _check_codes(
    name: str,
    got: NDArray[Any],
    wanted: NDArray[Any],
    undecided: NDArray[np.bool_] | None,
    shape: tuple[int, ...],
) -> None:
    other = got != wanted
    ties = other & undecided if undecided is not None else np.zeros_like(other)
    if (other != ties).any() or ties.mean() > TIES:
        raise BundleError(
            f"Export refused: {int(other.sum())} of {wanted.size} integers of {name} are not the model's "
            f"{_after(shape)}, {int(ties.sum())} of them ties; codes must be exactly equal, but for ties. Is "
            "a distance computed in another order or precision?"
        )


def _after(shape: tuple[int, ...]) -> str:
    return f"after {shape[-1]} samples of {shape[0]} row{'s' if shape[0] > 1 else ''}"


def _difference(
    name: str, got: NDArray[Any], wanted: NDArray[Any], shape: tuple[int, ...], allowed: float
) -> float:
    size = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    difference = float(np.abs(got.astype(np.float64) - wanted).max(initial=0.0)) / size
    if not difference <= allowed:
        raise BundleError(
            f"Export refused: {name} of the exported step differs from the model by {difference:.1e} "
            f"{_after(shape)}; at most {allowed:.0e} is allowed. Does the model carry all its state, and "
            "is nothing of it random or normalised over time?"
        )
    return difference


def _whole(model: Any, signal: Array) -> tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]:
    with torch.inference_mode():
        outputs, state = model(torch.from_numpy(signal), model.init_state(len(signal)))
    return {k: v.numpy() for k, v in outputs.items()}, [leaf.numpy() for leaf in state_leaves(state)]


def stepped(
    graph_bytes: bytes, graph: Graph, signal: Array
) -> tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]:
    """Step a graph hop by hop through a signal (B, C, T); return outputs (B, F, ...) and final state."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph_bytes, options, providers=["CPUExecutionProvider"])
    state = [np.zeros((len(signal), *s.shape[1:]), dtype=s.dtype) for s in graph.state]
    steps = []
    for start in range(0, signal.shape[-1], graph.hop):
        feed = {"x": np.ascontiguousarray(signal[..., start : start + graph.hop])}
        feed |= {s.input: value for s, value in zip(graph.state, state, strict=True)}
        values = session.run(None, feed)
        steps.append(values[: len(graph.outputs)])
        state = values[len(graph.outputs) :]
    joined = [np.concatenate(parts, axis=1) for parts in zip(*steps, strict=True)]
    return {t.name: value for t, value in zip(graph.outputs, joined, strict=True)}, state


def noise(model: Any, n_chans: int, rows: int = 1, scale: float = 1.0) -> Array:
    """Return white noise longer than the model's left context, (rows, n_chans, T)."""
    hops = model.left_context // model.hop + 20
    drawn = np.random.default_rng(0).standard_normal((rows, n_chans, hops * model.hop), dtype=np.float32)
    return np.float32(scale) * drawn


def probes(model: Any, n_chans: int, graph: Graph, scale: float = 1.0) -> list[Array]:
    """Return noise to compare graph and model on: one row, and a few where the graph takes them."""
    free = per_channel(model) or graph.rows == "free"
    return [noise(model, n_chans, rows, scale) for rows in (ROWS if free else ROWS[:1])]


def _dtype(leaf: Tensor) -> Any:
    return str(leaf.dtype).removeprefix("torch.")
