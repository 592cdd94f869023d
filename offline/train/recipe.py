"""A training as YAML: `Recipe` says on whose recordings, cut how, which model learns what."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from engine.decision import AnyDecision, DecisionConfig
from engine.manifest import AnyStep
from offline import models, yaml_file
from offline.data.sources import Folder, Moabb
from offline.evaluate.protocol import Protocol, Trials
from offline.train.augment import Augment
from streamer.components import Config, union
from streamer.dsp import StepConfig
from streamer.errors import ConfigError

Name = Annotated[str, Field(min_length=1)]
FIELDS = {"n_chans", "n_classes", "hop"}  # what tells a model that decides from a backbone


def _trainable() -> Any:
    """Return the configs of the models that decide, as one pydantic type discriminated by ``kind``."""
    configs = [module.Config for module in models.kinds().values()]
    chosen = tuple(config for config in configs if set(config.model_fields) >= FIELDS)
    return Annotated[Union[chosen], Field(discriminator="kind")] if len(chosen) > 1 else chosen[0]  # noqa: UP007


if TYPE_CHECKING:
    Step = StepConfig
    AnyModel = Any
    AnyCut = Any
else:
    Step = AnyStep
    AnyModel = _trainable()
    AnyCut = union("offline.train.cuts")


class Data(Config):
    """Whose recordings.

    Attributes
    ----------
    folders, moabb : tuple of blocks
        Where they are; see `offline.data.sources`.  Paths are relative to the working directory.
    train, validate : tuple of str
        Subjects, or ranges of them (``S001-S056``).  Nobody may be in both.
    idle_only : bool
        Take recordings as well that ask for nothing but the idle class: rest in a file of its own.
    """

    folders: tuple[Folder, ...] = ()
    moabb: tuple[Moabb, ...] = ()
    train: Annotated[tuple[Name, ...], Field(min_length=1)]
    validate_: Annotated[tuple[Name, ...], Field(alias="validate", min_length=1)]
    idle_only: bool = False

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if not self.folders and not self.moabb:
            raise ValueError("give folders or moabb: where the recordings are")
        return self


class Optim(Config):
    """AdamW with one cycle of the learning rate, and averaged weights.

    Attributes
    ----------
    epochs : int
        The validation subjects are looked at after each.
    steps : int, optional
        Updates in all, shared out evenly over the epochs (and rounded up).  Without, an epoch is as many as
        go through the recordings once.
    lr, weight_decay, clip_norm : float
        Peak of the rate; its decay of weights; the largest norm of a gradient.
    average : float
        Decay per step of the running average of the weights, which is what is validated and exported.
    keep : "last" or "best"
        Which epoch's weights: the last one's, or those with the lowest ``val_cross_entropy``.
    """

    epochs: PositiveInt = 30
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 32
    lr: PositiveFloat = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: PositiveFloat = 2.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    keep: Literal["last", "best"] = "last"

    @property
    def epoch_steps(self) -> int | None:
        """Updates of an epoch; None: as many as go through the recordings once."""
        return None if self.steps is None else -(-self.steps // self.epochs)


class Card(Config):
    """What the bundle says about itself."""

    name: str
    version: str
    title: str
    system: str = "motor-imagery"


class Recipe(Config):
    """One training run, from recordings to bundle.

    Attributes
    ----------
    classes : tuple of str
        Labels of markers, in the order of the logits.
    idle : str, optional
        The class that is never decided for.
    stype, sfreq, ch_names, dsp
        What the model is fed: channels of this type, in this order, at this rate in Hz, behind this list,
        causally from the first sample on and anew after a hole.  An `align` without a prior gets that of the
        training recordings.
    min_present : int
        Channels of a live stream that must be there; training needs them all.
    cut : block
        What is cut from the recordings, and what is learned from it; see `offline.train.cuts`.
    augment : block
        See `offline.train.augment.Augment`.
    model : block
        A kind of `offline.models` that decides.
    optim : block
    decision : block
        Settings of the bundle's decision stage; where there is an idle class, they are fitted to the
        validation subjects from there (`offline.operating`).
    protocol : block
        What the validation scores answer, and what the bundle is later asked; see
        `offline.evaluate.protocol`.
    """

    card: Card
    data: Data
    classes: Annotated[tuple[Name, ...], Field(min_length=2)]
    idle: Name | None = None
    stype: Literal["EEG", "EMG"] = "EEG"
    sfreq: PositiveFloat
    ch_names: Annotated[tuple[Name, ...], Field(min_length=1)]
    min_present: PositiveInt
    dsp: tuple[Step, ...] = ()
    cut: AnyCut
    augment: Augment = Augment()
    model: AnyModel
    optim: Optim = Optim()
    decision: AnyDecision = DecisionConfig()
    protocol: Protocol = Trials()
    seed: NonNegativeInt = 0
    output: Path

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if wrong := list(_contradictions(self)):
            raise ValueError("; ".join(wrong))
        return self

    def digest(self) -> str:
        """Return 16 hex digits of what decides the weights."""
        return hashlib.sha256(self._course().encode()).hexdigest()[:16]

    def design(self) -> str:
        """Return 16 hex digits of what nets share that learn from other people, or with another seed."""
        shared = {key: value for key, value in self.course().items() if key not in ("data", "seed")}
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]

    def course(self) -> dict[str, Any]:
        """Return what decides the weights, as JSON values: not output folder, card or decision stage."""
        course: dict[str, Any] = json.loads(self._course())
        return course

    def _course(self) -> str:
        apart: Any = {"output": True, "card": True, "decision": True, "protocol": {"live"}}
        return self.model_dump_json(exclude=apart, by_alias=True)


def load(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    changes : sequence of str
        Settings to take instead of the file's: ``"optim.lr=0.001"``, the value as YAML.

    Raises
    ------
    ConfigError
        No such file, not YAML, or faults: all of them, each with its path.
    """
    return parse(yaml_file.read(path, "Recipe", changes), str(path))


def parse(raw: Any, where: str = "recipe") -> Recipe:
    """Return the recipe that a mapping describes; `ConfigError` lists every fault."""
    recipe = yaml_file.checked(Recipe, raw, f"{where} is not a training recipe", BLOCKS.get)
    context_s = models.left_context(recipe.model) / recipe.sfreq
    if fault := recipe.cut.unsettled(context_s):
        raise ConfigError(f"{where}: {fault}")
    return recipe


def _contradictions(recipe: Recipe) -> Iterator[str]:
    for key in ("classes", "ch_names"):
        names = getattr(recipe, key)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            yield f"{key} names {', '.join(twice)} twice"
    if recipe.idle is not None and recipe.idle not in recipe.classes:
        yield f"idle {recipe.idle!r} is none of the classes {', '.join(recipe.classes)}"
    bands = math.prod(step.outputs_per_channel for step in recipe.dsp)
    has = (recipe.model.n_chans, recipe.model.n_classes)
    wants = (len(recipe.ch_names) * bands, len(recipe.classes))
    if has != wants:
        yield (
            f"model has {has[0]} channels and {has[1]} classes; ch_names, dsp and classes make "
            f"{wants[0]} and {wants[1]}"
        )
    for key in ("sfreq", "ch_names"):
        said = getattr(recipe.model, key, None)
        if said and said != getattr(recipe, key):
            yield f"model.{key} is not the recipe's {key}"
    if recipe.min_present > len(recipe.ch_names):
        yield f"min_present {recipe.min_present} exceeds the {len(recipe.ch_names)} channels of ch_names"
    if getattr(recipe.model, "closed_form", False) and recipe.cut.kind != "hops":
        yield f"a {recipe.model.kind} model is fitted in one step: cut must be hops, not {recipe.cut.kind}"
    yield from recipe.cut.contradictions(recipe)


BLOCKS: dict[yaml_file.Location, type[BaseModel]] = {
    (): Recipe,
    ("card",): Card,
    ("data",): Data,
    ("augment",): Augment,
    ("optim",): Optim,
}
