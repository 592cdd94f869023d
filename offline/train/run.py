"""The folder a training leaves behind.

::

    OUTPUT/
      run.json              the recipe, the DSP list with its prior, who was trained on, the scores
      weights.safetensors   the averaged weights
      checkpoints/last.ckpt where ``--resume`` goes on; see `offline.checkpoint`
      checkpoints/best.ckpt the best epoch so far, where the recipe keeps that
      logs/                 CSV and TensorBoard
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.decision import AnyDecision
from engine.operating import OperatingPoint
from offline import run_folder
from offline.train.recipe import Recipe, Step
from streamer.components import Config


class Run(Config):
    """A finished training: what export needs beside the weights.

    Attributes
    ----------
    dsp : tuple of steps
        The recipe's, its `align` with the population's prior.
    subjects, fingerprints : dict of str to tuple of str
        Who, and which recordings, had a part in the weights: ``train`` and ``validate``.
    temperature : float
        Fitted on the validation subjects.
    decision : block
        Settings of the decision stage, fitted on the validation subjects.
    operating : tuple of OperatingPoint
        What it does at which bound, measured on them.
    scores : dict
        On the validation subjects, their recordings stepped as live; `offline.train.validate.scores`.
    """

    recipe: Recipe
    dsp: tuple[Step, ...]
    subjects: dict[str, tuple[str, ...]]
    fingerprints: dict[str, tuple[str, ...]]
    temperature: float
    decision: AnyDecision
    operating: tuple[OperatingPoint, ...]
    scores: dict[str, float]
    seconds: float
    versions: dict[str, str]


def load_run(folder: str | Path) -> Run:
    """Read the ``run.json`` of a run folder, wherever it lies now; `ConfigError` when it is not one."""
    run = run_folder.read(folder, Run, "train", "a finished training")
    here = run.recipe.model_copy(update={"output": Path(folder)})
    return run.model_copy(update={"recipe": here})


def load_model(run: Run) -> Any:
    """Return the trained model, its norms and dropout frozen."""
    model = run.recipe.model.build()
    run_folder.load_weights(run.recipe.output, model)
    return model.eval()
