"""The folder a fine-tuning leaves behind, and how to read it: `load_run`, `load_model`.

::

    OUTPUT/
      run.json                      what learned from whom, and how well: `FinetuneRun`
      weights.safetensors           backbone and head at the best look at the validation subjects
      checkpoints/last.safetensors  where ``--resume`` goes on; none where the backbone is frozen
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from offline import run_folder
from offline.data.segments import Step
from offline.finetune.recipe import Recipe
from offline.models import decoder
from streamer.components import Config

Scores = dict[str, float | int | None]


class FinetuneRun(Config):
    """A finished fine-tuning: what export needs beside the weights.

    Attributes
    ----------
    model : block
        From which the model is built again.
    dsp : tuple of steps
        The backbone's list with the recipe's ``adapt`` behind it, complete.
    unit : str
        Of the signal that enters the list.
    backbone : dict
        Name, version and steps of the pretraining, and the hash of its weights.
    subjects, fingerprints : dict of str to tuple of str
        Who and which recordings had a part in the weights: ``train``, ``validate``, and of the recordings
        those behind the backbone, ``backbone_train`` and so on.
    windows : dict of str to int
        Labelled windows that were learned from, by class.
    kept : int
        The step whose weights these are: 0 is the frozen backbone with its logistic regression.
    temperature : float
        Fitted on the validation subjects.
    start, scores : dict
        On the validation subjects, at step 0 and at the step kept.
    history : tuple of dict
        Every look at the validation subjects.
    notes : tuple of str
        What of the recordings pretraining had seen.
    """

    recipe: Recipe
    model: decoder.Config
    dsp: tuple[Step, ...]
    unit: str
    backbone: dict[str, Any]
    subjects: dict[str, tuple[str, ...]]
    fingerprints: dict[str, tuple[str, ...]]
    windows: dict[str, int]
    kept: int
    temperature: float
    start: Scores
    scores: Scores
    history: tuple[Scores, ...]
    notes: tuple[str, ...]
    seconds: float
    versions: dict[str, str]
    machine: str


def is_finetuning(folder: str | Path) -> bool:
    """Say whether a run folder is that of a fine-tuning; False where there is none at all."""
    return run_folder.names_block(folder, "backbone")


def load_run(folder: str | Path) -> FinetuneRun:
    """Read the ``run.json`` of a run folder; `ConfigError` when it is not one of a fine-tuning."""
    return run_folder.read(folder, FinetuneRun, "finetune", "a fine-tuning")


def load_model(folder: str | Path) -> decoder.Decoder:
    """Return the model of a run folder, in eval mode, on the CPU; the backbone's run is not needed.

    Raises
    ------
    ConfigError
        Not such a folder, or its weights are damaged or of another model.
    """
    run = load_run(folder)
    with torch.random.fork_rng(devices=[]):
        model = run.model.build()
    run_folder.load_weights(folder, model)
    return model.eval()


def write(run: FinetuneRun, model: decoder.Decoder) -> None:
    """Write the run folder's description and weights, each in one piece."""
    run_folder.write(run.recipe.output, run, model)
