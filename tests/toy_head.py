"""The toy bundle with a latent and a head of its own: what a calibration is tried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from toy_bundle import CLASSES, toy_graph, toy_manifest, write_bundle

from engine.bundle import digest
from engine.head import HEAD_FILE, Head, SourceHead, pack

LATENTS = len(CLASSES)


def head() -> Head:
    """Return a linear map that mixes the toy's three latents into its logits."""
    rng = np.random.default_rng(5)
    return Head(rng.normal(size=(LATENTS, LATENTS)), rng.normal(size=LATENTS))


def headed_graph(rows: int | str = 1) -> bytes:
    """Return the toy's graph with what were its logits as latent, and a linear layer behind."""
    model = onnx.load_from_string(toy_graph(rows))
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["latent" if name == "logits" else name for name in node.output]
    graph.node.extend(
        [
            helper.make_node("MatMul", ["latent", "head_w"], ["mixed"]),
            helper.make_node("Add", ["mixed", "head_b"], ["logits"]),
        ]
    )
    graph.initializer.extend(
        [
            numpy_helper.from_array(head().weight.T.astype(np.float32), "head_w"),
            numpy_helper.from_array(head().bias.astype(np.float32), "head_b"),
        ]
    )
    graph.output.append(helper.make_tensor_value_info("latent", onnx.TensorProto.FLOAT, [rows, 1, LATENTS]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def source(*, centred: bool = False) -> SourceHead:
    """Return the head with made-up people behind it."""
    means = np.eye(LATENTS)
    extra = Head(2 * np.eye(LATENTS), np.zeros(LATENTS)) if centred else None
    return SourceHead(head(), means, 0.5 * np.eye(LATENTS), 4, extra)


def headed_manifest(graph: bytes) -> dict[str, Any]:
    """Return the manifest, without the head file."""
    manifest = toy_manifest(graph)
    manifest["graph"]["outputs"].append({"name": "latent", "shape": [1, 1, LATENTS]})
    manifest["readout"]["latent"] = "latent"
    return manifest


def write_headed(folder: Path, content: bytes | None = None, *, rows: int | str = 1) -> Path:
    """Write the bundle; ``content`` instead of the right head file, ``rows`` a name where they are free."""
    graph = headed_graph(rows)
    head_bytes = pack(source()) if content is None else content
    manifest = headed_manifest(graph)
    manifest["graph"]["rows"] = "one" if rows == 1 else "free"
    manifest["readout"]["head"] = HEAD_FILE
    manifest["files"][HEAD_FILE] = digest(head_bytes)
    write_bundle(folder, manifest, graph)
    (folder / HEAD_FILE).write_bytes(head_bytes)
    return folder
