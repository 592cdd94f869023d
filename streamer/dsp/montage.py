"""Bring a stream to a fixed list of channels: match, reorder, interpolate what is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from streamer.dsp import StepConfig
from streamer.dsp._rows import rows_times
from streamer.errors import StreamMismatch
from streamer.montage import clean_name, interpolation_matrix, located
from streamer.types import Chunk, StreamInfo

NUMBERED = re.compile(r"-\d+$")
REMEDY = (
    "Name all channels of the stream in order under `channels:` in the source block, or in the recorder, "
    "as the montage does"
)


class Config(StepConfig):
    """The channels that leave, in this order.

    Attributes
    ----------
    ch_names : tuple of str
        Found by name or alias (`streamer.montage.clean_name`), whatever the case.  A missing electrode of
        the 10-05 system is interpolated by spherical splines from all EEG channels of the stream.
    min_present : int or None
        Refuse when fewer of ``ch_names`` are in the stream; None: when fewer than half are.
    by : "name" or "order"
        ``"order"`` takes the first channels as they come and names them (armbands number theirs); all
        must be there.
    """

    kind: Literal["montage"] = "montage"
    ch_names: tuple[str, ...] = Field(min_length=1)
    min_present: int | None = Field(default=None, ge=1)
    by: Literal["name", "order"] = "name"

    def build(self, info: StreamInfo) -> Montage:
        """Return the step.

        Raises
        ------
        StreamMismatch
            Too few channels are there, one cannot be estimated, or one is there twice.
        """
        columns = self._find(info)
        missing = [name for name, column in zip(self.ch_names, columns, strict=True) if column is None]
        needed = self.min_present or (len(self.ch_names) + 1) // 2
        lost = [name for name in missing if self.by == "order" or not located(name)]
        if len(self.ch_names) - len(missing) < needed or lost:
            raise StreamMismatch(self._refusal(info, missing, needed, lost))
        return Montage(info, self.ch_names, columns)

    def _find(self, info: StreamInfo) -> list[int | None]:
        """Return for each of ``ch_names`` its column in the stream, or None."""
        if self.by == "order":
            return [i if i < info.n_chans else None for i in range(len(self.ch_names))]
        columns = _candidates(info.ch_names, self.ch_names)
        said = [
            f"{name} is there {len(some)} times ({', '.join(info.ch_names[i] for i in some)})"
            for name, some in zip(self.ch_names, columns, strict=True)
            if len(some) > 1
        ]
        if said:
            raise StreamMismatch(
                f"montage finds several channels for one: in stream {info.name!r} {'; '.join(said)}. "
                f"{REMEDY}."
            )
        return [some[0] if some else None for some in columns]

    def _refusal(self, info: StreamInfo, missing: list[str], needed: int, lost: list[str]) -> str:
        if lost and self.by == "order":
            why = f"{len(self.ch_names)} channels are needed"
        elif lost:
            why = f"not being 10-05 electrodes, {', '.join(lost)} cannot be interpolated"
        else:
            why = f"at least {needed} of {len(self.ch_names)} must be there for the others to be interpolated"
        return (
            f"montage misses {', '.join(missing)}; {why}. Stream {info.name!r} has {info.n_chans} channels: "
            f"{', '.join(info.ch_names)}. {REMEDY}, or choose a bundle for these channels."
        )


def _candidates(ch_names: Sequence[str], wanted: Sequence[str]) -> list[list[int]]:
    """Return for each wanted electrode the columns that may be it: several where nobody can tell.

    One that is called so itself goes before those that are known by an alias.
    """
    # Namesakes reach us numbered, by LSL's reader, that of recordings, or MNE: they are namesakes still.
    bare = [name if name in wanted else NUMBERED.sub("", name) for name in ch_names]
    often = Counter(bare)
    names = [one if often[one] > 1 else name for one, name in zip(bare, ch_names, strict=True)]
    called = _places(name.strip().lower() for name in names)
    alike = _places(clean_name(name).lower() for name in names)
    return [called.get(name.strip().lower()) or alike.get(clean_name(name).lower()) or [] for name in wanted]


def _places(keys: Iterable[str]) -> dict[str, list[int]]:
    """Return where each key is."""
    places: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    return places


class Montage:
    """Selects and interpolates channels; a `Step`, stateless.

    Attributes
    ----------
    interpolated : tuple of str
        Channels of the output that the stream does not have.
    used : tuple of int
        Columns of the stream that the output depends on.
    """

    def __init__(self, info: StreamInfo, ch_names: tuple[str, ...], columns: list[int | None]) -> None:
        types = tuple("eeg" if i is None else info.ch_types[i] for i in columns)
        self.info = replace(info, ch_names=ch_names, ch_types=types)
        self.delay = 0
        self.interpolated = tuple(n for n, i in zip(ch_names, columns, strict=True) if i is None)
        self.used = tuple(sorted({i for i in columns if i is not None}))
        self._columns = [0 if i is None else i for i in columns]
        if not self.interpolated:
            return
        self._missing = [out for out, i in enumerate(columns) if i is None]
        self._sources = [
            i for i, name in enumerate(info.ch_names) if info.ch_types[i] == "eeg" and located(name)
        ]
        self.used = tuple(sorted({*self.used, *self._sources}))
        self._splines = interpolation_matrix([info.ch_names[i] for i in self._sources], self.interpolated)

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chunk in the montage."""
        data = np.take(chunk.data, self._columns, axis=1)
        if self.interpolated:
            x = np.take(chunk.data, self._sources, axis=1).astype(np.float64)
            data[:, self._missing] = rows_times(x, self._splines)
        return chunk.carrying(data)

    def reset(self) -> None:
        """Nothing to forget."""
