"""Shards as training reads them: batches that are a pure function of seed and step.

A pass over the corpus is a permutation of its segments: shards in random order, ``open_shards`` neighbours
shuffled together, so that a disk or a network sees few files at a time.  Where montages cannot mix, each has
passes of its own, and a fixed share of the batches.  Nothing is remembered between batches, so a resumed
training, and N processes that share a batch, draw what one uninterrupted process draws.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from engine.manifest import AnyStep
from offline.blocks.electrodes import coordinates
from offline.data.remote import Store
from offline.data.shard_index import INDEX, NPY_HEADER, Index, Shard, parse_index
from offline.data.shard_order import Order, Schedule, row_key
from offline.data.sources import select
from offline.data.subjects import number
from offline.systems import Segments
from streamer.dsp import StepConfig
from streamer.errors import ConfigError, RecordingError

_DRAW = 1  # stream of a row's generator for crop and channels: models draw from the generator itself
_MAX_OPEN = 256  # memory maps kept
_NPY_MAGIC = b"\x93NUMPY"
_STEPS: TypeAdapter[tuple[StepConfig, ...]] = TypeAdapter(tuple[AnyStep, ...])

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Tar:
    """A shard in its store."""

    store: Store
    shard: Shard
    ch_names: Names
    n_times: int


class ShardSet:
    """Segments of one or more corpora of shards.

    Cheap to open (only the indexes are read) and picklable.

    Parameters
    ----------
    folders : sequence of str or Path
        Folders that `offline.data.prepare` wrote, or addresses of such; see `offline.data.remote.Store`.
    batch_size : int
        Rows of a batch, over all processes.
    subjects, exclude : sequence of str, optional
        Names or ranges; all and none by default.
    crop : int, optional
        Samples of a row; the whole segment by default.
    channels : int, optional
        So many channels, drawn at random for each row: then montages mix, and those with fewer are left out.
    seed : int
        Of the order, the crops and the keys.
    open_shards : int
        Shards whose segments are shuffled together.
    cache, cache_gb : Path, float
        For remote shards.

    Attributes
    ----------
    sfreq : float
        Hz.
    stype, unit : str
    dsp : tuple of StepConfig
        The list behind which the samples are.
    subjects : tuple of str
        Sorted.
    fingerprints : tuple of str
        Of every recording of these subjects, sorted.
    montages : tuple of tuple of str
        Channel names of the montages in the set.
    n_times : int
        Samples of a row.

    Raises
    ------
    ConfigError
        The corpora do not go together, the crop is longer than a segment, or nothing is left.
    RecordingError
        No shards there, or no such subject.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        *,
        batch_size: int,
        subjects: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        crop: int | None = None,
        channels: int | None = None,
        seed: int = 0,
        open_shards: int = 16,
        cache: Path | None = None,
        cache_gb: float = 100.0,
    ) -> None:
        stores = [Store(folder, cache=cache, cache_gb=cache_gb) for folder in folders]
        indexes = [parse_index(store.read(INDEX), store.where(INDEX)) for store in stores]
        _check_alike(indexes, [store.place for store in stores])
        self.sfreq, self.stype, self.unit = indexes[0].sfreq, indexes[0].stype, indexes[0].unit
        self.dsp = _STEPS.validate_python(indexes[0].dsp)
        self.subjects = _subjects(indexes, subjects, exclude)
        self.fingerprints = _fingerprints(indexes, self.subjects)
        self.n_times = _length(indexes, crop)
        self._channels, self._batch_size, self._seed = channels, batch_size, seed
        self._groups = _groups(stores, indexes, self.subjects, channels)
        self.montages = tuple(dict.fromkeys(tar.ch_names for group in self._groups for tar in group))
        sizes = [[tar.shard.n for tar in group] for group in self._groups]
        self._orders = [Order(counts, (seed, i), open_shards) for i, counts in enumerate(sizes)]
        self._schedule = Schedule([order.n for order in self._orders], batch_size, seed)
        self._places = {names: coordinates(names, self.stype) for names in self.montages}
        self._maps: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of segments."""
        return sum(order.n for order in self._orders)

    @property
    def hours(self) -> float:
        """Signal in the set."""
        seconds = sum(tar.shard.n * tar.n_times for group in self._groups for tar in group) / self.sfreq
        return seconds / 3600

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Segments:
        """Return rows ``rank * B / world`` to ``(rank + 1) * B / world`` of a step's batch.

        Raises
        ------
        ConfigError
            The batch cannot be shared evenly.
        RecordingError
            A shard is missing or damaged.
        """
        size, rest = divmod(self._batch_size, world)
        if rest:
            raise ConfigError(
                f"A batch of {self._batch_size} rows cannot be shared by {world} processes: make the batch a "
                f"multiple of {world}."
            )
        group, first = self._schedule(step)
        rows = []
        for row in range(rank * size, (rank + 1) * size):
            shard, segment = self._orders[group](first + row)
            key = row_key(self._seed, step * self._batch_size + row)
            rows.append(self._drawn(self._groups[group][shard], segment, key))
        return _stack(rows)

    def validation_batches(
        self, limit: int | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Segments]:
        """Yield batches in a fixed order, without chance: each segment's first crop, channels evenly spread.

        Parameters
        ----------
        limit : int, optional
            So many batches at most, of segments evenly spread over the set; all segments by default.
        rank, world : int
            This process's share: every ``world``-th batch from the ``rank``-th on.
        """
        batches = []
        for group, order in enumerate(self._orders):
            n = order.n
            if limit is not None:
                n = min(n, self._batch_size * max(1, round(limit * order.n / len(self))))
            chosen = np.arange(n) * order.n // n
            batches += [(group, chosen[i : i + self._batch_size]) for i in range(0, n, self._batch_size)]
        for group, chosen in batches[:limit][rank::world]:
            starts = np.cumsum([0, *(tar.shard.n for tar in self._groups[group])])
            shards = np.searchsorted(starts, chosen, side="right") - 1
            yield _stack(
                [
                    self._plain(self._groups[group][shard], int(at - starts[shard]), int(at))
                    for shard, at in zip(shards.tolist(), chosen.tolist(), strict=True)
                ]
            )

    def _drawn(self, tar: _Tar, segment: int, key: int) -> _Row:
        """Return a row whose crop and channels are drawn from its key."""
        rng = np.random.default_rng((key, _DRAW))
        start = int(rng.integers(tar.n_times - self.n_times + 1))
        picks = np.arange(len(tar.ch_names))
        if self._channels is not None:
            picks = rng.choice(len(picks), self._channels, replace=False)
        return self._row(tar, segment, picks, start, key)

    def _plain(self, tar: _Tar, segment: int, key: int) -> _Row:
        k, n = self._channels or len(tar.ch_names), len(tar.ch_names)
        return self._row(tar, segment, (np.arange(k) * n + n // 2) // k, 0, key)

    def _row(self, tar: _Tar, segment: int, picks: NDArray[np.int64], start: int, key: int) -> _Row:
        content = self._mapped(tar)
        at = tar.shard.offset + segment * tar.shard.stride
        n_chans = len(tar.ch_names)
        intact = bytes(content[at - NPY_HEADER :][: len(_NPY_MAGIC)]) == _NPY_MAGIC
        stored = content[at : at + 2 * n_chans * tar.n_times].view("<f2").reshape(n_chans, tar.n_times)
        x = stored[:, start : start + self.n_times][picks].astype(np.float32)  # (C, T): a copy
        if not (intact and np.isfinite(x).all()):
            raise RecordingError(
                f"Shard {tar.store.where(tar.shard.file)} is damaged at segment {segment}: delete it and run "
                "`bcitrain data prepare` again (only what is missing is done again), or copy it again."
            )
        return x, self._places[tar.ch_names][picks], key, number(tar.shard.subject)

    def _mapped(self, tar: _Tar) -> NDArray[np.uint8]:
        """Return a shard's bytes, mapped; the one not used for longest is closed."""
        name = tar.store.where(tar.shard.file)
        if name not in self._maps:
            path = tar.store.file(tar.shard.file, tar.shard.bytes)
            self._maps[name] = np.memmap(path, dtype=np.uint8, mode="r")
        self._maps.move_to_end(name)
        if len(self._maps) > _MAX_OPEN:
            self._maps.popitem(last=False)
        return self._maps[name]

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind: another process opens its own."""
        return {**self.__dict__, "_maps": OrderedDict()}


_Row = tuple[NDArray[np.float32], NDArray[np.float32], int, int]  # x (C, T), positions (C, 3), key, subject


def _stack(rows: Sequence[_Row]) -> Segments:
    x, positions, keys, subjects = zip(*rows, strict=True)
    return Segments(
        torch.from_numpy(np.stack(x)),
        torch.from_numpy(np.stack(positions)),
        torch.tensor(keys, dtype=torch.int64),
        torch.tensor(subjects, dtype=torch.int64),
    )


def _check_alike(indexes: Sequence[Index], places: Sequence[str]) -> None:
    if not indexes:
        raise ConfigError("No folder of shards was given: name at least one.")
    for index, place in zip(indexes[1:], places[1:], strict=True):
        for key in ("stype", "sfreq", "unit", "dsp"):
            ours, other = getattr(indexes[0], key), getattr(index, key)
            if ours != other:
                raise ConfigError(
                    f"{places[0]} and {place} cannot be one corpus: {key} is {ours} in the first, {other} in "
                    "the second. Prepare both with the same settings."
                )


def _subjects(
    indexes: Sequence[Index], subjects: Sequence[str] | None, exclude: Sequence[str]
) -> tuple[str, ...]:
    names = sorted({name for index in indexes for name in index.subjects})
    chosen = names if subjects is None else select(names, subjects, "The corpus")
    left_out = set(select(names, exclude, "The corpus"))
    return tuple(name for name in names if name in chosen and name not in left_out)


def _fingerprints(indexes: Sequence[Index], subjects: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({p for index in indexes for name in subjects for p in index.subjects.get(name, ())}))


def _length(indexes: Sequence[Index], crop: int | None) -> int:
    shortest = min(index.n_times for index in indexes)
    if crop is not None and crop > shortest:
        raise ConfigError(
            f"Crops of {crop} samples do not fit in segments of {shortest}: make the crop shorter, or "
            "prepare longer segments."
        )
    return shortest if crop is None else crop


def _groups(
    stores: Sequence[Store], indexes: Sequence[Index], subjects: Sequence[str], channels: int | None
) -> list[list[_Tar]]:
    """Return the shards that may share a batch, group by group."""
    chosen, groups = set(subjects), dict[Names, list[_Tar]]()
    for store, index in zip(stores, indexes, strict=True):
        for shard in (shard for shard in index.shards if shard.subject in chosen):
            names = index.montages[shard.montage].ch_names
            if len(names) >= (channels or 1):
                group = names if channels is None else ()
                groups.setdefault(group, []).append(_Tar(store, shard, names, index.n_times))
    if not groups:
        raise ConfigError(
            f"Nothing to read: no shard of the {len(chosen)} chosen subjects has {channels or 1} channels."
        )
    return list(groups.values())
