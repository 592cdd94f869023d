"""The TensorRT backend over a fake GPU: where the state lies, what a CUDA graph holds, what falls back."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_codec
from fake_gpu import CARD, HERE, FakeDevice, FakeMachine, Graphs
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import CHANNELS, weights

from engine.backends import tensorrt
from engine.backends._cache import find
from engine.backends._device import DeviceRunner
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, load
from engine.compile import Settings, compile_bundle
from engine.config import RunConfig, parse
from engine.live import run_config
from streamer.errors import MissingDependency, PlanError


def put(monkeypatch: pytest.MonkeyPatch, machine: FakeMachine) -> FakeMachine:
    """Put a fake in the place of this machine."""
    monkeypatch.setattr(tensorrt, "machine", lambda to_run: machine)
    return machine


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return put(monkeypatch, FakeMachine())


def opened(bundle: Bundle, cache: Path, **settings: Any) -> Any:
    """Compile a bundle and open it."""
    compile_bundle(bundle.folder, "tensorrt", Settings(cache=cache))
    return tensorrt.Config(cache=cache, **settings).open(bundle)


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(n, 1, 8, 10)).astype(np.float32)


def played(runner: Any, frames: np.ndarray) -> np.ndarray:
    rows = []
    for frame in frames:
        runner.input[:] = frame
        rows.append(runner.step()["logits"].copy())
    return np.array(rows)


def test_two_sets_of_state_and_no_copy_between_them(
    machine: FakeMachine, toy: Bundle, tmp_path: Path
) -> None:
    """Each parity reads the state that the other writes; input and outputs are the same for both."""
    with opened(toy, tmp_path) as backend:
        backend.runner()
        even, odd = machine.loaded[-1].prepared
    assert (even["state_0"], even["state_0_out"]) == (odd["state_0_out"], odd["state_0"])
    assert even["state_0"] != odd["state_0"]
    assert (even["x"], even["logits"]) == (odd["x"], odd["logits"])


@pytest.mark.parametrize(
    ("graphs", "said"),
    [
        ("captured", "(CUDA graph)"),
        ("refused", "(no CUDA graph: cuda-bindings is not installed)"),
        ("empty", "(no CUDA graph: it did not compute what the steps by themselves do)"),
        ("copies", "(no CUDA graph: it did not compute what the steps by themselves do)"),
    ],
)
def test_with_and_without_graphs_the_answers_are_the_same(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path, graphs: Graphs, said: str
) -> None:
    """Graphs that work are used, one that is missing or empty is not; the name says which it is."""
    machine = put(monkeypatch, FakeMachine(graphs=graphs))
    with opened(toy, tmp_path) as backend, OnnxRuntime().open(toy) as reference:
        runner = backend.runner()
        assert backend.name == f"tensorrt_rtx 1.7.1.116, Fake RTX, fp32 {said}"
        before = machine.loaded[-1].device.replayed
        assert np.array_equal(played(runner, noise(7)), played(reference.runner(), noise(7)))
        assert machine.loaded[-1].device.replayed - before == (7 if graphs == "captured" else 0)


def stateless() -> bytes:
    """Return a graph without a state: the read-out of a hop's mean."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 10])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, 3])
    constants = {"time": np.array([2], dtype=np.int64), "one": np.array([1], dtype=np.int64), "w": weights()}
    nodes = [
        helper.make_node("ReduceMean", ["x", "time"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["now"]),
        helper.make_node("Unsqueeze", ["now", "one"], ["logits"]),
    ]
    named = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "stateless", [x], [logits], named)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("graphs", ["empty", "copies"])
def test_a_graph_that_does_nothing_is_seen_without_a_state(
    monkeypatch: pytest.MonkeyPatch, toy_writer: Callable[..., Path], tmp_path: Path, graphs: Graphs
) -> None:
    """What a graph leaves unwritten, on the device or here, is not taken for its answer."""
    machine = put(monkeypatch, FakeMachine(graphs=graphs))
    bundle = load(toy_writer(stateless(), **{"graph.state": []}))
    with opened(bundle, tmp_path / "cache") as backend:
        backend.runner()
        assert "no CUDA graph: it did not compute" in backend.name
        assert machine.loaded[-1].device.replayed > 0


def test_trying_the_graphs_leaves_no_trace(machine: FakeMachine, toy: Bundle, tmp_path: Path) -> None:
    """A new runner's input and both its states are zero, whatever was run to capture them."""
    with opened(toy, tmp_path) as backend:
        runner = backend.runner()
        assert not runner.input.any()
        for _ in range(2):
            assert not any(array.any() for array in runner.snapshot())
            runner._now = 1 - runner._now


def test_a_runner_works_in_any_thread(machine: FakeMachine, toy: Bundle, tmp_path: Path) -> None:
    """The GPU is made current where the step is, and nowhere for longer."""
    with opened(toy, tmp_path) as backend:
        runner, answers = backend.runner(), []
        worker = threading.Thread(target=lambda: answers.append(played(runner, noise(2))))
        worker.start()
        worker.join()
        assert len(answers[0]) == 2
        assert machine.loaded[-1].device._depth == 0


def test_a_state_of_another_shape_is_not_restored(machine: FakeMachine, toy: Bundle, tmp_path: Path) -> None:
    """Neither another dtype nor another number of tensors is taken, and the state stays."""
    with opened(toy, tmp_path) as backend:
        runner = backend.runner()
        played(runner, noise(3))
        saved = runner.snapshot()
        for wrong in ([], [saved[0].astype(np.float64)]):
            with pytest.raises((TypeError, ValueError)):
                runner.restore(wrong)
        assert np.array_equal(runner.snapshot()[0], saved[0])


def test_closing_frees_the_device_once(machine: FakeMachine, toy: Bundle, tmp_path: Path) -> None:
    """However often a backend is closed, its device is closed once."""
    backend = opened(toy, tmp_path)
    backend.close()
    backend.close()
    assert machine.loaded[-1].device.closed == 1


def test_a_plan_of_another_bundle_is_closed_and_refused(
    machine: FakeMachine, toy: Bundle, tmp_path: Path
) -> None:
    """Tensors that are not the manifest's are refused, and the device is freed."""
    folder = toy_codec.write_tokenizer(tmp_path / "codec")
    compile_bundle(folder, "tensorrt", Settings(cache=tmp_path))
    plan = next(tmp_path.rglob("toy-codec*.plan")).read_bytes()
    loaded = machine.load(plan)
    with pytest.raises(PlanError, match="absent in the"):
        tensorrt.TensorRTBackend(toy, loaded, "plan")
    assert loaded.device.closed == 1


@pytest.mark.parametrize(("n", "fits"), [(1, True), (4, True), (5, False)])
def test_rows_are_those_that_the_plan_was_made_for(
    machine: FakeMachine, tmp_path: Path, n: int, fits: bool
) -> None:
    """A montage of as many channels as the plan takes is run; more are refused with the command to type."""
    bundle = load(toy_codec.write_tokenizer(tmp_path / "codec"))
    compile_bundle(bundle.folder, "tensorrt", Settings(batch=4, cache=tmp_path))
    sized = bundle.sized([f"C{i}" for i in range(n)])
    config = tensorrt.Config(cache=tmp_path)
    if fits:
        with config.open(sized) as backend:
            assert backend.runner().input.shape == (n, 1, toy_codec.HOP)
        return
    with pytest.raises(PlanError, match=r"takes 5 rows \(there is one for 1 to 4\).*--batch 5"):
        config.open(sized)


def test_of_several_plans_the_smallest_that_fits(machine: FakeMachine, tmp_path: Path) -> None:
    """Plans for more rows are not used where one for fewer will do."""
    bundle = load(toy_codec.write_tokenizer(tmp_path / "codec"))
    for batch in (16, 2, 4):
        compile_bundle(bundle.folder, "tensorrt", Settings(batch=batch, cache=tmp_path))
    assert {order.rows for order in machine.orders} == {2, 4, 16}
    _, beside = find(bundle.sized("abc"), "fp32", HERE, tmp_path)
    assert beside.rows == (1, 4, 4)


def test_without_a_plan_the_command_is_given(machine: FakeMachine, toy: Bundle, tmp_path: Path) -> None:
    """What was not compiled is refused with what to type; with `fallback` it runs on the CPU, and says so."""
    command = "bcistream compile toy --backend tensorrt --precision fp16"
    with pytest.raises(PlanError, match=command):
        tensorrt.Config(precision="fp16", cache=tmp_path).open(toy)
    with tensorrt.Config(precision="fp16", cache=tmp_path, fallback=True).open(toy) as backend:
        assert "onnxruntime" in backend.name
        assert "instead of TensorRT: Bundle toy 1 has no fp16 plan" in backend.name
        assert not isinstance(backend.runner(), DeviceRunner)


def test_without_a_gpu_nothing_is_run(monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path) -> None:
    """The driver is asked before TensorRT, and no GPU is an error, or a fallback where that was asked for."""
    monkeypatch.setattr(tensorrt, "driver", lambda: None)
    with pytest.raises(PlanError, match="needs an NVIDIA GPU, and there is none here"):
        tensorrt.Config(cache=tmp_path).open(toy)
    with tensorrt.Config(cache=tmp_path, fallback=True).open(toy) as backend:
        assert "instead of TensorRT: The TensorRT backend needs an NVIDIA GPU" in backend.name


def test_without_tensorrt_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path
) -> None:
    """A GPU without TensorRT is a missing dependency, by name."""
    monkeypatch.setattr(tensorrt, "driver", lambda: "driver")
    monkeypatch.setattr(tensorrt, "gpu", lambda library: CARD)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"bcistream\[tensorrt\]"):
        tensorrt.Config(cache=tmp_path).open(toy)


def test_a_damaged_plan_falls_back_only_if_told(machine: FakeMachine, toy: Bundle, tmp_path: Path) -> None:
    """A flipped byte is refused, or answered by ONNX Runtime with the reason in its name."""
    opened(toy, tmp_path).close()
    (path,) = tmp_path.rglob("*.plan")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PlanError, match="damaged"):
        tensorrt.Config(cache=tmp_path).open(toy)
    with tensorrt.Config(cache=tmp_path, fallback=True).open(toy) as backend:
        assert "instead of TensorRT: Plan" in backend.name


@pytest.fixture
def noise_recording(tmp_path: Path) -> Path:
    """Twenty seconds of noise in the project's own format."""
    n, sfreq = len(CHANNELS), 160.0
    np.savez(
        tmp_path / "noise.npz",
        data=np.random.default_rng(0).normal(scale=200, size=(n, int(20 * sfreq))).astype(np.int16),
        scale=np.full(n, 0.1), offset=np.zeros(n), sfreq=sfreq, units="uV",
        ch_names=np.array(CHANNELS), ch_types=np.array(["eeg"] * n),
        events=np.zeros((0, 3), dtype=np.int32), event_codes="{}", meta=json.dumps({"continuous": True}),
    )  # fmt: skip
    return tmp_path / "noise.npz"


def config(toy: Bundle, recording: Path, **backend: Any) -> RunConfig:
    return parse(
        {
            "source": {"kind": "recording", "path": str(recording)},
            "bundle": str(toy.folder),
            "backend": backend or {"kind": "onnxruntime"},
        },
        "test",
    )


def test_a_run_on_the_device_decides_as_one_on_the_cpu(
    machine: FakeMachine, toy: Bundle, tmp_path: Path, noise_recording: Path
) -> None:
    """The whole engine over a plan: the same decisions, and the report names the plan."""
    opened(toy, tmp_path).close()
    decided: dict[str, list[Any]] = {"cpu": [], "gpu": []}
    gpu = {"kind": "tensorrt", "cache": str(tmp_path)}
    for name, backend in (("cpu", {}), ("gpu", gpu)):
        report = run_config(config(toy, noise_recording, **backend), extra=Kept(decided[name]))
    assert "tensorrt_rtx 1.7.1.116, Fake RTX, fp32 (CUDA graph)" in report["backend"]
    assert decided["gpu"] == decided["cpu"]
    assert len(decided["cpu"]) > 100


class Kept:
    """A sink that keeps what it is given."""

    lost = 0

    def __init__(self, decisions: list[Any]) -> None:
        self.decisions = decisions

    def write(self, decision: Any) -> None:
        self.decisions.append((decision.index, decision.label, tuple(decision.probabilities)))


def test_the_fake_does_its_work_when_it_is_waited_for() -> None:
    """The fake is strict: nothing has happened before `synchronize`, and foreign memory is none."""
    device = FakeDevice()
    with device.current():
        address, array = device.empty(4), np.ones(1, dtype=np.float32)
        device.upload(address, array)
        got = np.zeros(1, dtype=np.float32)
        device.download(got, address)
        assert got[0] == 0.0
        device.synchronize()
        assert got[0] == 1.0
        with pytest.raises(AssertionError, match="are not the device's"):
            device.fill(address, 5)
