"""Real plans, built by TensorRT-RTX on the CPU; skipped where the wheel is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import toy_codec
from fake_gpu import FakeDevice
from onnx import TensorProto, helper
from toy_bundle import toy_graph
from typer.testing import CliRunner

from engine.agreement import at_rows, noise_frames
from engine.backends import tensorrt
from engine.backends._plan import Here, compare, header, read
from engine.backends._trt import Engine
from engine.backends._trt_build import FIXED, Order, build, library
from engine.bundle import Bundle, digest, load, shipped
from engine.cli import app
from engine.compile import NOT_VALIDATED, Settings, compile_bundle
from engine.precision import cast
from streamer.errors import BundleError, ConfigError, PlanError

pytest.importorskip("tensorrt_rtx")

CAPABILITY = "8.9"


@pytest.fixture(scope="module")
def trt() -> Any:
    return library(with_gpu=False)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a GPU it is not asked: these are the tests of building without one."""
    monkeypatch.setattr(tensorrt, "driver", lambda: None)


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_shipped_bundle_builds(trt: Any, name: str, precision: Any) -> None:
    """Its step graph parses and becomes a plan of this version whose tensors are the manifest's."""
    shipped_one = load(name)
    rows = 1 if shipped_one.manifest.free_dimension is None else 8
    bundle = at_rows(shipped_one, rows)
    built = build(trt, Order(cast(bundle, precision), rows, capability=CAPABILITY))
    assert header(built.plan) == ("tensorrt_rtx", trt.__version__)
    assert built.rows == ((1, 8, 8) if rows == 8 else FIXED)
    compare(built.tensors, bundle.manifest.graph, bundle.label)


def test_eight_bits_build(trt: Any) -> None:
    """A graph quantised with ranges around zero and no quantised bias is one that TensorRT takes."""
    bundle = at_rows(load("motor-rhythms"), 1)
    graph = cast(bundle, "int8", noise_frames(bundle)[:16])
    assert b"QuantizeLinear" in graph
    assert build(trt, Order(graph, 1, capability=CAPABILITY)).plan


def test_what_is_no_graph_is_refused(trt: Any) -> None:
    """The message has TensorRT's words."""
    with pytest.raises(PlanError, match="cannot parse the step graph"):
        build(trt, Order(b"no graph", 1, capability=CAPABILITY))


def test_an_operator_that_it_does_not_build_is_refused(trt: Any) -> None:
    """Float32 attention of opset 23 parses and does not build: nothing comes back, which is an error."""
    shape = [1, 2, 4, 40]
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "qkvy"]
    graph = helper.make_graph([node], "attention", ends[:3], ends[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    with pytest.raises(PlanError, match=r"makes no plan: .*not supported by a dedicated kernel"):
        build(trt, Order(model.SerializeToString(), 1, capability=CAPABILITY))


def test_a_fixed_graph_has_no_other_rows(trt: Any) -> None:
    """Four rows of a graph of one are refused before anything is built."""
    with pytest.raises(PlanError, match="first dimension must be free"):
        build(trt, Order(toy_graph(), 4, capability=CAPABILITY))


def test_only_rows_may_be_free(trt: Any) -> None:
    """A graph whose hop is free, too, is refused."""
    model = onnx.load_from_string(toy_codec.tokenizer_graph())
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "hop"
    with pytest.raises(PlanError, match="only its rows may be free"):
        build(trt, Order(model.SerializeToString(), 4, capability=CAPABILITY))


def test_capabilities_that_it_does_not_know(trt: Any) -> None:
    """One that this version does not build for is refused, and those that it does are listed."""
    with pytest.raises(PlanError, match=r"3\.0; it does for .*8\.9"):
        build(trt, Order(toy_graph(), 1, capability="3.0"))


def test_float32_is_float32(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32, which TensorRT has on by default, is off unless it is asked for."""
    cleared = []
    original = trt.IBuilderConfig.clear_flag
    monkeypatch.setattr(
        trt.IBuilderConfig, "clear_flag", lambda self, flag: (cleared.append(flag), original(self, flag))
    )
    build(trt, Order(toy_graph(), 1, capability=CAPABILITY))
    assert cleared == [trt.BuilderFlag.TF32]
    build(trt, Order(toy_graph(), 1, tf32=True, capability=CAPABILITY))
    assert len(cleared) == 1


def test_compiled_without_a_gpu_is_not_ready(toy_folder: Path, tmp_path: Path) -> None:
    """The plan is built and kept, said to be not validated, and refused by the backend."""
    result = CliRunner().invoke(
        app, ["compile", str(toy_folder), "--capability", CAPABILITY, "--cache", str(tmp_path), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert f'"status": "{NOT_VALIDATED}"' in result.stdout
    assert '"agreement": null' in result.stdout
    with pytest.raises(PlanError, match="there is none here"):
        tensorrt.Config(cache=tmp_path).open(load(toy_folder))


def test_without_a_gpu_the_capability_must_be_named(toy_folder: Path, tmp_path: Path) -> None:
    """Nothing is guessed: the message says what to add."""
    with pytest.raises(ConfigError, match=r"--capability 8\.9"):
        compile_bundle(toy_folder, "tensorrt", Settings(cache=tmp_path))


def test_real_plans_are_refused_where_they_do_not_belong(toy: Bundle, tmp_path: Path) -> None:
    """A real plan is checked as any: version, GPU and a changed byte."""
    report = compile_bundle(toy.folder, "tensorrt", Settings(capability=CAPABILITY, cache=tmp_path))
    path, graph = Path(report["plan"]), digest(toy.graph_bytes)
    for version, said in (("1.7.0.0", "here is version 1.7.0.0"), ("1.7.1.116", "never validated")):
        with pytest.raises(PlanError, match=said):
            read(path, Here("tensorrt_rtx", version, None), graph)
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()
    content[500] ^= 1
    path.write_bytes(content.tobytes())
    with pytest.raises(PlanError, match="damaged"):
        read(path, Here("tensorrt_rtx", "1.7.1.116", None), graph)


def test_a_plan_that_tensorrt_refuses_frees_the_device(trt: Any) -> None:
    """Without a GPU nothing comes back from a good plan: that is an error, and what was taken is freed."""
    plan = build(trt, Order(toy_graph(), 1, capability=CAPABILITY)).plan
    device = FakeDevice()
    with pytest.raises(PlanError, match="makes no engine"):
        Engine(trt, plan, device)
    assert device.closed == 1


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("ICudaEngine", "get_tensor_name num_io_tensors get_tensor_dtype get_tensor_shape"),
        ("ICudaEngine", "create_execution_context"),
        ("IExecutionContext", "set_input_shape set_tensor_address infer_shapes execute_async_v3"),
        ("Runtime", "deserialize_cuda_engine"),
    ],
)
def test_what_runs_a_plan_has_the_names_that_are_used(trt: Any, kind: str, names: str) -> None:
    """The calls that only a GPU can answer exist in the library."""
    assert all(hasattr(getattr(trt, kind), name) for name in names.split())


def test_codes_take_no_tf32(tmp_path: Path) -> None:
    """A bundle that puts out codes is refused before it is built in a precision that changes them."""
    folder = toy_codec.write_tokenizer(tmp_path / "codec")
    for precision in ("tf32", "int8"):
        with pytest.raises(BundleError, match=r"which .* changes"):
            compile_bundle(
                folder, "tensorrt", Settings(precision, capability=CAPABILITY, cache=tmp_path / "cache")
            )
