"""The bundle that is made somebody's own, and the training which it goes on from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.bundle import Bundle
from engine.bundle import load as load_bundle
from engine.bundle_folder import TRAINING
from offline.export_graph import check_parity, probes, streamlined
from offline.personal.filters import refuse
from offline.run_folder import RUN, WEIGHTS
from offline.train.run import Run, load_model, load_run
from streamer.errors import BundleError, ConfigError


@dataclass(frozen=True, slots=True)
class Origin:
    """A bundle and the training it comes from.

    Attributes
    ----------
    bundle : Bundle
    run : Run
    model : nn.Module
        With its weights as trained.
    """

    bundle: Bundle
    run: Run
    model: Any


def origin(reference: str | Path, run_folder: Path | None = None) -> Origin:
    """Read a bundle and the run folder it was exported from, by default its own sub-folder ``training``.

    Raises
    ------
    BundleError
        No such bundle.
    ConfigError
        It carries no training, the run folder is of another one, or its model cannot be a person's own.
    """
    bundle = load_bundle(reference)
    if own := bundle.manifest.provenance.get("personal"):
        raise ConfigError(
            f"Bundle {bundle.label} is one person's already: personalise {own.get('from')} with all of their "
            "recordings instead."
        )
    folder = run_folder or bundle.folder / TRAINING
    if run_folder is None and not folder.is_dir():
        raise ConfigError(
            f"Bundle {bundle.label} does not carry the training from which it could learn on: name the run "
            "folder that it was exported from, --run RUN, or export it with --training."
        )
    run = load_run(folder)
    model, n_chans = load_model(run), run.recipe.model.n_chans
    refuse(model, run.recipe)
    exported, graph = streamlined(load_model(run), n_chans), bundle.manifest.graph
    try:
        check_parity(exported, bundle.graph_bytes, graph, probes(exported, n_chans, graph))
    except (BundleError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{folder} is not the training that bundle {bundle.label} was exported from: its model says "
            "other things than the graph."
        ) from error
    return Origin(bundle, run, model)


def keep_training(run_folder: Path, bundle_folder: Path) -> None:
    """Put what a bundle was trained as into it, instead of any other training."""
    kept = bundle_folder / TRAINING
    if kept.resolve() == run_folder.resolve():
        return
    kept.mkdir(parents=True, exist_ok=True)
    for name in (RUN, WEIGHTS):
        shutil.copyfile(run_folder / name, kept / name)
