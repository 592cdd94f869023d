"""What a pretraining draws its batches from: shards, told apart into trained on and held out.

A micro-batch is a function of (seed, step, process, micro-batch), so nothing about the order of the data has
to be remembered for a resumed training, and any number of processes sees the same global batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from offline.data.shards import ShardSet
from offline.data.sources import select
from offline.pretrain_recipe import PretrainRecipe
from offline.systems import Segments
from streamer.errors import ConfigError


def open_shards(recipe: PretrainRecipe, held_out_batch: int) -> tuple[ShardSet, ShardSet]:
    """Return the segments to train on and those held out.

    Parameters
    ----------
    held_out_batch : int
        Segments of a batch of the second.

    Raises
    ------
    ConfigError
        A subject is both held out and excluded, a recording is both trained and validated on, or segments
        are shorter than the system's frame.
    RecordingError
        A folder without shards, or a subject that is not there.
    """
    data = recipe.data
    everything = ShardSet(data.shards, batch_size=1)
    held_out = select(everything.subjects, data.validate_, "The corpus")
    excluded = select(everything.subjects, data.exclude, "The corpus")
    both = sorted(set(held_out) & set(excluded))
    if both:
        raise ConfigError(f"{', '.join(both)} are in data.validate and in data.exclude: choose one.")

    crop = _crop(recipe, everything.sfreq)
    train = ShardSet(
        data.shards,
        batch_size=recipe.optim.batch_size,
        exclude=(*held_out, *excluded),
        crop=crop,
        channels=data.channels,
        seed=recipe.seed,
    )
    validate = ShardSet(
        data.shards, batch_size=held_out_batch, subjects=held_out, crop=crop, channels=data.channels
    )
    _refuse_shared(train, validate)
    return train, validate


def _crop(recipe: PretrainRecipe, sfreq: float) -> int:
    """Return the samples of a segment: a whole number of the system's frames.

    The system that is asked is one of its own: what is made of its parts need not leave it as it was.
    """
    parts = recipe.system.build(sfreq).parts()
    hop = math.lcm(*(getattr(part, "hop", 1) for part in parts.values()))
    wanted = round(recipe.data.crop_s * sfreq)
    if wanted < hop:
        raise ConfigError(
            f"data.crop_s {recipe.data.crop_s:g} is {wanted} samples at {sfreq:g} Hz; a frame of the system "
            f"is {hop}: make it {hop / sfreq:g} or more."
        )
    return wanted // hop * hop


def _refuse_shared(train: ShardSet, validate: ShardSet) -> None:
    """Raise `ConfigError` where a recording is on both sides, under whatever subject's name."""
    shared = sorted(set(train.fingerprints) & set(validate.fingerprints))
    if shared:
        raise ConfigError(
            f"{len(shared)} recordings would be trained and validated on at once, under several subjects' "
            f"names ({', '.join(shared[:3])}): hold out all of these subjects, or exclude some."
        )


class PretrainData(L.LightningDataModule):  # type: ignore[misc]
    """The loaders.

    Parameters
    ----------
    rank, world : int
        This process, of how many.
    num_workers : int
        Processes that read ahead; 0 reads in this one.
    pin : bool
        Page-locked memory, from where copies to a GPU overlap with its work.
    """

    def __init__(
        self,
        recipe: PretrainRecipe,
        *,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        pin: bool = False,
    ) -> None:
        super().__init__()
        self.recipe, self.rank, self.world = recipe, rank, world
        pieces = world * recipe.optim.accumulate
        if recipe.optim.batch_size % pieces:
            raise ConfigError(
                f"optim.batch_size {recipe.optim.batch_size} cannot be cut into equal parts for {world} "
                f"processes times {recipe.optim.accumulate} micro-batches: make it a multiple of {pieces}."
            )
        self._held_out_batch = recipe.optim.batch_size // pieces
        self.train, self.validate_on = open_shards(recipe, self._held_out_batch)
        self._workers, self._pin = num_workers, pin

    @property
    def fingerprints(self) -> dict[str, tuple[str, ...]]:
        """Return those of the recordings on each side."""
        return {"train": self.train.fingerprints, "validate": self.validate_on.fingerprints}

    @property
    def subjects(self) -> dict[str, tuple[str, ...]]:
        """Return the names on each side."""
        return {"train": self.train.subjects, "validate": self.validate_on.subjects}

    def train_dataloader(self) -> DataLoader[Segments]:
        """Return the loader of micro-batches, from the epoch that the trainer stands at."""
        recipe = self.recipe
        per_epoch = recipe.steps_per_epoch * recipe.optim.accumulate
        micros = Micros(self.train, recipe.optim.accumulate, self.rank, self.world, recipe.optim.steps)
        order = Epochs(per_epoch, self.trainer.global_step // recipe.steps_per_epoch)
        return self._loader(micros, self._workers, sampler=order)

    def val_dataloader(self) -> DataLoader[Segments]:
        """Return the loader of held-out batches: all of them in every process, so figures are exact."""
        limit = math.ceil(self.recipe.data.validate_segments / self._held_out_batch)
        return self._loader(HeldOut(self.validate_on, limit), min(1, self._workers))

    def transfer_batch_to_device(self, batch: Segments, device: torch.device, _loader: int) -> Segments:
        """Return the batch on the device, its keys on the CPU, where rows' generators are seeded."""
        x, positions = (tensor.to(device, non_blocking=True) for tensor in (batch.x, batch.positions))
        return Segments(x, positions, batch.keys)

    def _loader(
        self, data: Dataset[Segments], num_workers: int, sampler: Sampler[int] | None = None
    ) -> DataLoader[Segments]:
        return DataLoader(
            data,
            batch_size=None,
            sampler=sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=self._pin,
            generator=torch.Generator(),  # else it draws from the one that dropout draws from
        )


class Micros(Dataset[Segments]):
    """Micro-batches of one process, in the order they are trained on."""

    def __init__(self, shards: ShardSet, accumulate: int, rank: int, world: int, steps: int) -> None:
        self.shards, self.accumulate, self.rank, self.world = shards, accumulate, rank, world
        self.steps = steps

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __getitem__(self, index: int) -> Segments:
        """Return a slice of a step's global batch: first cut by process, then by micro-batch."""
        step, micro = divmod(index, self.accumulate)
        return self.shards.batch(step, self.rank * self.accumulate + micro, self.world * self.accumulate)


class Epochs(Sampler[int]):
    """The micro-batches of an epoch; Lightning calls `set_epoch` before each."""

    def __init__(self, per_epoch: int, epoch: int) -> None:
        self.per_epoch, self.epoch = per_epoch, epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.epoch * self.per_epoch, (self.epoch + 1) * self.per_epoch))


class HeldOut(IterableDataset[Segments]):
    """Batches to validate on, ``limit`` of them at most and the same every time."""

    def __init__(self, shards: ShardSet, limit: int) -> None:
        self.shards, self.limit = shards, limit

    def __iter__(self) -> Iterator[Segments]:
        return iter(self.shards.validation_batches(self.limit))
