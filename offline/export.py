"""Writes a trained model as a bundle: its step function in ONNX, checked against torch before it is kept."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from engine.bundle import FORMAT, MANIFEST, Bundle, Graph, Manifest, State, digest
from engine.bundle import Tensor as TensorSpec
from engine.bundle import load as load_bundle
from offline.data.corpus import Corpus
from offline.data.trials import filtered
from offline.provenance import versions
from offline.train import Run
from streamer.errors import BundleError, RecordingError

OPSET = 20  # from 23 on torch writes Attention, which TensorRT does not build in float32
TOLERANCE = 1e-5  # of the tensor's largest value, or absolute where that is below 1
GRAPH_FILE, CARD_FILE = "step.onnx", "MODEL_CARD.md"
PROBE_HOPS = 600  # real signal to check parity on: longer than any left context so far
Array = NDArray[np.float32]


def export(run: Run, folder: str | Path, *, probe: Array | None = None) -> Bundle:
    """Write the bundle of a finished training.

    Parameters
    ----------
    folder : str or Path
        Made where it does not exist; a model card that is already in it is kept.
    probe : ndarray, shape (1, C, T), float32, optional
        Real preprocessed signal for the parity check, beside the random one.

    Raises
    ------
    BundleError
        The graph does not compute what the model computes: nothing is written.
    """
    model, n_chans = load_model(run), run.recipe.model.n_chans
    graph_bytes, graph = step_graph(model, n_chans), describe(model, n_chans)
    signals = [_noise(model, n_chans)] + ([] if probe is None else [probe])
    check_parity(model, graph_bytes, graph, signals)
    return write(run, graph, graph_bytes, Path(folder))


def real_probe(run: Run) -> Array | None:
    """Return some seconds of a validation recording, preprocessed; None where there are no recordings."""
    try:
        corpus = Corpus(run.recipe.data.folder)
        recording = corpus.recordings(corpus.select(run.recipe.data.validate_)[0])[0]
    except RecordingError:
        return None
    data = filtered(recording, run.recipe.ch_names, run.dsp)
    hop = run.recipe.model.hop
    length = min(len(data) // hop * hop, PROBE_HOPS * hop)
    return np.ascontiguousarray(data[:length].T[None])  # (1, C, T)


def load_model(run: Run) -> nn.Module:
    """Return the trained model, its norms and dropout frozen."""
    model = run.recipe.model.build()
    path = run.recipe.output / "weights.pt"
    try:
        model.load_state_dict(torch.load(path, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise BundleError(f"Weights {path} cannot be used: {error}. Train again.") from error
    return model.eval()


class _Step(nn.Module):
    """The model with its state as flat arguments and its outputs in a fixed order."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names
        _, self.spec = pytree.tree_flatten(model.init_state(1))

    def forward(self, x: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, then the new state."""
        outputs, state = self.model(x, pytree.tree_unflatten(list(leaves), self.spec))
        return (*(outputs[name] for name in self.names), *pytree.tree_leaves(state))


def describe(model: Any, n_chans: int) -> Graph:
    """Return the manifest's description of the step graph: names, shapes, geometry."""
    x = torch.zeros(1, n_chans, model.hop)
    with torch.inference_mode():
        outputs, _ = model(x, model.init_state(1))
    leaves = pytree.tree_leaves(model.init_state(1))
    return Graph(
        file=GRAPH_FILE,
        input=TensorSpec(name="x", shape=tuple(x.shape)),
        outputs=tuple(TensorSpec(name=name, shape=tuple(value.shape)) for name, value in outputs.items()),
        state=tuple(
            State(input=f"state_{i}", output=f"state_{i}_out", shape=tuple(leaf.shape), dtype=_dtype(leaf))
            for i, leaf in enumerate(leaves)
        ),
        hop=model.hop,
        left_context=model.left_context,
        delay=model.delay,
    )


def step_graph(model: Any, n_chans: int) -> bytes:
    """Return the step as ONNX: batch 1, one hop, float32 edges, the state explicit."""
    import onnx

    graph = describe(model, n_chans)
    names = [tensor.name for tensor in graph.outputs]
    leaves = pytree.tree_leaves(model.init_state(1))
    with warnings.catch_warnings():
        # The exporter's own use of torch's and onnxscript's deprecated names is no concern of the user.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Step(model, names).eval(),
            (torch.zeros(1, n_chans, model.hop), *leaves),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["x", *(s.input for s in graph.state)],
            output_names=[*names, *(s.output for s in graph.state)],
        )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString()
    return content


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

    Returns
    -------
    float
        The largest difference, relative to its tensor's largest value where that exceeds 1.

    Raises
    ------
    BundleError
        It exceeds `TOLERANCE`.
    """
    worst = 0.0
    for signal in signals:
        expected_outputs, expected_state = _whole(model, signal)
        outputs, state = _stepped(graph_bytes, graph, signal)
        pairs = [(name, outputs[name], expected_outputs[name]) for name in outputs]
        pairs += [(s.output, a, b) for s, a, b in zip(graph.state, state, expected_state, strict=True)]
        for name, got, wanted in pairs:
            size = max(1.0, float(np.abs(wanted).max(initial=0.0)))
            difference = float(np.abs(got.astype(np.float64) - wanted).max(initial=0.0)) / size
            if not difference <= TOLERANCE:
                raise BundleError(
                    f"Export refused: {name} of the exported step differs from the model by {difference:.1e} "
                    f"after {signal.shape[-1]} samples; at most {TOLERANCE:.0e} is allowed. Does the model "
                    "carry all its state, and is nothing of it random or normalised over time?"
                )
            worst = max(worst, difference)
    return worst


def _whole(model: Any, signal: Array) -> tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]:
    with torch.inference_mode():
        outputs, state = model(torch.from_numpy(signal), model.init_state(1))
    return {k: v.numpy() for k, v in outputs.items()}, [leaf.numpy() for leaf in pytree.tree_leaves(state)]


def _stepped(
    graph_bytes: bytes, graph: Graph, signal: Array
) -> tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph_bytes, options, providers=["CPUExecutionProvider"])
    state = [np.zeros(s.shape, dtype=s.dtype) for s in graph.state]
    steps = []
    for start in range(0, signal.shape[-1], graph.hop):
        feed = {"x": np.ascontiguousarray(signal[..., start : start + graph.hop])}
        feed |= {s.input: value for s, value in zip(graph.state, state, strict=True)}
        values = session.run(None, feed)
        steps.append(values[: len(graph.outputs)])
        state = values[len(graph.outputs) :]
    joined = [np.concatenate(parts, axis=1) for parts in zip(*steps, strict=True)]
    return {t.name: value for t, value in zip(graph.outputs, joined, strict=True)}, state


def write(run: Run, graph: Graph, graph_bytes: bytes, folder: Path) -> Bundle:
    """Write the files and the manifest with their hashes, and read the bundle back."""
    folder.mkdir(parents=True, exist_ok=True)
    card = folder / CARD_FILE
    if not card.is_file():
        card.write_text(f"# {run.recipe.card.title}\n\nNo card has been written for this bundle yet.\n")
    (folder / GRAPH_FILE).write_bytes(graph_bytes)
    files = {name: digest((folder / name).read_bytes()) for name in (GRAPH_FILE, CARD_FILE)}
    manifest = Manifest.model_validate(_manifest(run, graph, files))
    text = json.dumps(manifest.model_dump(mode="json"), indent=1)
    (folder / MANIFEST).write_text(text + "\n")
    return load_bundle(folder)


def _manifest(run: Run, graph: Graph, files: dict[str, str]) -> dict[str, Any]:
    recipe = run.recipe
    return {
        "format": FORMAT,
        **recipe.card.model_dump(),
        "input": {
            "stype": "EEG",
            "sfreq": recipe.sfreq,
            "unit": "uV",
            "ch_names": recipe.ch_names,
            "min_present": recipe.min_present,
            "dsp": [step.model_dump(mode="json") for step in run.dsp],
        },
        "graph": graph.model_dump(mode="json"),
        "readout": {
            "classes": recipe.classes,
            "idle": recipe.classes[0],
            "logits": "logits",
            "latent": "latent",
            "temperature": run.temperature,
            "decision": recipe.decision.model_dump(mode="json"),
        },
        "provenance": _provenance(run),
        "files": files,
    }


def _provenance(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    return {
        "trained_on": {
            "folder": recipe.data.folder.name,
            "train": recipe.data.train,
            "validate": recipe.data.validate_,
        },
        "fingerprints": run.fingerprints,
        "recipe": recipe.digest(),
        "seed": recipe.seed,
        "validation": run.scores,
        "versions": run.versions | versions("torch", "onnx", "onnxscript", "onnxruntime"),
    }


def _noise(model: Any, n_chans: int) -> Array:
    """Return white noise longer than the model's left context, (1, C, T)."""
    hops = model.left_context // model.hop + 20
    return np.random.default_rng(0).standard_normal((1, n_chans, hops * model.hop), dtype=np.float32)


def _dtype(leaf: Tensor) -> Any:
    return str(leaf.dtype).removeprefix("torch.")
