"""A codec small enough to compute by hand: two bundles for any montage, the tokenizer and its decoder.

The tokenizer's state is a leaky mean of each channel; its codes are that mean on three grids, each four
times as fine as the one before, and its gain code is the hop's mean size.  The decoder's state is a leaky
sum of the codes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.bundle import digest

HOP, SFREQ, KEEP = 12, 250.0, 0.5
N_CODEBOOKS, CODEBOOK_SIZE, N_GAINS, DIM = 3, 256, 128, 2
CODEC = "0123456789abcdef"
FREE = "channels"
STEPS = (16.0, 4.0, 1.0)


def tokenizer_graph() -> bytes:
    """Return x (C, 1, HOP), state (C, 1) -> codes (C, 1, 3), gain (C, 1), latent (C, 1, 2), state."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "time"], ["now"], keepdims=0),  # (C, 1)
        helper.make_node("Mul", ["state_0", "keep"], ["kept"]),
        helper.make_node("Add", ["kept", "now"], ["state_0_out"]),
        helper.make_node("Unsqueeze", ["state_0_out", "last"], ["level"]),  # (C, 1, 1)
        helper.make_node("Div", ["level", "steps"], ["graded"]),  # (C, 1, 3)
        helper.make_node("Round", ["graded"], ["whole"]),
        helper.make_node("Add", ["whole", "middle"], ["shifted"]),
        helper.make_node("Clip", ["shifted", "zero", "top"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["codes"], to=TensorProto.INT64),
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("ReduceMean", ["size", "time"], ["mean_size"], keepdims=0),
        helper.make_node("Clip", ["mean_size", "zero", "loudest"], ["loud"]),
        helper.make_node("Cast", ["loud"], ["gain"], to=TensorProto.INT64),
        helper.make_node("Mul", ["level", "both"], ["latent"]),  # (C, 1, 2)
    ]
    constants = {
        "time": np.array([2], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
        "keep": np.array(KEEP, dtype=np.float32),
        "steps": np.array(STEPS, dtype=np.float32),
        "middle": np.array(CODEBOOK_SIZE // 2, dtype=np.float32),
        "zero": np.array(0, dtype=np.float32),
        "top": np.array(CODEBOOK_SIZE - 1, dtype=np.float32),
        "loudest": np.array(N_GAINS - 1, dtype=np.float32),
        "both": np.array([1.0, -1.0], dtype=np.float32),
    }
    return _model(
        nodes,
        {"x": ([FREE, 1, HOP], TensorProto.FLOAT), "state_0": ([FREE, 1], TensorProto.FLOAT)},
        {
            "codes": ([FREE, 1, N_CODEBOOKS], TensorProto.INT64),
            "gain": ([FREE, 1], TensorProto.INT64),
            "latent": ([FREE, 1, DIM], TensorProto.FLOAT),
            "state_0_out": ([FREE, 1], TensorProto.FLOAT),
        },
        constants,
    )


def decoder_graph() -> bytes:
    """Return x (C, 4, 1), state (C, 1) -> signal (C, 1, HOP), state: a leaky sum times a ramp."""
    nodes = [
        helper.make_node("Mul", ["x", "weights"], ["weighted"]),  # (C, 4, 1)
        helper.make_node("ReduceSum", ["weighted", "rows"], ["now"], keepdims=0),  # (C, 1)
        helper.make_node("Mul", ["state_0", "keep"], ["kept"]),
        helper.make_node("Add", ["kept", "now"], ["state_0_out"]),
        helper.make_node("Unsqueeze", ["state_0_out", "last"], ["level"]),  # (C, 1, 1)
        helper.make_node("Mul", ["level", "ramp"], ["signal"]),  # (C, 1, HOP)
    ]
    weights = np.array([16.0, 4.0, 1.0, 0.25], dtype=np.float32)[:, None]
    constants = {
        "weights": weights,
        "rows": np.array([1], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
        "keep": np.array(KEEP, dtype=np.float32),
        "ramp": np.arange(1, HOP + 1, dtype=np.float32) / HOP,
    }
    return _model(
        nodes,
        {"x": ([FREE, N_CODEBOOKS + 1, 1], TensorProto.FLOAT), "state_0": ([FREE, 1], TensorProto.FLOAT)},
        {"signal": ([FREE, 1, HOP], TensorProto.FLOAT), "state_0_out": ([FREE, 1], TensorProto.FLOAT)},
        constants,
    )


def _model(
    nodes: list[Any],
    inputs: dict[str, tuple[list[Any], int]],
    outputs: dict[str, tuple[list[Any], int]],
    constants: dict[str, np.ndarray],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


STATE = [{"input": "state_0", "output": "state_0_out", "shape": [1, 1]}]
SHARED = {"codec": CODEC, "n_codebooks": N_CODEBOOKS, "codebook_size": CODEBOOK_SIZE, "n_gains": N_GAINS}


def tokenizer_manifest(graph: bytes) -> dict[str, Any]:
    """Return the tokenizer's manifest as it stands in JSON."""
    return {
        "format": 1, "name": "toy-codec", "version": "1", "title": "a leaky mean in codes", "system": "toy",
        "input": {
            "stype": "EEG", "sfreq": SFREQ, "unit": "uV", "per_channel": True,
            "dsp": [{"kind": "bandpass", "low": 0.5, "high": 40.0}],
        },
        "graph": {
            "input": {"name": "x", "shape": [1, 1, HOP]},
            "outputs": [
                {"name": "codes", "shape": [1, 1, N_CODEBOOKS], "dtype": "int64"},
                {"name": "gain", "shape": [1, 1], "dtype": "int64"},
                {"name": "latent", "shape": [1, 1, DIM]},
            ],
            "state": STATE, "hop": HOP, "left_context": 3 * HOP,
        },
        "tokens": {**SHARED, "codes": "codes", "gain": "gain", "latent": "latent"},
        "files": {"step.onnx": digest(graph)},
    }  # fmt: skip


def decoder_manifest(graph: bytes) -> dict[str, Any]:
    """Return the decoder's manifest as it stands in JSON."""
    return {
        "format": 1, "name": "toy-codec-decoder", "version": "1", "title": "codes back to ramps",
        "system": "toy",
        "input": {"stype": "EEG", "sfreq": SFREQ / HOP, "unit": "codes", "per_channel": True},
        "graph": {
            "input": {"name": "x", "shape": [1, N_CODEBOOKS + 1, 1]},
            "outputs": [{"name": "signal", "shape": [1, 1, HOP]}],
            "state": STATE, "hop": 1, "left_context": 3,
        },
        "signal": {**SHARED, "output": "signal", "sfreq": SFREQ},
        "files": {"step.onnx": digest(graph)},
    }  # fmt: skip


def write(folder: Path, manifest: dict[str, Any], graph: bytes, **changes: Any) -> Path:
    """Write a bundle, its manifest changed at dotted paths; return the folder."""
    for path, value in changes.items():
        *parents, last = path.split(".")
        target = manifest
        for part in parents:
            target = target[part]
        target[last] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "step.onnx").write_bytes(graph)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def write_tokenizer(folder: Path, **changes: Any) -> Path:
    """Write the tokenizer; return its folder."""
    graph = tokenizer_graph()
    return write(folder, tokenizer_manifest(graph), graph, **changes)


def write_decoder(folder: Path, **changes: Any) -> Path:
    """Write the decoder; return its folder."""
    graph = decoder_graph()
    return write(folder, decoder_manifest(graph), graph, **changes)


def decoded(codes: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return what the decoder makes of codes (F, C, K) and gains (F, C), in NumPy: (F * HOP, C) float32."""
    level, frames = np.zeros(codes.shape[1], dtype=np.float32), []
    weights = np.array([16.0, 4.0, 1.0], dtype=np.float32)
    ramp = np.arange(1, HOP + 1, dtype=np.float32) / HOP
    for code, loud in zip(codes, gain, strict=True):
        now = code.astype(np.float32) @ weights + np.float32(0.25) * loud.astype(np.float32)
        level = np.float32(KEEP) * level + now
        frames.append(ramp[:, None] * level)
    return np.concatenate(frames)
