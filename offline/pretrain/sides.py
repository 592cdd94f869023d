"""The two sides of a pretraining, trained on and held out: each has segments, people of tables, or both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from offline.data.shards import ShardSet
from offline.data.sources import select
from offline.data.subjects import SubjectSet, read_tables
from offline.data.tables import Person
from offline.pretrain.recipe import PretrainRecipe
from offline.systems import Segments
from streamer.dsp import StepConfig
from streamer.errors import ConfigError


class Side(NamedTuple):
    """What is trained on, or what is held out."""

    shards: ShardSet | NoShards
    people: SubjectSet | None

    @property
    def subjects(self) -> tuple[str, ...]:
        """Return everybody's names, sorted."""
        return tuple(sorted({*self.shards.subjects, *(self.people.subjects if self.people else ())}))

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Return those of the recordings and of the tables' rows, sorted."""
        return tuple(sorted({*self.shards.fingerprints, *(self.people.fingerprints if self.people else ())}))


def open_sides(recipe: PretrainRecipe, held_out_batch: int) -> tuple[Side, Side]:
    """Return what to train on and what is held out.

    Parameters
    ----------
    held_out_batch : int
        Segments of a batch of the second.

    Raises
    ------
    ConfigError
        A subject is both held out and excluded, a recording is both trained and validated on, segments are
        shorter than the system's frame, or the system has no use for the people of the tables.
    RecordingError
        A folder without shards, a table that cannot be read, or a subject that is not there.
    """
    data = recipe.data
    corpus = ShardSet(data.shards, batch_size=1) if data.shards else None
    people = read_tables(data.tables)
    names = sorted({*(corpus.subjects if corpus else ()), *(one.subject for one in people)})
    held_out = select(names, data.validate_, "The corpus")
    excluded = select(names, data.exclude, "The corpus")
    both = sorted(set(held_out) & set(excluded))
    if both:
        raise ConfigError(f"{', '.join(both)} are in data.validate and in data.exclude: choose one.")

    out = {*held_out, *excluded}
    trained = [name for name in names if name not in out]
    train = _side(recipe, corpus, people, trained, recipe.optim.batch_size, shuffle=data.shuffle_pairs)
    validate = _side(recipe, corpus, people, held_out, held_out_batch)
    recipe.system.check_people(train.people)
    _refuse_shared(train, validate)
    return train, validate


class NoShards:
    """Segments of nobody: what stands in for a `ShardSet` where there are only tables."""

    stype, unit = "EEG", "uV"
    dsp: tuple[StepConfig, ...] = ()
    subjects: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    montages: tuple[tuple[str, ...], ...] = ()

    def __init__(self, sfreq: float, n_times: int) -> None:
        self.sfreq, self.n_times = sfreq, n_times

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Segments:
        """Return no segment, of one channel."""
        nobody = torch.zeros(0, dtype=torch.int64)
        return Segments(torch.zeros(0, 1, self.n_times), torch.zeros(0, 1, 3), nobody, nobody)

    def validation_batches(self, limit: int | None = None) -> Iterator[Segments]:
        """Yield nothing."""
        return iter(())


def _side(
    recipe: PretrainRecipe,
    corpus: ShardSet | None,
    people: Sequence[Person],
    chosen: Sequence[str],
    batch_size: int,
    *,
    shuffle: bool = False,
) -> Side:
    """Return what there is of the chosen subjects; segments or people may be of none of them, not both."""
    shards = _shards(recipe, corpus, set(chosen), batch_size)
    if not {one.subject for one in people} & set(chosen):
        return Side(shards, None)
    found = SubjectSet(
        people,
        batch_size=recipe.data.table_batch,
        subjects=chosen,
        seed=recipe.seed,
        shuffle_pairs=shuffle,
        crop=recipe.data.table_crop,
        heard=shards.subjects,
    )
    return Side(shards, found)


def _shards(
    recipe: PretrainRecipe, corpus: ShardSet | None, chosen: set[str], batch_size: int
) -> ShardSet | NoShards:
    """Return the segments of the chosen subjects; none where only the tables have them."""
    data = recipe.data
    sfreq = corpus.sfreq if corpus else data.sfreq
    assert sfreq is not None  # the recipe sees to it
    subjects = [name for name in corpus.subjects if name in chosen] if corpus else []
    if not subjects and data.tables:
        return NoShards(sfreq, _crop(recipe, sfreq))
    return ShardSet(
        data.shards,
        batch_size=batch_size,
        exclude=[name for name in corpus.subjects if name not in chosen] if corpus else (),
        crop=_crop(recipe, sfreq),
        channels=data.channels,
        seed=recipe.seed,
    )


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


def _refuse_shared(train: Side, validate: Side) -> None:
    """Raise `ConfigError` where a recording is on both sides, under whatever subject's name."""
    shared = sorted(set(train.fingerprints) & set(validate.fingerprints))
    if shared:
        raise ConfigError(
            f"{len(shared)} recordings would be trained and validated on at once, under several subjects' "
            f"names ({', '.join(shared[:3])}): hold out all of these subjects, or exclude some."
        )
