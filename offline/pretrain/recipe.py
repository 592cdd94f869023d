"""A pretraining run as YAML: `PretrainRecipe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    model_validator,
)

from engine.faults import did_you_mean
from offline import yaml_file
from offline.data.tables import Table
from offline.systems import SystemConfig, kinds
from streamer.components import Config

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def _system(raw: Any) -> SystemConfig:
    """Return the settings of a system of any kind; faults keep their paths."""
    if isinstance(raw, SystemConfig):
        return raw
    known = kinds()
    kind = raw.get("kind") if isinstance(raw, Mapping) else None
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(
            f"no system of kind {kind!r}; there are {', '.join(known) or 'none'}"
            f"{did_you_mean(str(kind), known)}"
        )
    config: SystemConfig = known[kind].Config.model_validate(raw)
    return config


AnySystem = Annotated[SerializeAsAny[SystemConfig], BeforeValidator(_system)]


class Card(Config):
    """What the bundles made of the run say about themselves."""

    name: str
    version: str
    title: str


class Data(Config):
    """Which segments and which people.

    Attributes
    ----------
    shards : tuple of str
        Folders that ``bcitrain data prepare`` wrote, or addresses of such.  May be empty beside ``tables``.
    tables : tuple of tables
        People in several modalities (`offline.data.tables`), for a system that learns from them.  A subject
        of a table and one of the shards with the same name are one person.
    table_batch : int
        People per update, over all processes and micro-batches; ``optim.batch_size`` counts segments.
    table_crop : int or None
        Volumes of a time series that a step sees, drawn at random; as many as the shortest has by default.
    shuffle_pairs : bool
        Control: while training everybody who has both gets the fMRI of somebody else.
    sfreq : float or None
        Hz, of the EEG that the system is made for, where there are no shards to tell it.
    validate : tuple of str
        Subjects held out and validated on: names, or ranges of them (``S061-S064``).
    exclude : tuple of str
        Subjects of whom nothing is used: kept for tests.
    crop_s : float
        Seconds of signal in a segment; rounded down to whole frames of the system.
    channels : int or None
        Channels drawn at random for each segment, so that montages can mix; None takes all.
    validate_segments : int
        At most so many segments are validated on, spread over the held-out subjects.
    num_workers : int or None
        Processes that read ahead, per training process; None is 0 on the CPU and 4 beside a GPU.
    """

    shards: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    table_batch: PositiveInt = 16
    table_crop: PositiveInt | None = None
    shuffle_pairs: bool = False
    sfreq: PositiveFloat | None = None
    validate_: Annotated[tuple[str, ...], Field(alias="validate", min_length=1)]
    exclude: tuple[str, ...] = ()
    crop_s: PositiveFloat
    channels: PositiveInt | None = None
    validate_segments: PositiveInt = 1024
    num_workers: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if not self.shards and not self.tables:
            raise ValueError("there is nothing to learn from: name shards, tables or both")
        if bool(self.shards) == (self.sfreq is not None):
            raise ValueError("sfreq is given where there are no shards, and only there: shards tell theirs")
        if self.shuffle_pairs and not self.tables:
            raise ValueError("shuffle_pairs needs tables, whose pairs it shuffles")
        return self


class Optim(Config):
    """AdamW with a linear warm-up and a cosine down to ``lr_end``.

    Attributes
    ----------
    steps : int
        Updates of the weights.
    batch_size : int
        Segments per update, over all processes and micro-batches.
    accumulate : int
        Micro-batches that an update's segments are cut into where they do not fit into memory at once.
        Gradients are the same; codebooks that follow a running mean see the micro-batches one by one.
    lr, lr_end : float
        Learning rate after the warm-up, and what it falls towards.
    weight_decay : float
        On weight matrices and kernels; biases, gains and other vectors go without.
    warmup_steps : int
    clip_norm : float
        Gradients are scaled down to this norm.
    precision : str
        Mixed precision needs a GPU; on the CPU everything is float32.
    """

    steps: PositiveInt
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    lr: PositiveFloat = 3e-4
    lr_end: NonNegativeFloat = 0.0
    betas: tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ] = (0.9, 0.95)
    weight_decay: NonNegativeFloat = 0.01
    warmup_steps: NonNegativeInt = 0
    clip_norm: PositiveFloat = 1.0
    precision: Precision = "32-true"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal micro-batches"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        return self


class PretrainRecipe(Config):
    """One pretraining run, from shards to weights.

    Attributes
    ----------
    steps_per_epoch : int
        A checkpoint, a validation and a line in the logs every so many steps.
    """

    card: Card
    system: AnySystem
    data: Data
    optim: Optim
    steps_per_epoch: PositiveInt
    seed: NonNegativeInt = 0
    output: Path

    @property
    def epochs(self) -> int:
        """Return how often the training is validated and kept."""
        return self.optim.steps // self.steps_per_epoch

    @model_validator(mode="after")
    def _whole_epochs(self) -> Self:
        if self.optim.steps % self.steps_per_epoch:
            raise ValueError(
                f"optim.steps {self.optim.steps} must be a multiple of steps_per_epoch {self.steps_per_epoch}"
            )
        return self

    def course(self) -> dict[str, Any]:
        """Return what decides the loss curve, as JSON values: not names, folders or reading ahead."""
        data: Any = {"shards": True, "num_workers": True, "tables": {"__all__": {"path", "labels"}}}
        if not self.data.tables:
            data |= dict.fromkeys(("tables", "table_batch", "table_crop", "shuffle_pairs", "sfreq"), True)
        hidden: Any = {"card": True, "output": True, "data": data}
        return self.model_dump(mode="json", by_alias=True, exclude=hidden)


def load(path: str | Path, changes: Sequence[str] = ()) -> PretrainRecipe:
    """Read a recipe.

    Parameters
    ----------
    changes : sequence of str
        Settings to take instead of the file's: ``"system.mask.kind=random"``, the value as YAML.

    Raises
    ------
    ConfigError
        No such file, not YAML, or faults: all of them, each with its path.
    """
    return parse(yaml_file.read(path, "Recipe", changes), str(path))


def parse(raw: Any, where: str = "recipe") -> PretrainRecipe:
    """Return the recipe that a mapping describes; `ConfigError` lists every fault."""

    def block_of(loc: yaml_file.Location) -> type[BaseModel] | None:
        if loc == ("system",):
            return kinds()[raw["system"]["kind"]].Config  # type: ignore[no-any-return]
        return BLOCKS.get(loc)

    return yaml_file.checked(PretrainRecipe, raw, f"{where} is not a pretraining recipe", block_of)


BLOCKS: dict[yaml_file.Location, type[BaseModel]] = {
    (): PretrainRecipe,
    ("card",): Card,
    ("data",): Data,
    ("optim",): Optim,
}
