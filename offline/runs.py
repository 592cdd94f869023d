"""The folder a pretraining leaves behind, and how to read it: `load_run`, `load_system`.

::

    OUTPUT/
      run.json                      what was trained on what, and how well: `PretrainRun`
      weights.safetensors           the system's weights and buffers
      checkpoints/last.safetensors  where ``--resume`` goes on
      logs/                         CSV and TensorBoard, a folder per start

The first two are renewed at every validation, so a long training can be used before it ends.
"""

from __future__ import annotations

from pathlib import Path

import torch

from offline import run_folder
from offline.data.segments import Step
from offline.pretrain.recipe import PretrainRecipe
from offline.systems import System
from streamer.components import Config

CHECKPOINT = Path("checkpoints") / "last.safetensors"


class PretrainRun(Config):
    """A pretraining, finished or under way: what probes and export need beside the weights.

    Attributes
    ----------
    sfreq : float
        Hz, of the segments.
    stype, unit : str
        Of the corpus, as in `streamer.types.StreamInfo`.
    dsp : tuple of steps
        The DSP list behind which the segments were.
    montages : tuple of tuple of str
        Channel names of each montage that was trained on.
    subjects, fingerprints : dict of str to tuple of str
        Who and which recordings had a part in the weights: ``train`` and ``validate``, and of the
        recordings those behind a tokenizer whose codes were learned.
    scores : dict of str to float
        The system's figures on the held-out subjects, after ``steps``.
    steps : int
        Updates made.
    finished : bool
        False while ``steps`` is short of what the recipe asks for.
    hours, channel_hours : float
        Signal seen, counting repetitions: duration of the segments, and that times their channels.
    seconds : float
        Time it took, interruptions left out.
    machine : dict of str to str
        Processor, device, number of processes, precision.
    """

    recipe: PretrainRecipe
    sfreq: float
    stype: str
    unit: str
    dsp: tuple[Step, ...]
    montages: tuple[tuple[str, ...], ...]
    subjects: dict[str, tuple[str, ...]]
    fingerprints: dict[str, tuple[str, ...]]
    scores: dict[str, float]
    steps: int
    finished: bool
    hours: float
    channel_hours: float
    seconds: float
    versions: dict[str, str]
    machine: dict[str, str]


def load_run(folder: str | Path) -> PretrainRun:
    """Read the ``run.json`` of a run folder; `ConfigError` when it is not one of a pretraining."""
    return run_folder.read(folder, PretrainRun, "pretrain", "a pretraining")


def load_system(folder: str | Path) -> System:
    """Return the trained system of a run folder, in eval mode, on the CPU.

    Raises
    ------
    ConfigError
        Not a run folder, or its weights are damaged or of another system.
    """
    run = load_run(folder)
    with torch.random.fork_rng(devices=[]):
        system = run.recipe.system.build(run.sfreq)
    run_folder.load_weights(folder, system)
    return system.eval()


def write(run: PretrainRun, system: System) -> None:
    """Renew the run folder's description and weights, each in one piece."""
    run_folder.write(run.recipe.output, run, system)
