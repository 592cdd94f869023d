"""A cross-validation as YAML: `Recipe` says of whom, between what, with which models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from offline import yaml_file
from offline.data.tables import Table
from streamer.components import Config

Name = Annotated[str, Field(min_length=1)]
Modality = Literal["eeg", "fmri"]
Reading = Literal["frozen", "trained"]
READINGS: tuple[Reading, ...] = ("frozen", "trained")


class Pretraining(Config):
    """The pretraining that is repeated without each fold's test subjects.

    Attributes
    ----------
    recipe : Path
        A recipe of ``bcitrain pretrain`` whose system is of kind ``mcsp``.  Its ``seed`` becomes the number
        of the repeat, its ``output`` a folder per fold.
    set : tuple of str
        Settings to take instead of the file's, ``optim.steps=100``.
    """

    recipe: Path
    set: tuple[str, ...] = ()


class Training(Config):
    """Training of a net's EEG branch and a linear head on a fold's training subjects, end to end.

    The budget is fixed; nothing is stopped or chosen by looking at anybody.

    Attributes
    ----------
    steps : int
        Updates of the weights.
    batch_size : int
        People per update.
    lr, head_lr : float
        Of the branch and of the head; they rise for a tenth of the steps and fall along a cosine.
    """

    steps: PositiveInt = 60
    batch_size: PositiveInt = 16
    lr: PositiveFloat = 3e-4
    head_lr: PositiveFloat = 3e-4
    weight_decay: NonNegativeFloat = 0.01


class PretrainedNet(Config):
    """The EEG branch as a pretraining leaves it.

    Attributes
    ----------
    set : tuple of str
        Settings in which this pretraining differs, ``data.shuffle_pairs=true``.
    readings : tuple of str
        ``frozen``: a logistic regression on its embedding; ``trained``: branch and head trained end to end,
        the head from where that regression stands.  Each gives a row of results, ``NAME, frozen``.
    """

    kind: Literal["pretrained"]
    name: Name
    set: tuple[str, ...] = ()
    readings: Annotated[tuple[Reading, ...], Field(min_length=1)] = READINGS


class UntrainedNet(Config):
    """The EEG branch from the initialisation at which the pretraining begins; read likewise."""

    kind: Literal["untrained"]
    name: Name = "scratch"
    readings: Annotated[tuple[Reading, ...], Field(min_length=1)] = READINGS


class Edges(Config):
    """A logistic regression on every edge of a modality's connectomes, all bands side by side."""

    kind: Literal["edges"]
    name: Name
    modality: Modality = "eeg"


class Strengths(Config):
    """A logistic regression on node strengths: the mean of a region's edges, band by band."""

    kind: Literal["strengths"]
    name: Name
    modality: Modality = "eeg"


class Levels(Config):
    """A logistic regression on the level of connectivity: mean and log SD of all edges, band by band.

    Which region is connected with which is not in it.  What it tells apart may be the recording.
    """

    kind: Literal["levels"]
    name: Name
    modality: Modality = "eeg"


class Site(Config):
    """A logistic regression on where somebody was measured, and on nothing else."""

    kind: Literal["site"]
    name: Name


Baseline = Edges | Strengths | Levels | Site
Model = Annotated[PretrainedNet | UntrainedNet | Baseline, Field(discriminator="kind")]


class Recipe(Config):
    """Who is told from whom, by subject-wise cross-validation.

    Attributes
    ----------
    people : block
        A table with connectomes of EEG; see `offline.data.tables`.
    negative, positive : tuple of str
        Labels of either class; people with other labels take no part.
    split : str
        ``people``: each repeat deals everybody anew into ``folds`` parts, alike in label and site.
        ``sites``: each site is left out in turn, and tested by what was learned at the others; repeats differ
        in the nets' initialisation only.
    folds, repeats : int
    pretraining : block or None
        Needed by the models that are nets.
    compare : tuple of pairs of str
        Rows of results whose difference is asked for, the second subtracted from the first.
    resamples : int
        Draws of subjects behind the intervals.
    output : Path
        Folder of the results; what is already there is not computed again.
    """

    people: Table
    negative: Annotated[tuple[Name, ...], Field(min_length=1)]
    positive: Annotated[tuple[Name, ...], Field(min_length=1)]
    split: Literal["people", "sites"] = "people"
    folds: Annotated[int, Field(ge=2)] = 5
    repeats: PositiveInt = 5
    pretraining: Pretraining | None = None
    training: Training = Training()
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    compare: tuple[tuple[Name, Name], ...] = ()
    resamples: PositiveInt = 10_000
    output: Path

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        if both := sorted(set(self.negative) & set(self.positive)):
            raise ValueError(f"{', '.join(both)} in negative and in positive: choose one")
        return self

    @model_validator(mode="after")
    def _rows_are_there(self) -> Self:
        rows = [row for model in self.models for row in rows_of(model)]
        if twice := sorted({row for row in rows if rows.count(row) > 1}):
            raise ValueError(f"two models are called {', '.join(twice)}: give each a name of its own")
        asked = {row for pair in self.compare for row in pair}
        if unknown := sorted(asked - set(rows)):
            raise ValueError(f"compare: there is no row {unknown[0]!r}; there are {', '.join(rows)}")
        return self

    @model_validator(mode="after")
    def _nets_can_be_had(self) -> Self:
        if self.pretraining is None and any(isinstance(m, PretrainedNet | UntrainedNet) for m in self.models):
            raise ValueError("nets need pretraining: {recipe: ...}, which says what they are")
        return self


def rows_of(model: PretrainedNet | UntrainedNet | Baseline) -> list[str]:
    """Return the names of the rows of results that a model gives."""
    if isinstance(model, PretrainedNet | UntrainedNet):
        return [f"{model.name}, {reading}" for reading in model.readings]
    return [model.name]


def load(path: str | Path) -> Recipe:
    """Read a cross-validation's YAML.

    Raises
    ------
    ConfigError
        No such file, not YAML, or faults: all of them, each with its path.
    """
    return yaml_file.checked(
        Recipe, yaml_file.read(path, "Cross-validation"), f"{path} is not a cross-validation"
    )
