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

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.faults import faults
from offline.checkpoint import replacing
from offline.pretrain.recipe import PretrainRecipe
from offline.recipe import Step
from offline.systems import System
from streamer.components import Config
from streamer.errors import ConfigError

RUN = "run.json"
WEIGHTS = "weights.safetensors"
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
    path = Path(folder) / RUN
    try:
        return PretrainRun.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}. Give the folder that pretrain wrote."
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{path} does not describe a pretraining:\n{faults(error)}") from error


def load_system(folder: str | Path) -> System:
    """Return the trained system of a run folder, in eval mode, on the CPU.

    Raises
    ------
    ConfigError
        Not a run folder, or its weights are damaged or of another system.
    """
    run = load_run(folder)
    path = Path(folder) / WEIGHTS
    with torch.random.fork_rng(devices=[]):
        system = run.recipe.system.build(run.sfreq)
    try:
        system.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ConfigError(f"Weights {path} cannot be used: {error}. Train again.") from error
    return system.eval()


def write(run: PretrainRun, system: System) -> None:
    """Renew the run folder's description and weights, each in one piece."""
    folder = run.recipe.output
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().to("cpu", copy=True) for name, value in system.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file({name: value.contiguous() for name, value in weights.items()}, temporary)
    with replacing(folder / RUN) as temporary:
        temporary.write_text(json.dumps(run.model_dump(mode="json", by_alias=True), indent=1) + "\n")
