"""Writes a fine-tuned model as a bundle that `bcistream run` decides with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.bundle import Bundle, Graph
from engine.bundle_folder import refuse_other
from offline.evaluate.protocol import Windows as WindowsAsked
from offline.export import TOOLS, WHERE, write
from offline.export_graph import Array, check_parity, export_step, probes
from offline.export_part import NOISE_UV
from offline.finetune.data import Labelled
from offline.finetune.recipe import Task
from offline.finetune.run import FinetuneRun, load_model, load_run
from offline.head_statistics import attach
from offline.probe.features import Signal
from offline.probe.tasks import Windows, find_windows, read_sessions
from offline.provenance import versions
from streamer.errors import RecordingError

PROBE_FRAMES = 300  # of a real recording, for the parity check


def export_decoder(run_folder: str | Path, out_folder: str | Path) -> Bundle:
    """Write the bundle of a fine-tuning.

    Parameters
    ----------
    run_folder : str or Path
        What `bcitrain finetune` wrote.
    out_folder : str or Path
        Made where it does not exist; a model card that is already in it is kept.

    Raises
    ------
    ConfigError
        No such run, or its weights are damaged; or the folder holds another bundle, or cannot be written.
    BundleError
        The graph does not compute what the model computes: nothing is written.
    """
    run, model = load_run(run_folder), load_model(run_folder)
    refuse_other(Path(out_folder), run.recipe.card.name)
    graph_bytes, graph = export_step(model, model.n_chans)
    signals = [*probes(model, model.n_chans, graph, NOISE_UV), *_recorded(run, model.hop)]
    check_parity(model, graph_bytes, graph, signals)
    bundle = write(_manifest(run, graph), graph_bytes, Path(out_folder))
    task = run.recipe.task
    try:
        sessions, held_out = (
            read_sessions(task.folder, run.subjects[side], task.stype, holes=True)
            for side in ("train", "validate")
        )
    except RecordingError:
        return bundle
    return attach(out_folder, sessions, held_out)


def _recorded(run: FinetuneRun, hop: int) -> list[Array]:
    """Return some seconds of a validation recording, behind the DSP list; none where it is gone."""
    first = run.subjects["validate"][:1]
    task = run.recipe.task.as_probe(run.model.sfreq)
    try:
        windows = find_windows(task.model_copy(update={"train": first, "test": first}))
    except RecordingError:
        return []
    signal = Signal(task.ch_names, run.model.sfreq, run.dsp)
    return [Labelled(signal, _first(windows), hop).stretch(0, PROBE_FRAMES)]


def _first(windows: Windows) -> Windows:
    """Return the windows of the first recording."""
    mine = windows.session == 0
    return Windows(
        windows.sessions[:1],
        windows.session[mine],
        windows.start_s[mine],
        windows.stop_s[mine],
        windows.labels[mine],
        windows.subjects[mine],
    )


def _manifest(run: FinetuneRun, graph: Graph) -> dict[str, Any]:
    recipe = run.recipe
    return {
        **recipe.card.model_dump(),
        "system": run.model.system.kind,
        "input": {
            "stype": recipe.task.stype,
            "sfreq": run.model.sfreq,
            "unit": run.unit,
            "ch_names": recipe.task.ch_names,
            "min_present": recipe.min_present,
            "dsp": [step.model_dump(mode="json") for step in run.dsp],
        },
        "graph": graph.model_dump(mode="json"),
        "readout": {
            "classes": recipe.task.classes,
            "idle": recipe.idle,
            "logits": "logits",
            "latent": "latent",
            "temperature": run.temperature,
            "decision": recipe.decision.model_dump(mode="json"),
        },
        "provenance": _provenance(run),
    }


def _provenance(run: FinetuneRun) -> dict[str, Any]:
    return {
        "trained_on": {"folder": run.recipe.task.folder.path.name, **run.subjects},
        "fingerprints": run.fingerprints,
        "backbone": run.backbone,
        "recipe": run.recipe.course(),
        "task": _task(run.recipe.task),
        "windows": run.windows,
        "kept": run.kept,
        "validation": run.scores,
        "validation_of_frozen": run.start,
        "notes": run.notes,
        "versions": run.versions | versions(*TOOLS),
        "machine": run.machine,
    }


def _task(task: Task) -> dict[str, Any]:
    """Return what the bundle is asked, and how recordings like those it learned from are read."""
    asked = WindowsAsked(from_s=task.from_s, window_s=task.window_s)
    return {
        "protocol": asked.model_dump(mode="json"),
        "folder": task.folder.model_dump(mode="json", exclude=WHERE),
        "stype": task.stype,
    }
