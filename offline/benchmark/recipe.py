"""A benchmark as YAML: `Recipe` says which task, of whom, which models, how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, model_validator

from engine.decision import AnyDecision, DecisionConfig
from engine.manifest import AnyStep
from offline import yaml_file
from offline.benchmark.readers import Reader
from offline.data.sources import Folder, Moabb
from offline.evaluate.protocol import Protocol
from streamer.components import Config
from streamer.dsp import StepConfig

if TYPE_CHECKING:
    Step = StepConfig
else:
    Step = AnyStep

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
Answer = Literal["mean", "last"]


class Task(Config):
    """What is decoded, and what is asked.

    Attributes
    ----------
    folder, moabb : block
        Where the recordings are, one of the two; see `offline.data.sources`.
    classes : tuple of str
        Labels of markers, in the order of the probabilities.
    idle : str or None
        The class that means "nothing".
    stype, ch_names : str, tuple of str
        Channels that the classical decoders look at, in this order; a recipe's model says its own.
    protocol : block
        Which answers are scored; see `offline.evaluate.protocol`.
    """

    folder: Folder | None = None
    moabb: Moabb | None = None
    classes: Annotated[tuple[Name, ...], Field(min_length=2)]
    idle: Name | None = None
    stype: Literal["EEG", "EMG"] = "EEG"
    ch_names: Names
    protocol: Protocol

    @property
    def origin(self) -> Folder | Moabb:
        """Where the recordings are."""
        origin = self.folder or self.moabb
        assert origin is not None, "the task has either"
        return origin

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if (self.folder is None) == (self.moabb is None):
            raise ValueError("give folder or moabb: where the recordings are")
        return self


class Split(Config):
    """One fixed division of the people in place of folds."""

    train: Names
    validate_: Annotated[Names, Field(alias="validate")]
    test: Names


class Trained(Config):
    """A recipe of ``bcitrain train``, trained anew for every fold and seed.

    Attributes
    ----------
    set : tuple of str
        Settings to take instead of the file's, ``optim.epochs=10``.  Who trains and validates, the seed and
        the output folder are the benchmark's.
    answer : "mean" or "last"
        How its decisions make a trial's answer, under a protocol of trials.
    ours : bool
        No baseline: what the baselines are there for.
    """

    kind: Literal["train"]
    name: Name
    recipe: Path
    set: tuple[str, ...] = ()
    answer: Answer = "mean"
    ours: bool = False


class Finetuned(Config):
    """A recipe of ``bcitrain finetune``, likewise; settings as in `Trained`.

    Attributes
    ----------
    backbone_saw_test : bool
        The backbone may have been pretrained on recordings of the people tested, and the report says so.
        Else that is refused.
    """

    kind: Literal["finetune"]
    name: Name
    recipe: Path
    set: tuple[str, ...] = ()
    answer: Answer = "mean"
    ours: bool = False
    backbone_saw_test: bool = False


class Classical(Config):
    """Features of a sliding window and a classifier of scikit-learn or pyRiemann, played like a bundle.

    Attributes
    ----------
    reader : block
        Features and classifier, by ``kind``; see `offline.benchmark.readers`.
    sfreq : float
        Hz; recordings at another rate are resampled, as live.
    window_s, hop_s : float
        Every ``hop_s`` the last ``window_s`` are looked at; the first is a multiple of the second.
    past : int
        Windows before that one whose features are seen beside its own, one right after the other.
    standardise_s : float or None
        Time constant of a running mean and SD of every feature, from those of the training people on; a
        window is standardised by what came before it.
    dsp : tuple of steps
        Causal, with carried state.  An ``align`` without a prior starts from the training people's.
    decision : block
        Of the decision stage.
    """

    kind: Literal["classical"]
    name: Name
    reader: Reader
    sfreq: PositiveFloat
    window_s: PositiveFloat
    hop_s: PositiveFloat
    past: Annotated[int, Field(ge=0)] = 0
    standardise_s: PositiveFloat | None = None
    dsp: tuple[Step, ...] = ()
    answer: Answer = "last"
    decision: AnyDecision = DecisionConfig()

    @property
    def ours(self) -> bool:
        """A classical decoder is a baseline."""
        return False

    @property
    def hop(self) -> int:
        """Samples from one decision to the next."""
        return round(self.hop_s * self.sfreq)

    @property
    def window(self) -> int:
        """Samples that are looked at."""
        return round(self.window_s * self.sfreq)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.hop or self.window % self.hop:
            raise ValueError(
                f"window_s {self.window_s:g} is {self.window} samples at {self.sfreq:g} Hz, hop_s "
                f"{self.hop_s:g} is {self.hop}: the first must be a multiple of the second"
            )
        if self.reader.matrices and (self.past or self.standardise_s):
            raise ValueError(f"past and standardise_s are for features, not for the matrices of {self.name}")
        return self


Model = Annotated[Trained | Finetuned | Classical, Field(discriminator="kind")]


class Calibrate(Config):
    """Also play everybody with a head that was refitted to the first labelled trials of each.

    Classical decoders on features get a second classifier instead, which learned from features less their
    mean over everybody's own rest, and needs no label of the person tested.

    Attributes
    ----------
    seconds : float
        Of labelled signal per person; what is scored comes after it, with and without.
    classes : tuple of str or None
        Whose trials are used; all by default.
    rest_s : float
        The first so many seconds are rest, which a head that is centred on it needs.
    """

    seconds: PositiveFloat = 60.0
    classes: Names | None = None
    rest_s: Annotated[float, Field(ge=0)] = 0.0


class Recipe(Config):
    """Models compared on people they do not know.

    Attributes
    ----------
    people : tuple of str or None
        Who takes part: names, or ranges of them (``S001-S080``); everybody by default.
    folds : int or None
        Every person is tested once, by models that learned from the people of the other folds.
    split : block or None
        Instead of ``folds``: who trains, validates and is tested.
    validate : float
        Share of a fold's other people by whom weights are chosen and probabilities calibrated; the models
        learn from the rest.
    seeds : int
        Initialisations of what is random; a classical decoder is not.
    compare : tuple of pairs of str
        Models whose difference is asked for, the second subtracted from the first.
    calibrate : block or None
    output : Path
        Folder of the results; what is already there is not computed again.
    """

    task: Task
    people: Names | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    split: Split | None = None
    validate_: Annotated[float, Field(alias="validate", gt=0, lt=1)] = 0.1
    seeds: PositiveInt = 1
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    compare: tuple[tuple[Name, Name], ...] = ()
    calibrate: Calibrate | None = None
    output: Path

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if wrong := list(_contradictions(self)):
            raise ValueError("; ".join(wrong))
        return self


def _contradictions(recipe: Recipe) -> Iterator[str]:
    task = recipe.task
    names = [model.name for model in recipe.models]
    for key, listed in (("models", names), ("classes", task.classes), ("ch_names", task.ch_names)):
        if twice := sorted({name for name in listed if listed.count(name) > 1}):
            yield f"{key} names {', '.join(twice)} twice"
    if (recipe.folds is None) == (recipe.split is None):
        yield "give either folds, their number, or split, who trains, validates and is tested"
    if recipe.split is not None and recipe.people is not None:
        yield "split says who takes part: leave out people"
    if task.idle is not None and task.idle not in task.classes:
        yield f"task.idle {task.idle!r} is none of the classes {', '.join(task.classes)}"
    if unknown := sorted({name for pair in recipe.compare for name in pair} - set(names)):
        yield f"compare: there is no model {unknown[0]!r}; there are {', '.join(names)}"
    given = recipe.calibrate
    rests = [one.name for one in recipe.models if isinstance(one, Classical) and not one.reader.matrices]
    if given and given.rest_s and rests and given.seconds != given.rest_s:
        yield (
            f"calibrate.seconds {given.seconds:g} is not rest_s {given.rest_s:g}: {rests[0]} is given "
            "the rest alone, and would be scored on other stretches than the nets"
        )
    if recipe.calibrate and (strange := set(recipe.calibrate.classes or ()) - set(task.classes)):
        yield f"calibrate.classes: {', '.join(sorted(strange))} is none of the classes"


def load(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a benchmark's YAML, with these settings instead of the file's.

    Raises
    ------
    ConfigError
        No such file, not YAML, or faults: all of them, each with its path.
    """
    raw = yaml_file.read(path, "Benchmark", changes)
    return yaml_file.checked(Recipe, raw, f"{path} is not a benchmark", BLOCKS.get)


BLOCKS: dict[yaml_file.Location, type[BaseModel]] = {
    (): Recipe,
    ("task",): Task,
    ("split",): Split,
    ("calibrate",): Calibrate,
}
