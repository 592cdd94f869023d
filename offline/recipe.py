"""A training run as YAML: `Recipe`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from engine.bundle import AnyStep
from engine.decision import DecisionConfig
from offline import yaml_file
from offline.data.trials import Augment, Window
from offline.models import motor_imagery
from offline.objectives import imagery as objectives
from streamer.components import Config
from streamer.dsp import StepConfig
from streamer.errors import ConfigError

if TYPE_CHECKING:
    Step = StepConfig
else:
    Step = AnyStep


class Data(Config):
    """Which recordings, and what of them.

    Attributes
    ----------
    folder : Path
        Laid out as `offline.data.corpus` says; relative to the working directory.
    train, validate : tuple of str
        Subjects, or ranges of them (``S001-S056``).
    task : str
        Only recordings that call themselves so.
    """

    folder: Path
    train: tuple[str, ...]
    validate_: Annotated[tuple[str, ...], Field(alias="validate")]
    task: str = "imagery"


class Optim(Config):
    """AdamW with one cycle of the learning rate, and averaged weights.

    Attributes
    ----------
    average : float
        Decay per step of the running average of the weights, which is what is validated and exported.
    """

    epochs: PositiveInt = 30
    batch_size: PositiveInt = 32
    lr: PositiveFloat = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: PositiveFloat = 2.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99


class Card(Config):
    """What the bundle says about itself."""

    name: str
    version: str
    title: str
    system: str = "motor-imagery"


class Recipe(Config):
    """One training run, from recordings to bundle."""

    card: Card
    data: Data
    classes: tuple[str, str, str] = ("rest", "left_fist", "right_fist")
    sfreq: PositiveFloat = 160.0
    ch_names: Annotated[tuple[str, ...], Field(min_length=1)]
    min_present: PositiveInt
    dsp: tuple[Step, ...]
    window: Window = Window()
    augment: Augment = Augment()
    model: motor_imagery.Config
    objective: objectives.Config = objectives.Config()
    optim: Optim = Optim()
    decision: DecisionConfig = DecisionConfig()
    seed: int = 0
    output: Path

    def digest(self) -> str:
        """Return 16 hex digits of what decides the weights: not output folder, card or decision stage."""
        kept = self.model_dump_json(exclude={"output", "card", "decision"}, by_alias=True)
        return hashlib.sha256(kept.encode()).hexdigest()[:16]


def load(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    ConfigError
        No such file, not YAML, or faults: all of them, each with its path.
    """
    return parse(yaml_file.read(path, "Recipe"), str(path))


def parse(raw: Any, where: str = "recipe") -> Recipe:
    """Return the recipe that a mapping describes; `ConfigError` lists every fault."""
    recipe = yaml_file.checked(Recipe, raw, f"{where} is not a recipe")
    if recipe.model.n_chans != len(recipe.ch_names) or recipe.model.n_classes != len(recipe.classes):
        raise ConfigError(
            f"{where}: model has {recipe.model.n_chans} channels and {recipe.model.n_classes} classes; "
            f"ch_names and classes list {len(recipe.ch_names)} and {len(recipe.classes)}."
        )
    context_s = recipe.model.build().left_context / recipe.sfreq
    if recipe.window.settle_s < context_s:
        raise ConfigError(
            f"{where}: window.settle_s is {recipe.window.settle_s:g} s, the model's left context "
            f"{context_s:.2f} s: make settle_s longer, or the net learns to tell time by the cut."
        )
    return recipe
