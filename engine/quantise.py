"""Dynamic int8 on the CPU: a bundle whose matrix products run in eight bits, kept where it says the same.

Weights are rounded once, activations at each step by their own range.  It pays where a model is made of
products with weights: a transformer of 12 blocks takes half the time and a quarter of the file.  Convolutions
stay as they are, and codecs are refused: a code that moves is another code.

The range is that of all rows together, so that one stream would change what another gets: the bundle that is
written takes one.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.adapt import fit
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import MANIFEST, Bundle, digest, load
from engine.bundle_folder import CARD, refuse_other, replace_files
from engine.framer import Framer
from engine.manifest import PRODUCTS as KINDS
from streamer.acquire import feed
from streamer.errors import BundleError, ConfigError, EndOfStream, MissingDependency
from streamer.types import Chunk, StreamInfo, make_chunk

PRODUCTS = ("MatMul", "Gemm")
LEAST_SHARE = 0.5  # of the weights that must be in products for it to be worth anything
MAX_ERROR = 0.05  # rms of the difference, of the output's own rms; a 12 x 200 transformer had 0.011
MIN_AGREEMENT = 0.98  # share of hops with the same most probable class
MIN_HOPS = 64
N_HOPS = 600  # of the probe, the model's left context among them
NOISE_UV = 20.0
Hops = NDArray[np.float32]
Found = dict[str, NDArray[np.float32]]


def quantise(
    reference: str | Path | Bundle, folder: str | Path, *, probe: Path | None = None
) -> dict[str, Any]:
    """Write the int8 form of a bundle, if it says what the bundle says.

    Parameters
    ----------
    reference : str, Path or Bundle
        The bundle; a folder, or the name of a shipped one.
    folder : str or Path
        Where the new one goes; made where it does not exist.
    probe : Path, optional
        A recording to compare the two on; noise through the bundle's DSP list by default.

    Returns
    -------
    dict
        The gate's figures: ``hops`` compared; ``error`` of each output (rms, relative); ``agreement`` of the
        most probable class, for decisions; ``step_ms`` and ``bytes`` before and after.

    Raises
    ------
    MissingDependency
        The package ``onnx`` is not installed.
    BundleError
        A codec, or a graph whose weights are not in matrix products; or the int8 form says something else:
        nothing is written.
    ConfigError
        The folder holds anything but an int8 form of this bundle, or cannot be written.
    """
    bundle = reference if isinstance(reference, Bundle) else load(reference)
    target = Path(folder)
    if target.resolve() == bundle.folder.resolve():
        raise ConfigError(f"{target} is the bundle itself: give another folder for its int8 form.")
    _refuse_other(target, bundle.manifest.name)
    _check_kind(bundle)
    content = _int8(bundle)
    small = replace(bundle, graph_bytes=content, manifest=_with_graph(bundle, content))
    figures = _compare(bundle, small, _hops(bundle, probe))
    said = {"probe": probe.name if probe else f"noise, {NOISE_UV:g} uV", **figures}
    _write(small, target, said)
    return {"bundle": bundle.label, "precision": "int8", "folder": str(target), **said}


def _refuse_other(folder: Path, name: str) -> None:
    """Refuse a folder that holds anything but an int8 form of a bundle of this name."""
    refuse_other(folder, name)
    if (folder / MANIFEST).exists() and load(folder).manifest.provenance.get("precision") != "int8":
        raise ConfigError(f"{folder} holds bundle {name} in float32: give another folder for its int8 form.")


def _check_kind(bundle: Bundle) -> None:
    """Refuse what int8 would harm, or would not help."""
    if bundle.manifest.product in ("tokens", "signal"):
        raise BundleError(
            f"Bundle {bundle.label} is a codec: in int8 its codes would be others, which no decoder of it "
            "knows."
        )
    if bundle.manifest.input.per_channel:
        raise BundleError(
            f"Bundle {bundle.label} takes each channel as a row, and int8 rounds by the range of all rows "
            "together: one channel would change what another gets."
        )
    share = _share(bundle)
    if share < LEAST_SHARE:
        raise BundleError(
            f"Bundle {bundle.label} has {share:.0%} of its weights in matrix products, the only ones that "
            f"int8 makes faster; {LEAST_SHARE:.0%} are asked for. It is for transformers: leave this one in "
            "float32."
        )


def _share(bundle: Bundle) -> float:
    """Return the share of the weights that are in matrix products."""
    graph = _onnx().load_from_string(bundle.graph_bytes).graph
    sizes: dict[str, int] = {item.name: math.prod(item.dims) for item in graph.initializer}
    inside: set[str] = {node.input[1] for node in graph.node if node.op_type in PRODUCTS}
    return sum(sizes.get(name, 0) for name in inside) / max(1, sum(sizes.values()))


def _int8(bundle: Bundle) -> bytes:
    """Return the graph with its products in int8, for one row."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    proto = _onnx().load_from_string(bundle.graph_bytes)
    del proto.graph.value_info[:]  # torch's own shapes make the quantiser's shape inference fail
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    done = proto.metadata_props.add()  # else it logs that it would like to be called twice
    done.key, done.value = "onnx.quant.pre_process", "onnxruntime.quant"
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "int8.onnx"
        quantize_dynamic(proto, out, op_types_to_quantize=list(PRODUCTS), weight_type=QuantType.QInt8)
        return out.read_bytes()


def _with_graph(bundle: Bundle, content: bytes) -> Any:
    """Return the manifest of a graph of one row with this content."""
    manifest = bundle.manifest
    graph = manifest.graph.model_copy(update={"rows": "one"})
    files = {**manifest.files, graph.file: digest(content)}
    return manifest.model_copy(update={"graph": graph, "files": files})


def _hops(bundle: Bundle, probe: Path | None) -> Hops:
    """Return the probe behind the bundle's DSP list, (n, 1, C, hop)."""
    graph = bundle.manifest.graph
    wanted = N_HOPS + math.ceil(graph.left_context / graph.hop)
    buffer = np.zeros(graph.input.shape, dtype=np.float32)
    framer, hops = Framer(buffer, graph.left_context), []
    info, chunks = _recorded(probe) if probe else _noise(bundle, wanted)
    chain = fit(bundle, info).chain
    for chunk in chunks:
        for _ in framer.frames(chain(chunk)):
            hops.append(buffer.copy())
        if len(hops) >= wanted:
            break
    if len(hops) < MIN_HOPS:
        raise ConfigError(
            f"{probe} gives {len(hops)} hops of {graph.hop} samples, fewer than {MIN_HOPS}: give a longer "
            "recording."
        )
    return np.stack(hops)


def _noise(bundle: Bundle, n_hops: int) -> tuple[StreamInfo, Sequence[Chunk]]:
    contract = bundle.manifest.input
    n, rows = len(contract.ch_names), (n_hops + 1) * bundle.manifest.graph.hop
    types = (contract.stype.lower(),) * n
    info = StreamInfo("noise", "", contract.stype, contract.sfreq, contract.ch_names, types, contract.unit)
    data = np.random.default_rng(0).normal(0, NOISE_UV, (rows, n)).astype(np.float32)
    return info, [make_chunk(data, 0, np.arange(rows) / contract.sfreq)]


def _recorded(path: Path) -> tuple[StreamInfo, list[Chunk]]:
    """Return a recording up to its first hole."""
    from streamer.sources.recording import Config as Recording

    chunks: list[Chunk] = []
    with Recording(path=path, speed="max").open() as source, feed(source) as samples:
        while True:
            try:
                chunk = samples.read(1.0)
            except EndOfStream:
                break
            if chunk is None or (chunks and chunk.discontinuity):
                break
            chunks.append(chunk)
        return samples.info, chunks


def _compare(bundle: Bundle, small: Bundle, hops: Hops) -> dict[str, Any]:
    """Return how far the two are from each other; `BundleError` where that is too far."""
    (wanted, before_ms), (found, after_ms) = _stepped(bundle, hops), _stepped(small, hops)
    errors = {name: _error(found[name], value) for name, value in wanted.items()}
    figures: dict[str, Any] = {
        "hops": len(hops),
        "error": {name: float(f"{error:.3g}") for name, error in errors.items()},
        "step_ms": [before_ms, after_ms],
        "bytes": [len(bundle.graph_bytes), len(small.graph_bytes)],
    }
    wrong = [f"{name} is off by {e:.1%} of its size" for name, e in errors.items() if not e <= MAX_ERROR]
    readout = bundle.manifest.readout
    if readout is not None:
        same = found[readout.logits].argmax(axis=-1) == wanted[readout.logits].argmax(axis=-1)
        figures["agreement"] = float(f"{same.mean():.4g}")
        if same.mean() < MIN_AGREEMENT:
            wrong.append(f"the most probable class is the same at {same.mean():.1%} of the hops")
    if wrong:
        raise BundleError(
            f"Bundle {bundle.label} says something else in int8, over {len(hops)} hops: {'; '.join(wrong)}. "
            f"At most {MAX_ERROR:.0%} and at least {MIN_AGREEMENT:.0%} are allowed: leave it in float32. "
            "Nothing was written."
        )
    return figures


def _stepped(bundle: Bundle, hops: Hops) -> tuple[Found, float]:
    """Return the floating-point outputs of each hop, (n, ...), and the median time of a step, ms."""
    names = [tensor.name for tensor in bundle.manifest.graph.outputs if tensor.dtype == "float32"]
    rows: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    took = []
    with OnnxRuntime().open(bundle) as backend:
        runner = backend.runner()
        runner.warm_up()
        for hop in hops:
            runner.input[:] = hop
            started = time.perf_counter()
            outputs = runner.step()
            took.append(time.perf_counter() - started)
            for name in names:
                rows[name].append(outputs[name].copy())
    return {name: np.stack(each) for name, each in rows.items()}, round(1e3 * float(np.median(took)), 4)


def _error(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    difference, size = (
        float(np.sqrt(np.square(a, dtype=np.float64).mean())) for a in (found - wanted, wanted)
    )
    return difference / size if size else difference


def _write(small: Bundle, folder: Path, figures: dict[str, Any]) -> None:
    """Write the bundle's files, and in its card and its provenance what int8 does to it."""
    manifest, contents = small.manifest, {small.manifest.graph.file: small.graph_bytes}
    for name in manifest.files:
        contents.setdefault(name, (small.folder / name).read_bytes())
    if CARD in contents:
        note = (
            f"\n## In int8\n\nMatrix products in eight bits (ONNX Runtime, dynamic): {json.dumps(figures)}\n"
        )
        contents[CARD] += note.encode()
    document = manifest.model_dump(mode="json", exclude=set(KINDS) - {manifest.product})
    document["provenance"] = {**manifest.provenance, "precision": "int8", "int8": figures}
    document["files"] = {name: digest(content) for name, content in contents.items()}
    replace_files(folder, {**contents, MANIFEST: f"{json.dumps(document, indent=1)}\n".encode()})
    load(folder)


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("To make a bundle int8 its graph is rewritten: pip install onnx") from error
    return onnx
