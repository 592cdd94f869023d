"""Writes a trained model as a bundle: its step function in ONNX, checked against torch before it is kept.

The parts of a pretrained system are written by `offline.export_part`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engine.bundle import FORMAT, MANIFEST, Bundle, Graph, Manifest, digest
from engine.bundle import load as load_bundle
from engine.manifest import PRODUCTS
from offline import run_folder
from offline.data.corpus import Corpus
from offline.data.trials import filtered
from offline.export_graph import (
    GRAPH_FILE,
    OPSET,
    TOLERANCE,
    Array,
    check_parity,
    describe,
    noise,
    step_graph,
)
from offline.provenance import versions
from offline.train import Run
from streamer.errors import RecordingError

__all__ = [
    "OPSET", "TOLERANCE", "check_parity", "describe", "export", "load_model", "real_probe", "step_graph",
    "write",
]  # fmt: skip

CARD_FILE = "MODEL_CARD.md"
PROBE_HOPS = 600  # real signal to check parity on: longer than any left context so far
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime")


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
    signals = [noise(model, n_chans)] + ([] if probe is None else [probe])
    check_parity(model, graph_bytes, graph, signals)
    return write(_manifest(run, graph), graph_bytes, Path(folder))


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
    run_folder.load_weights(run.recipe.output, model)
    return model.eval()


def write(manifest: dict[str, Any], graph_bytes: bytes, folder: Path) -> Bundle:
    """Write the files and the manifest with their hashes, and read the bundle back; a card there is kept."""
    card = folder / CARD_FILE
    empty = f"# {manifest['title']}\n\nNo card has been written for this bundle yet.\n"
    contents = {
        GRAPH_FILE: graph_bytes,
        CARD_FILE: card.read_bytes() if card.is_file() else empty.encode(),
    }
    hashes = {name: digest(content) for name, content in contents.items()}
    checked = Manifest.model_validate({"format": FORMAT, **manifest, "files": hashes})
    unused = set(PRODUCTS) - {checked.product}
    text = json.dumps(checked.model_dump(mode="json", exclude=unused), indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**contents, MANIFEST: f"{text}\n".encode()}.items():
        (folder / name).write_bytes(content)
    return load_bundle(folder)


def _manifest(run: Run, graph: Graph) -> dict[str, Any]:
    recipe = run.recipe
    return {
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
        "versions": run.versions | versions(*TOOLS),
    }
