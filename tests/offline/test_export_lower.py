"""A graph that was made cheaper computes what it computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import onnxruntime as ort  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from offline.export_lower import lower  # noqa: E402

LENGTH = 24


def graph_of(node: Any, shape: tuple[int, ...], weights: dict[str, np.ndarray]) -> Any:
    """One node from x (rows, C, LENGTH) to y."""
    rows = ["batch", *shape]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", shape[0], None])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(proto: Any, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("stride", "dilation", "taps"), [(1, 1, 24), (2, 1, 15), (5, 1, 20), (1, 7, 3), (3, 2, 4)]
)
def test_a_depthwise_convolution_is_a_product(stride: int, dilation: int, taps: int, biased: bool) -> None:
    """At any stride, dilation and number of rows, with a bias and without."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(6, 1, taps)).astype(np.float32)}
    weights |= {"b": rng.normal(size=6).astype(np.float32)} if biased else {}
    node = helper.make_node("Conv", ["x", *weights], ["y"], group=6, strides=[stride], dilations=[dilation])
    proto = graph_of(node, (6, LENGTH), weights)
    for rows in (1, 5):
        x = rng.normal(size=(rows, 6, LENGTH)).astype(np.float32)
        wanted = run(proto, x)
        lowered = onnx.ModelProto.FromString(proto.SerializeToString())
        lower(lowered)
        assert "Conv" not in {node.op_type for node in lowered.graph.node}
        assert "w" not in {item.name for item in lowered.graph.initializer}
        np.testing.assert_allclose(run(lowered, x), wanted, atol=1e-5)


def test_a_mean_over_everything_is_a_mean() -> None:
    """One output sample; a pool that gives several stays."""
    x = np.random.default_rng(0).normal(size=(3, 4, LENGTH)).astype(np.float32)
    for size, kind in ((LENGTH, "ReduceMean"), (6, "AveragePool")):
        proto = graph_of(
            helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[size], strides=[6]), x.shape[1:], {}
        )
        wanted = run(proto, x)
        lower(proto)
        assert [node.op_type for node in proto.graph.node] == [kind]
        np.testing.assert_allclose(run(proto, x), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "groups", "more"),
    [((6, 6, 3), 1, {}), ((6, 3, 3), 2, {}), ((6, 1, 3), 6, {"pads": [1, 1]}), ((6, 1, 1), 6, {})],
    ids=["dense", "grouped", "padded", "large"],
)
def test_any_other_convolution_stays(
    shape: tuple[int, ...], groups: int, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is dense, in larger groups, padded, or whose matrices would be large."""
    from offline import export_lower

    monkeypatch.setattr(export_lower, "MAX_MATRIX", 6 * LENGTH * LENGTH - 1)
    weights = {"w": np.ones(shape, dtype=np.float32)}
    proto = graph_of(helper.make_node("Conv", ["x", "w"], ["y"], group=groups, **more), (6, LENGTH), weights)
    before = proto.SerializeToString()
    lower(proto)
    assert proto.SerializeToString() == before
