"""The folder a fine-tuning leaves behind, and how to read it: `load_run`, `load_model`.

::

    OUTPUT/
      run.json                      what learned from whom, and how well: `FinetuneRun`
      weights.safetensors           backbone and head at the best look at the validation subjects
      checkpoints/last.safetensors  where ``--resume`` goes on; none where the backbone is frozen
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.faults import faults
from offline.checkpoint import replacing
from offline.finetune.recipe import Recipe
from offline.models import decoder
from offline.recipe import Step
from offline.runs import RUN, WEIGHTS
from streamer.components import Config
from streamer.errors import ConfigError

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
    try:
        raw = json.loads((Path(folder) / RUN).read_bytes())
    except (OSError, ValueError):
        return False
    recipe = raw.get("recipe") if isinstance(raw, dict) else None
    return isinstance(recipe, dict) and "backbone" in recipe


def load_run(folder: str | Path) -> FinetuneRun:
    """Read the ``run.json`` of a run folder; `ConfigError` when it is not one of a fine-tuning."""
    path = Path(folder) / RUN
    try:
        return FinetuneRun.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}. Give the folder that finetune wrote."
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{path} does not describe a fine-tuning:\n{faults(error)}") from error


def load_model(folder: str | Path) -> decoder.Decoder:
    """Return the model of a run folder, in eval mode, on the CPU; the backbone's run is not needed.

    Raises
    ------
    ConfigError
        Not such a folder, or its weights are damaged or of another model.
    """
    run, path = load_run(folder), Path(folder) / WEIGHTS
    with torch.random.fork_rng(devices=[]):
        model = run.model.build()
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ConfigError(f"Weights {path} cannot be used: {error}. Fine-tune again.") from error
    return model.eval()


def write(run: FinetuneRun, model: decoder.Decoder) -> None:
    """Write the run folder's description and weights, each in one piece."""
    folder = run.recipe.output
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: value.contiguous() for name, value in weights.items()}, temporary)
    with replacing(folder / RUN) as temporary:
        temporary.write_text(json.dumps(run.model_dump(mode="json", by_alias=True), indent=1) + "\n")
