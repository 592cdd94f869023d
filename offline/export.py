"""Writes a trained model as a bundle: its step function in ONNX, checked against torch before it is kept.

The parts of a pretrained system are written by `offline.export_part`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from engine.bundle import FORMAT, MANIFEST, Bundle, Graph, Manifest, digest
from engine.bundle import load as load_bundle
from engine.bundle_folder import CARD, refuse_other, replace_files
from engine.head import Head
from engine.manifest import PRODUCTS
from offline.export_graph import (
    GRAPH_FILE,
    OPSET,
    TOLERANCE,
    Array,
    check_parity,
    describe,
    export_step,
    noise,
    probes,
    step_graph,
    streamlined,
)
from offline.head_statistics import attach
from offline.probe.features import Signal
from offline.provenance import versions
from offline.train.data import training_sessions, validation_sessions
from offline.train.recipe import Recipe
from offline.train.run import Run, load_model
from streamer.errors import RecordingError

__all__ = [
    "OPSET", "TOLERANCE", "check_parity", "describe", "export", "export_run", "load_model", "noise",
    "real_probe", "step_graph", "write",
]  # fmt: skip

WHERE = {"path", "prefix", "include", "exclude"}  # of a folder: not how it is read
PROBE_HOPS = 600  # real signal to check parity on: longer than any left context so far
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime")


def export(run: Run, folder: str | Path, *, probe: Array | None = None, model: Any = None) -> Bundle:
    """Write the bundle of a finished training.

    Parameters
    ----------
    folder : str or Path
        Made where it does not exist; a model card that is already in it is kept.
    probe : ndarray, shape (1, C, T), float32, optional
        Real preprocessed signal for the parity check, beside the random one.
    model : nn.Module, optional
        Instead of what the training came to.

    Raises
    ------
    ConfigError
        The folder holds another bundle, or cannot be written.
    BundleError
        The graph does not compute what the model computes: nothing is written.
    """
    refuse_other(Path(folder), run.recipe.card.name)
    n_chans = run.recipe.model.n_chans
    model = streamlined(load_model(run) if model is None else model, n_chans)
    graph_bytes, graph = export_step(model, n_chans)
    signals = probes(model, n_chans, graph) + ([] if probe is None else [probe])
    check_parity(model, graph_bytes, graph, signals)
    return write(_manifest(run, graph), graph_bytes, Path(folder))


def export_run(run: Run, folder: str | Path) -> Bundle:
    """Write the bundle of a finished training with all that its recordings, where they are there, can add.

    That is real signal for the parity check, and the head with the latents of the training people, from
    which `bcistream calibrate` starts, and what a refit gains the validation people.

    Raises
    ------
    ConfigError
        As `export`.
    BundleError
        As `export`; or the logits are not linear in the latent.
    """
    refuse_other(Path(folder), run.recipe.card.name)
    bundle = export(run, folder, probe=real_probe(run))
    try:
        sessions, held_out = training_sessions(run.recipe), validation_sessions(run.recipe)
    except RecordingError:
        return bundle
    return attach(folder, sessions, held_out, centred=_centred(run))


def real_probe(run: Run) -> Array | None:
    """Return some seconds of a validation recording, preprocessed; None where there are no recordings."""
    recipe = run.recipe
    try:
        session = validation_sessions(recipe)[0]
    except RecordingError:
        return None
    data = Signal(recipe.ch_names, recipe.sfreq, run.dsp).stretches(session.recording)[0].data
    hop = recipe.model.hop
    length = min(len(data) // hop * hop, PROBE_HOPS * hop)
    return np.ascontiguousarray(data[:length].T[None])  # (1, C, T)


def _centred(run: Run) -> Head | None:
    """Return the model's layer for latents minus the person's own mean at rest; None where it has none."""
    layer = getattr(load_model(run), "centred", None)
    if layer is None:
        return None
    weight, bias = (part.detach().double().numpy() for part in (layer.weight, layer.bias))
    return Head(weight, bias)


def write(manifest: dict[str, Any], graph_bytes: bytes, folder: Path) -> Bundle:
    """Write the files and the manifest with their hashes, and read the bundle back; a card there is kept."""
    card = folder / CARD
    empty = f"# {manifest['title']}\n\nNo card has been written for this bundle yet.\n"
    contents = {
        GRAPH_FILE: graph_bytes,
        CARD: card.read_bytes() if card.is_file() else empty.encode(),
    }
    hashes = {name: digest(content) for name, content in contents.items()}
    checked = Manifest.model_validate({"format": FORMAT, **manifest, "files": hashes})
    unused = set(PRODUCTS) - {checked.product}
    text = json.dumps(checked.model_dump(mode="json", exclude=unused), indent=1)
    replace_files(folder, {**contents, MANIFEST: f"{text}\n".encode()})
    return load_bundle(folder)


def _manifest(run: Run, graph: Graph) -> dict[str, Any]:
    recipe = run.recipe
    return {
        **recipe.card.model_dump(),
        "input": {
            "stype": recipe.stype,
            "sfreq": recipe.sfreq,
            "unit": "uV",
            "ch_names": recipe.ch_names,
            "min_present": recipe.min_present,
            "dsp": [step.model_dump(mode="json") for step in run.dsp],
        },
        "graph": graph.model_dump(mode="json"),
        "readout": {
            "classes": recipe.classes,
            "idle": recipe.idle,
            "logits": "logits",
            "latent": "latent",
            "temperature": run.temperature,
            "decision": run.decision.model_dump(mode="json"),
            "operating": [point.model_dump(mode="json") for point in run.operating],
        },
        "provenance": _provenance(run),
    }


def _provenance(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    return {
        "trained_on": {"folder": _places(recipe), **run.subjects},
        "fingerprints": run.fingerprints,
        "recipe": recipe.digest(),
        "design": recipe.design(),
        "seed": recipe.seed,
        "validation": run.scores,
        "task": _task(recipe),
        "versions": run.versions | versions(*TOOLS),
    }


def _task(recipe: Recipe) -> dict[str, Any]:
    """Return what the bundle is asked, and how recordings like those it learned from are read."""
    folders = recipe.data.folders
    return {
        "protocol": recipe.protocol.model_dump(mode="json"),
        "folder": folders[0].model_dump(mode="json", exclude=WHERE) if folders else {},
        "stype": recipe.stype,
    }


def _places(recipe: Recipe) -> str:
    """Return the names of folders and data sets, not where they are on this machine."""
    data = recipe.data
    return ", ".join([*(one.path.name for one in data.folders), *(one.dataset for one in data.moabb)])
