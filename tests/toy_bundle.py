"""A bundle small enough to compute by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.bundle import digest

CLASSES = ("rest", "left_fist", "right_fist")
HOP, SFREQ, KEEP = 10, 160.0, 0.75
CHANNELS = ("C3", "Cz", "C4", "CP3", "CP4", "FC3", "FC4", "Pz")


def weights() -> np.ndarray:
    """Return the toy's read-out; shape (n_chans, n_classes), float32."""
    return np.random.default_rng(7).normal(size=(len(CHANNELS), len(CLASSES))).astype(np.float32)


def toy_graph(rows: int | str = 1) -> bytes:
    """Return a step graph: the state is a leaky mean over time of the weighted channels, and the logits.

    ``rows`` is the first dimension, or its name where it is free.
    """
    nodes = [
        helper.make_node("ReduceMean", ["x", "time"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["now"]),
        helper.make_node("Mul", ["state_0", "keep"], ["kept"]),
        helper.make_node("Add", ["kept", "now"], ["state_0_out"]),
        helper.make_node("Unsqueeze", ["state_0_out", "one"], ["logits"]),
    ]
    constants = {
        "time": np.array([2], dtype=np.int64),
        "one": np.array([1], dtype=np.int64),
        "w": weights(),
        "keep": np.array(KEEP, dtype=np.float32),
    }
    n, k = len(CHANNELS), len(CLASSES)
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, n, HOP]),
            helper.make_tensor_value_info("state_0", TensorProto.FLOAT, [rows, k]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, 1, k]),
            helper.make_tensor_value_info("state_0_out", TensorProto.FLOAT, [rows, k]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def toy_manifest(graph: bytes) -> dict[str, Any]:
    """Return the toy's manifest as it stands in JSON."""
    n, k = len(CHANNELS), len(CLASSES)
    return {
        "format": 1,
        "name": "toy",
        "version": "1",
        "title": "a leaky mean",
        "system": "toy",
        "input": {
            "stype": "EEG",
            "sfreq": SFREQ,
            "unit": "uV",
            "ch_names": list(CHANNELS),
            "min_present": 5,
            "dsp": [{"kind": "bandpass", "low": 4.0, "high": 38.0}],
        },
        "graph": {
            "input": {"name": "x", "shape": [1, n, HOP]},
            "outputs": [{"name": "logits", "shape": [1, 1, k]}],
            "state": [{"input": "state_0", "output": "state_0_out", "shape": [1, k]}],
            "hop": HOP,
            "left_context": 40,
        },
        "readout": {"classes": list(CLASSES), "idle": "rest"},
        "files": {"step.onnx": digest(graph)},
    }


def write_bundle(folder: Path, manifest: dict[str, Any], graph: bytes) -> Path:
    """Write a bundle's two files; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "step.onnx").write_bytes(graph)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder
