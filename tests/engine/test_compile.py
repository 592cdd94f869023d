"""`bcistream compile`: ready is what was run and agreed, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import toy_codec
from fake_gpu import HERE, FakeMachine
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import HOP, toy_graph, weights
from typer.testing import CliRunner

from engine import compile as compiling
from engine.agreement import (
    MIN_FRAMES,
    Agreement,
    at_rows,
    compare,
    noise_frames,
    recording_frames,
    shortfalls,
)
from engine.backends import tensorrt
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.bundle import Bundle, load
from engine.cli import app
from engine.compile import NOT_VALIDATED, Settings, compile_bundle
from engine.precision import BARS, cast
from streamer.errors import BundleError, ConfigError, PlanError


def put(monkeypatch: pytest.MonkeyPatch, machine: FakeMachine) -> FakeMachine:
    """Put a fake in the place of this machine."""
    monkeypatch.setattr(tensorrt, "machine", lambda to_run: machine)
    return machine


def plans(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def scaled(name: str, factor: float) -> Callable[[bytes], bytes]:
    """Return what multiplies a constant of a graph."""

    def spoil(graph: bytes) -> bytes:
        model = onnx.load_from_string(graph)
        (constant,) = [one for one in model.graph.initializer if one.name == name]
        constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant) * np.float32(factor), name))
        return bytes(model.SerializeToString())

    return spoil


def forgetful(graph: bytes) -> bytes:
    """Return the toy's graph with right outputs and a state that is always the same."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        if "state_0_out" in node.output:
            node.output[0] = "right"
        for i, name in enumerate(node.input):
            if name == "state_0_out":
                node.input[i] = "right"
    model.graph.node.append(helper.make_node("Identity", ["state_0"], ["state_0_out"]))
    return bytes(model.SerializeToString())


def not_finite(graph: bytes) -> bytes:
    """Return the toy's graph with logits that are not numbers."""
    return scaled("w", float("nan"))(graph)


def test_ready_is_what_agreed(monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path) -> None:
    """A plan that computes the bundle is kept, with its agreement, and opens."""
    put(monkeypatch, FakeMachine())
    report = compile_bundle(toy.folder, "tensorrt", Settings(cache=tmp_path))
    assert report["status"] == "ready"
    assert report["agreement"] == {"values": 0.0, "state": 0.0, "codes": None, "labels": 1.0}
    beside = json.loads(Path(report["plan"] + ".json").read_text())
    assert (beside["status"], beside["agreement"]) == ("ready", report["agreement"])
    tensorrt.Config(cache=tmp_path).open(toy).close()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (scaled("w", 1.01), "values differ by 0.01 of their range"),
        (scaled("w", -1.0), "of the labels agree"),
        (scaled("keep", 0.9), "state differ"),
        (forgetful, "values differ"),
        (not_finite, "values differ by inf"),
    ],
)
def test_what_does_not_agree_is_refused(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path, spoil: Any, said: str
) -> None:
    """A plan of other values, state or labels is never called ready, and nothing of it is kept."""
    put(monkeypatch, FakeMachine(spoil=spoil))
    with pytest.raises(PlanError, match=said) as error:
        compile_bundle(toy.folder, "tensorrt", Settings(cache=tmp_path))
    assert "No plan was kept" in str(error.value)
    assert plans(tmp_path) == []


def test_other_codes_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Latents within the bar do not help where the codes differ."""
    folder = toy_codec.write_tokenizer(tmp_path / "codec")
    put(monkeypatch, FakeMachine(spoil=scaled("steps", 1.0005)))
    with pytest.raises(PlanError, match=r"of the codes agree, at least 99\.90% must"):
        compile_bundle(folder, "tensorrt", Settings(cache=tmp_path / "cache"))


def test_a_plan_that_was_good_survives_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path
) -> None:
    """A compilation that fails leaves the plan of before as it was."""
    put(monkeypatch, FakeMachine())
    compile_bundle(toy.folder, "tensorrt", Settings(cache=tmp_path))
    before = {path: path.read_bytes() for path in plans(tmp_path)}
    put(monkeypatch, FakeMachine(spoil=scaled("w", 2.0)))
    with pytest.raises(PlanError):
        compile_bundle(toy.folder, "tensorrt", Settings(cache=tmp_path))
    assert {path: path.read_bytes() for path in plans(tmp_path)} == before


def test_all_rows_are_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bundle for any montage is run with one channel and with as many as the plan takes."""
    machine = put(monkeypatch, FakeMachine())
    folder = toy_codec.write_tokenizer(tmp_path / "codec")
    report = compile_bundle(folder, "tensorrt", Settings(batch=5, cache=tmp_path / "cache"))
    assert report["rows"] == "1 to 5"
    assert report["agreement"]["codes"] == 1.0
    assert len(machine.loaded) == 2


def test_without_a_gpu_nothing_is_ready(monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path) -> None:
    """What could not be run is built, kept, and not called ready."""
    machine = put(monkeypatch, FakeMachine(replace(HERE, gpu=None)))
    report = compile_bundle(toy.folder, "tensorrt", Settings(capability="8.9", cache=tmp_path))
    assert (report["status"], report["agreement"]) == (NOT_VALIDATED, None)
    assert json.loads(Path(report["plan"] + ".json").read_text())["status"] == "not validated"
    assert machine.orders[0].capability == "8.9"
    assert machine.loaded == []


@pytest.mark.parametrize(
    ("gpu", "settings", "said"),
    [
        (True, Settings(capability="12.0"), r"not that of the GPU here, Fake RTX \(8.9\)"),
        (False, Settings(), "no NVIDIA GPU here"),
        (True, Settings(batch=2), "has one row, and no more"),
        (True, Settings("int8"), "--calibrate FILE"),
    ],
)
def test_what_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path, gpu: bool, settings: Settings, said: str
) -> None:
    """Options that contradict the machine or the bundle are errors that say what to do."""
    put(monkeypatch, FakeMachine(HERE if gpu else replace(HERE, gpu=None)))
    with pytest.raises(ConfigError, match=said):
        compile_bundle(toy.folder, "tensorrt", replace(settings, cache=tmp_path))
    assert plans(tmp_path) == []


def test_only_tf32_lets_float32_be_rounded(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path
) -> None:
    """TF32 is allowed where it was asked for, and nowhere else."""
    machine = put(monkeypatch, FakeMachine())
    for precision in ("fp32", "fp16", "tf32"):
        compile_bundle(toy.folder, "tensorrt", Settings(precision, cache=tmp_path))
    assert [order.tf32 for order in machine.orders] == [False, False, True]


def test_timings_of_one_build_serve_the_next(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path
) -> None:
    """The timing cache lies beside the plans, and is given to the next build."""
    machine = put(monkeypatch, FakeMachine())
    for _ in range(2):
        compile_bundle(toy.folder, "tensorrt", Settings(cache=tmp_path))
    assert [order.timing for order in machine.orders] == [b"", b"times"]


def ends(graph: bytes) -> set[tuple[str, int]]:
    model = onnx.load_from_string(graph)
    return {(end.name, end.type.tensor_type.elem_type) for end in (*model.graph.input, *model.graph.output)}


def test_half_precision_has_float32_edges(toy: Bundle) -> None:
    """Input, outputs and state of a cast graph are as before; what is between is float16."""
    graph = cast(toy, "fp16")
    assert ends(graph) == ends(toy.graph_bytes)
    readout = [one for one in onnx.load_from_string(graph).graph.initializer if one.name == "w"]
    assert readout[0].data_type == TensorProto.FLOAT16


def test_a_cast_is_judged_before_it_is_compiled(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path
) -> None:
    """A cast that costs too much is refused without anything being built."""
    machine = put(monkeypatch, FakeMachine())
    monkeypatch.setitem(compiling.BARS, "fp16", Agreement(values=1e-9, state=1.0))
    with pytest.raises(PlanError, match="cast to fp16 and run by ONNX Runtime, does not compute"):
        compile_bundle(toy.folder, "tensorrt", Settings("fp16", cache=tmp_path))
    assert machine.orders == []


def write_noise(path: Path, bundle: Bundle, seconds: float, scale: float = 20.0) -> Path:
    """Write noise with a bundle's channels in the project's own format."""
    contract = bundle.manifest.input
    n = len(contract.ch_names)
    data = np.random.default_rng(0).normal(scale=100, size=(n, int(seconds * contract.sfreq)))
    np.savez(
        path,
        data=data.astype(np.int16), scale=np.full(n, scale / 100), offset=np.zeros(n), sfreq=contract.sfreq,
        units="uV", ch_names=np.array(contract.ch_names), ch_types=np.array(["eeg"] * n),
        events=np.zeros((0, 3), dtype=np.int32), event_codes="{}", meta=json.dumps({"continuous": True}),
    )  # fmt: skip
    return path


def convolved() -> bytes:
    """Return the toy's graph with the read-out as a convolution over time, which int8 takes."""
    model = onnx.load_from_string(toy_graph())
    kernel = (weights().T[:, :, None] / np.float32(HOP)).repeat(HOP, axis=2)  # (classes, channels, hop)
    model.graph.initializer.extend(
        [numpy_helper.from_array(kernel, "k"), numpy_helper.from_array(np.array([2], dtype=np.int64), "two")]
    )
    rest = [node for node in model.graph.node if node.op_type not in ("ReduceMean", "MatMul")]
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Conv", ["x", "k"], ["wide"]))
    model.graph.node.append(helper.make_node("Squeeze", ["wide", "two"], ["now"]))
    model.graph.node.extend(rest)
    return bytes(model.SerializeToString())


@pytest.fixture
def conv(toy_writer: Callable[..., Path]) -> Bundle:
    """The toy with a convolution in it."""
    return load(toy_writer(convolved()))


def test_eight_bits_take_ranges_from_one_half_and_are_judged_on_the_other(
    monkeypatch: pytest.MonkeyPatch, conv: Bundle, tmp_path: Path
) -> None:
    """On signal like that of its ranges the toy's int8 passes the gate, and its plan is ready."""
    put(monkeypatch, FakeMachine())
    file = write_noise(tmp_path / "noise.npz", conv, 20.0)
    report = compile_bundle(conv.folder, "tensorrt", Settings("int8", calibrate=file, cache=tmp_path / "c"))
    assert report["status"] == "ready"
    assert 0.0 < report["cast_alone"]["values"] < BARS["int8"].values


def test_eight_bits_with_the_wrong_ranges_are_refused(conv: Bundle) -> None:
    """Ranges of a signal a hundredth as large clip the real one, which the gate sees."""
    frames = noise_frames(conv)
    graph = cast(conv, "int8", frames / 100)
    with OnnxRuntimeBackend(conv) as one, OnnxRuntimeBackend(replace(conv, graph_bytes=graph)) as other:
        found = compare(conv, one.runner(), other.runner(), frames)
    assert shortfalls(found, BARS["int8"])


def test_eight_bits_of_nothing_are_refused(toy: Bundle) -> None:
    """A bundle without convolutions would be the same in int8, and is told so."""
    with pytest.raises(BundleError, match="no convolutions"):
        cast(toy, "int8", noise_frames(toy))


def test_a_recording_of_any_montage_judges_a_codec(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path
) -> None:
    """Eight channels of a recording judge a plan for five, and one for twenty."""
    put(monkeypatch, FakeMachine())
    folder = toy_codec.write_tokenizer(tmp_path / "codec")
    file = write_noise(tmp_path / "noise.npz", toy, 20.0)
    for batch in (5, 20):
        settings = Settings(batch=batch, calibrate=file, cache=tmp_path / "cache")
        assert compile_bundle(folder, "tensorrt", settings)["agreement"]["codes"] == 1.0


def test_a_recording_must_be_long_enough(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path
) -> None:
    """A few steps are no ground to judge on."""
    put(monkeypatch, FakeMachine())
    file = write_noise(tmp_path / "noise.npz", toy, 2.0)
    with pytest.raises(ConfigError, match="Take a longer recording"):
        compile_bundle(toy.folder, "tensorrt", Settings("int8", calibrate=file, cache=tmp_path / "c"))


def test_codes_are_not_made_of_eight_bits(tmp_path: Path) -> None:
    """Neither end of a codec is quantised."""
    for write in (toy_codec.write_tokenizer, toy_codec.write_decoder):
        bundle = load(write(tmp_path / write.__name__))
        with pytest.raises(BundleError, match="codes"):
            cast(bundle, "int8", noise_frames(bundle))


def test_the_probe_is_what_a_run_would_feed(toy: Bundle, tmp_path: Path) -> None:
    """Frames of a recording went through the bundle's filters: a constant is filtered out of them."""
    file = write_noise(tmp_path / "noise.npz", toy, 20.0)
    plain = recording_frames(toy, file)
    assert plain.shape == (320, 1, 8, 10)
    content = dict(np.load(file))
    content["offset"] = np.full(8, 100.0)
    np.savez(tmp_path / "high.npz", **content)
    moved = recording_frames(toy, tmp_path / "high.npz")
    assert np.abs(moved[100:] - plain[100:]).max() < 1e-2


def test_the_probe_fills_the_context(toy: Bundle, tmp_path: Path) -> None:
    """Noise is longer than the left context, and the rows of a batch differ."""
    assert len(noise_frames(toy)) == MIN_FRAMES
    far = toy.manifest.graph.model_copy(update={"left_context": 4000})
    bundle = replace(toy, manifest=toy.manifest.model_copy(update={"graph": far}))
    assert len(noise_frames(bundle)) == 500
    frames = noise_frames(at_rows(load(toy_codec.write_tokenizer(tmp_path / "codec")), 3))
    assert frames.shape[1] == 3
    assert not np.array_equal(frames[:, 0], frames[:, 1])


def test_codes_of_the_probe_are_codes(tmp_path: Path) -> None:
    """A decoder is fed whole numbers within its codebooks and gains."""
    bundle = load(toy_codec.write_decoder(tmp_path / "decoder"))
    frames = noise_frames(at_rows(bundle, 2))
    assert np.array_equal(frames, frames.round())
    assert frames[:, :, :-1].max() < toy_codec.CODEBOOK_SIZE
    assert frames[:, :, -1].max() < toy_codec.N_GAINS
    assert frames.min() >= 0


def test_the_command_says_one_document(monkeypatch: pytest.MonkeyPatch, toy: Bundle, tmp_path: Path) -> None:
    """`--json` prints the report; a refusal is exit code 2 and one message."""
    put(monkeypatch, FakeMachine())
    words = ["compile", str(toy.folder), "--cache", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, json.loads(done.stdout)["status"]) == (0, "ready")
    put(monkeypatch, FakeMachine(spoil=scaled("w", 2.0)))
    refused = CliRunner().invoke(app, words)
    assert (refused.exit_code, json.loads(refused.stdout)["error"]["type"]) == (2, "PlanError")


def test_for_onnx_runtime_a_bundle_is_made_int8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its int8 form goes into the folder named, judged on the recording given; nothing else is to be made."""
    asked: list[Any] = []

    def fake(bundle: Bundle, folder: Path, *, probe: Path | None) -> dict[str, Any]:
        asked.append((bundle.manifest.name, folder, probe))
        return {"hops": 7}

    monkeypatch.setattr(compiling, "quantise", fake)
    settings = Settings("int8", calibrate=tmp_path / "a.edf", output=tmp_path / "small")
    report = compile_bundle("motor-imagery", "onnxruntime", settings)
    assert (report["status"], report["hops"]) == ("ready", 7)
    assert asked == [("motor-imagery", tmp_path / "small", tmp_path / "a.edf")]
    for wrong in (Settings("int8"), Settings("fp16", output=tmp_path)):
        with pytest.raises(ConfigError, match="--precision int8, and --output"):
            compile_bundle("motor-imagery", "onnxruntime", wrong)


def test_what_the_backend_has_no_use_for_is_refused(tmp_path: Path) -> None:
    """An option of the other backend is not passed over in silence."""
    with pytest.raises(ConfigError, match="--output: not for --backend tensorrt"):
        compile_bundle("workload", "tensorrt", Settings(output=tmp_path))
    with pytest.raises(ConfigError, match="--batch, --capability: not for --backend onnxruntime"):
        compile_bundle(
            "workload", "onnxruntime", Settings("int8", batch=2, capability="8.9", output=tmp_path)
        )


def test_free_rows_are_compiled_for_as_many_as_asked(toy_rows: Bundle) -> None:
    """A graph of free rows takes one by default and up to the most; a fixed one takes no more than one."""
    assert compiling._greatest(toy_rows, None) == 1
    assert compiling._greatest(toy_rows, 64) == 64
    with pytest.raises(ConfigError, match="1 to 1024 rows"):
        compiling._greatest(toy_rows, 5000)
    with pytest.raises(ConfigError, match="one row, and no more"):
        compiling._greatest(load("workload-mcsp"), 2)
