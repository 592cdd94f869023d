"""A fine-tuning as YAML: `Recipe` says which backbone, which labels, and how much of it may learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from engine.decision import AnyDecision, DecisionConfig
from engine.manifest import AnyStep
from offline import yaml_file
from offline.data.sources import Folder
from offline.pretrain.recipe import Card
from offline.probe.recipe import Task as ProbeTask
from streamer.components import Config
from streamer.dsp import StepConfig

if TYPE_CHECKING:
    Step = StepConfig
else:
    Step = AnyStep

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]


class Backbone(Config):
    """A part of a pretrained system.

    Attributes
    ----------
    run : Path
        Folder that ``bcitrain pretrain`` wrote.
    part : str
        The part whose ``latent`` is read, and its ``gain`` where it is a codec's tokenizer.
    """

    run: Path
    part: Name = "backbone"


class Task(Config):
    """Which signal carries which label, and who is learned from.

    Attributes
    ----------
    folder : block
        Recordings with markers; see `offline.data.sources.Folder`.
    classes : tuple of str
        Labels of markers, in the order of the probabilities.
    stype, ch_names : str, tuple of str
        Channels that are decoded, in this order.
    train : tuple of str
        Subjects that are learned from: names, or ranges of them (``S001-S040``).
    validate : tuple of str
        Subjects by whom the weights are chosen and the temperature is fitted.  Those kept for a test are in
        neither, and are never read.
    from_s : float
        Only what comes so long after a marker's onset carries its label.
    window_s : float
        The labelled stretches are cut into windows of this length; answers are taken at their ends.
    """

    folder: Folder
    classes: Annotated[tuple[Name, ...], Field(min_length=2)]
    stype: Literal["EEG", "EMG"] = "EEG"
    ch_names: Names
    train: Names
    validate_: Annotated[Names, Field(alias="validate")]
    from_s: Annotated[float, Field(ge=0)] = 0.0
    window_s: PositiveFloat

    def as_probe(self, sfreq: float) -> ProbeTask:
        """Return the probe's task that tests the subjects validated on."""
        return ProbeTask(
            folder=self.folder,
            classes=self.classes,
            stype=self.stype,
            ch_names=self.ch_names,
            train=self.train,
            test=self.validate_,
            from_s=self.from_s,
            window_s=self.window_s,
            sfreq=sfreq,
        )


class Optim(Config):
    """AdamW; rates rise over the first tenth of the steps and fall along a cosine.

    Attributes
    ----------
    steps, batch_size : int
        Updates, and windows per update.
    lr, head_lr : float
        Of what learns of the net, and of the head.
    weight_decay : float
    clip_norm : float
        Gradients are scaled down to this norm.
    context_s : float
        Signal that the net sees, from an empty past, before the frames that are pooled.
    evaluate_every : int
        Steps between two looks at the validation subjects; a checkpoint is written at each.
    patience : int or None
        Stop after so many looks without a better one.
    """

    steps: PositiveInt = 200
    batch_size: PositiveInt = 16
    lr: PositiveFloat = 1e-4
    head_lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.01
    clip_norm: PositiveFloat = 1.0
    context_s: NonNegativeFloat = 2.0
    evaluate_every: PositiveInt = 20
    patience: PositiveInt | None = None


class Recipe(Config):
    """One fine-tuning, from a pretrained run and labelled recordings to a model that decides.

    Attributes
    ----------
    idle : str or None
        The class that means "nothing": never decided for.
    mode : str
        ``frozen``: a logistic regression on the latents.  ``partial``: from there on, the last ``layers``
        blocks and the norm behind them learn too.  ``full``: everything does.
    layers : int
        Of ``partial``.
    pool_s : float
        A decision is made from the latents of the last so many seconds.
    adapt : tuple of steps
        Appended to the backbone's DSP list.  An ``align`` starts from the training subjects' covariance, and
        is followed by the scale that brings the signal back to their level, which the net expects.
    class_weights : str
        ``balanced``: every class counts alike, however many labels it has.
    fraction : float
        Share of the training windows whose labels are used, at least one per class.
    decision : block
        Settings of the decision stage of the bundle.
    min_present : int
        Channels of a live stream that must be there; the others are interpolated.
    """

    card: Card
    backbone: Backbone
    task: Task
    idle: str | None = None
    mode: Literal["frozen", "partial", "full"] = "frozen"
    layers: PositiveInt = 1
    pool_s: PositiveFloat
    adapt: tuple[Step, ...] = ()
    class_weights: Literal["balanced", "none"] = "balanced"
    optim: Optim = Optim()
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: NonNegativeInt = 0
    decision: AnyDecision = DecisionConfig()
    min_present: PositiveInt
    output: Path

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if wrong := list(_contradictions(self)):
            raise ValueError("; ".join(wrong))
        return self

    def course(self) -> dict[str, Any]:
        """Return what decides the weights, as JSON values: not names, folders or the decision stage."""
        hidden: Any = {
            "card": True,
            "output": True,
            "decision": True,
            "min_present": True,
            "idle": True,
            "backbone": {"run"},
            "task": {"folder": {"path"}},
        }
        return self.model_dump(mode="json", by_alias=True, exclude=hidden)


def _contradictions(recipe: Recipe) -> Iterator[str]:
    task = recipe.task
    for key, names in (("task.classes", task.classes), ("task.ch_names", task.ch_names)):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            yield f"{key} names {', '.join(twice)} twice"
    if recipe.idle is not None and recipe.idle not in task.classes:
        yield f"idle {recipe.idle!r} is none of the classes {', '.join(task.classes)}"
    if recipe.min_present > len(task.ch_names):
        yield f"min_present {recipe.min_present} exceeds the {len(task.ch_names)} channels of task.ch_names"
    if recipe.output.resolve() == recipe.backbone.run.resolve():
        yield "output is the folder of backbone.run, which would be lost: name another"


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
    return yaml_file.checked(Recipe, raw, f"{where} is not a fine-tuning recipe", BLOCKS.get)


BLOCKS: dict[yaml_file.Location, type[BaseModel]] = {
    (): Recipe,
    ("card",): Card,
    ("backbone",): Backbone,
    ("task",): Task,
    ("optim",): Optim,
}
