"""A probe as YAML: `Recipe` says which task, which models, how many labels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from engine.manifest import AnyStep
from offline import yaml_file
from offline.data.sources import Folder
from streamer.components import Config
from streamer.dsp import StepConfig

if TYPE_CHECKING:
    Step = StepConfig
else:
    Step = AnyStep

Name = Annotated[str, Field(min_length=1)]
Pool = Literal["frames", "window"]


class Task(Config):
    """Which windows of which recordings carry which label, and who is tested.

    Attributes
    ----------
    folder : block
        Recordings with markers; see `offline.data.sources.Folder`.
    classes : tuple of str
        Labels of markers; the last one is the positive class where there are two.
    stype, ch_names : str, tuple of str
        Channels that are looked at, in this order.
    train, test : tuple of str
        Subjects, or ranges of them (``S001-S040``).
    folds : int or None
        Test each training subject once, in this many subject-wise folds, instead of ``test``.
    from_s, window_s : float
        Windows of this length follow each other from so long after a marker's onset while they fit into
        its duration; none lies across a hole.
    sfreq, dsp
        What the models without a pretraining look at: causal, from the first sample on, anew after a hole.
    """

    folder: Folder
    classes: Annotated[tuple[Name, ...], Field(min_length=2)]
    stype: Literal["EEG", "EMG"] = "EEG"
    ch_names: Annotated[tuple[Name, ...], Field(min_length=1)]
    train: Annotated[tuple[Name, ...], Field(min_length=1)]
    test: tuple[Name, ...] = ()
    folds: Annotated[int, Field(ge=2)] | None = None
    from_s: Annotated[float, Field(ge=0)] = 0.0
    window_s: PositiveFloat
    sfreq: PositiveFloat
    dsp: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _says_who_is_tested(self) -> Self:
        if bool(self.test) == (self.folds is not None):
            raise ValueError("give either test, the subjects held out, or folds, their number")
        return self

    def digest(self) -> str:
        """Return 16 hex digits of what decides the windows and the signal under them."""
        return digest(self.model_dump_json(exclude={"train", "test", "folds"}))


class FineTune(Config):
    """Training of a net and a linear head, end to end on the labelled windows; see `offline.probe.finetune`.

    Attributes
    ----------
    steps : int
        Optimiser steps, whatever the number of labels: nothing is stopped by looking at a test subject.
    lr, head_lr : float
        Of the net and of the head.
    context_s : float
        Signal before each window that the net sees as well.
    fractions : tuple of float or None
        Which of the probe's; all of them where not given.
    """

    steps: PositiveInt = 100
    batch_size: PositiveInt = 16
    lr: PositiveFloat = 1e-3
    head_lr: PositiveFloat = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    context_s: Annotated[float, Field(ge=0)] = 1.0
    fractions: Annotated[tuple[float, ...], Field(min_length=1)] | None = None


class PretrainedNet(Config):
    """The frozen backbone of a run of ``bcitrain pretrain``; its untrained twins are scored beside it.

    Attributes
    ----------
    run : Path
        The run folder.
    untrained : int
        Initialisations of the same net, as it was before training, that are scored too; seeds take turns.
    part : str
        Which of the run's parts; its ``latent`` is looked at, and its ``gain`` where it gives one.
    finetune : block or None
        Also train net and head end to end, and its twins from their initialisations: rows of their own.
    pool : "frames" or "window"
        What is pooled: the latents of the window's frames, each as a stream has it when the frame ends; or,
        for a backbone of form ``window``, those of all frames in one look at the whole window, as published.
    series, at : str, float
        The line and the place on it that the net takes in ``probe_series.png``.
    """

    kind: Literal["pretrained"]
    name: Name
    run: Path
    untrained: Annotated[int, Field(ge=0)] = 5
    part: Name = "backbone"
    finetune: FineTune | None = None
    pool: Pool = "frames"
    series: Name | None = None
    at: float | None = None

    @model_validator(mode="after")
    def _has_a_place_in_its_series(self) -> Self:
        if (self.series is None) != (self.at is None):
            raise ValueError("series and at go together: which line, and where on it")
        return self


class EEGNet(Config):
    """EEGNet from braindecode, trained end to end on the same windows and labels.

    Attributes
    ----------
    steps : int
        Optimiser steps, whatever the number of labels: nothing is stopped by looking at a test subject.
    """

    kind: Literal["eegnet"]
    name: Name = "EEGNet"
    steps: PositiveInt = 400
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01


class BandPower(Config):
    """Log power of each channel in bands, Hz."""

    kind: Literal["band_power"]
    name: Name = "band power"
    bands: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)]


class TimeDomain(Config):
    """Log root mean square, log waveform length and zero crossings of each channel (Hudgins et al., 1993)."""

    kind: Literal["time_domain"]
    name: Name = "time domain"


class RawSignal(Config):
    """The samples themselves in place of latents: frames of ``hop`` samples, pooled like a net's frames."""

    kind: Literal["raw"]
    name: Name = "raw signal"
    hop: PositiveInt


Model = Annotated[PretrainedNet | EEGNet | BandPower | TimeDomain | RawSignal, Field(discriminator="kind")]


class Recipe(Config):
    """Models that are compared on a task.

    Attributes
    ----------
    fractions : tuple of float
        Shares of the training windows whose labels are given; at least one window per class.
    seeds : int
        Draws of the labels, and initialisations of whatever is not pretrained.
    at_label : str
        What the models' ``at`` is, for the picture.
    output : Path
        Folder of the results; what is already there is not computed again.
    """

    task: Task
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    fractions: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (
        0.01,
        0.1,
        1.0,
    )
    seeds: PositiveInt = 5
    at_label: Name = "setting"
    output: Path

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two models are called {', '.join(twice)}: give each a name of its own")
        return self

    @model_validator(mode="after")
    def _fractions_are_there(self) -> Self:
        for model in self.models:
            block = model.finetune if isinstance(model, PretrainedNet) else None
            strange = set(block.fractions or ()) - set(self.fractions) if block else set()
            if strange:
                asked = ", ".join(f"{fraction:g}" for fraction in sorted(strange))
                raise ValueError(
                    f"{model.name} fine-tunes at {asked}, which the probe's fractions do not hold"
                )
        return self


def digest(text: str) -> str:
    """Return 16 hex digits that identify a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: str | Path) -> Recipe:
    """Read a probe's YAML.

    Raises
    ------
    ConfigError
        No such file, not YAML, or faults: all of them, each with its path.
    """
    return yaml_file.checked(Recipe, yaml_file.read(path, "Probe"), f"{path} is not a probe")
