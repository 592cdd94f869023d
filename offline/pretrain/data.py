"""What a pretraining draws its batches from: shards and people, told apart into trained on and held out.

A micro-batch is a function of (seed, step, process, micro-batch), so nothing about the order of the data has
to be remembered for a resumed training, and any number of processes sees the same global batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import zip_longest

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from offline.pretrain.recipe import PretrainRecipe
from offline.pretrain.sides import NoShards, Side, open_sides
from offline.systems import Segments
from streamer.errors import ConfigError


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
        sizes = {"optim.batch_size": recipe.optim.batch_size}
        if recipe.data.tables:
            sizes["data.table_batch"] = recipe.data.table_batch
        for name, size in sizes.items():
            if size % pieces:
                raise ConfigError(
                    f"{name} {size} cannot be cut into equal parts for {world} processes times "
                    f"{recipe.optim.accumulate} micro-batches: make it a multiple of {pieces}."
                )
        self._held_out_batch = recipe.optim.batch_size // pieces
        self.sides = open_sides(recipe, self._held_out_batch)
        self.train, self.validate_on = (side.shards for side in self.sides)
        self._workers, self._pin = num_workers, pin

    @property
    def fingerprints(self) -> dict[str, tuple[str, ...]]:
        """Return those of the recordings and tables' rows on each side."""
        train, validate = self.sides
        return {"train": train.fingerprints, "validate": validate.fingerprints}

    @property
    def subjects(self) -> dict[str, tuple[str, ...]]:
        """Return the names on each side."""
        train, validate = self.sides
        return {"train": train.subjects, "validate": validate.subjects}

    def train_dataloader(self) -> DataLoader[Segments]:
        """Return the loader of micro-batches, from the epoch that the trainer stands at."""
        recipe = self.recipe
        per_epoch = recipe.steps_per_epoch * recipe.optim.accumulate
        micros = Micros(self.sides[0], recipe.optim.accumulate, self.rank, self.world, recipe.optim.steps)
        order = Epochs(per_epoch, self.trainer.global_step // recipe.steps_per_epoch)
        return self._loader(micros, self._workers, sampler=order)

    def val_dataloader(self) -> DataLoader[Segments]:
        """Return the loader of held-out batches: all of them in every process, so figures are exact."""
        limit = math.ceil(self.recipe.data.validate_segments / self._held_out_batch)
        return self._loader(HeldOut(self.sides[1], limit), min(1, self._workers))

    def transfer_batch_to_device(self, batch: Segments, device: torch.device, _loader: int) -> Segments:
        """Return the batch on the device, its keys on the CPU, where rows' generators are seeded."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        x, positions = (tensor.to(device, non_blocking=True) for tensor in (batch.x, batch.positions))
        groups = tuple(
            one._replace(signal=moved(one.signal), edges=moved(one.edges), subjects=one.subjects.to(device))
            for one in batch.groups
        )
        return Segments(x, positions, batch.keys, moved(batch.subjects), groups)

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

    def __init__(self, side: Side, accumulate: int, rank: int, world: int, steps: int) -> None:
        self.side, self.accumulate, self.rank, self.world = side, accumulate, rank, world
        self.steps = steps

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __getitem__(self, index: int) -> Segments:
        """Return a slice of a step's global batch: first cut by process, then by micro-batch."""
        step, micro = divmod(index, self.accumulate)
        piece, pieces = self.rank * self.accumulate + micro, self.world * self.accumulate
        segments = self.side.shards.batch(step, piece, pieces)
        if self.side.people is None:
            return segments
        return segments._replace(groups=self.side.people.batch(step, piece, pieces, beside=segments))


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
    """Batches to validate on, the same every time: at most ``limit`` of segments, and all the people."""

    def __init__(self, side: Side, limit: int) -> None:
        self.side, self.limit = side, limit

    def __iter__(self) -> Iterator[Segments]:
        segments, people = self.side.shards.validation_batches(self.limit), self.side.people
        if people is None:
            yield from segments
            return
        none = NoShards(self.side.shards.sfreq, self.side.shards.n_times).batch(0)
        for batch, groups in zip_longest(segments, people.validation_batches()):
            shown = none if batch is None else batch
            yield shown._replace(groups=(*(groups or ()), *people.companions(shown)))
