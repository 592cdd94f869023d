"""One subject's recordings into tars, all or nothing."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from offline.data.segments import Cut, Segment, Signal, chosen
from offline.data.shard_index import (
    SUBJECTS,
    Place,
    Shard,
    Sidecar,
    describe,
    montage_id,
    slug,
    tars_of,
    write,
)
from offline.data.sources import Opened, Subject
from streamer.errors import BciError
from streamer.montage import located, positions

PARTS = ".parts"  # where tars grow until they are whole
_JSON_BYTES = 512  # one block of a tar, so that segments lie at equal distances


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker gets: a subject, the settings, and where the tars go."""

    subject: Subject
    signal: Signal
    shard_bytes: int
    output: Path

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the content of this subject's shards, as JSON."""
        chosen_by = {"include", "exclude", "path"}
        origin = self.subject.origin.model_dump(mode="json", exclude=chosen_by)
        return {**self.signal.model_dump(mode="json"), **origin, "shard_bytes": self.shard_bytes}

    @property
    def sidecar(self) -> Path:
        """File that says that the subject is done."""
        return self.output / SUBJECTS / f"{slug(self.subject.name)}.json"


def run(job: Job) -> Sidecar:
    """Prepare one subject; a recording that cannot be read is left out and told in ``failed``."""
    began = time.perf_counter()
    tars = _Tars(job)
    unit, signal_s, short_s = "", 0.0, 0.0
    prints: list[str] = []
    rejected: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    failed: dict[str, str] = {}
    for name, opener in job.subject.openers():
        try:
            cut, fingerprint = _opened(opener(), job.signal)
        except BciError as error:
            failed[f"{job.subject.name}/{name}"] = str(error).splitlines()[0]
            continue
        for segment in cut:
            tars.write(segment, cut.info.ch_names, name, fingerprint)
        unit = cut.info.unit
        prints.append(fingerprint)
        signal_s += cut.seconds
        short_s += cut.short_s
        rejected.update(cut.rejected)
        notes.update(cut.notes)
    shards = tars.publish()
    done = Sidecar(
        subject=job.subject.name,
        settings=job.settings,
        files=job.subject.sizes(),
        unit=unit,
        shards=tuple(shards),
        montages=tars.montages,
        fingerprints=tuple(prints),
        rejected=dict(rejected),
        failed=failed,
        notes=dict(notes),
        signal_s=round(signal_s, 3),
        kept_s=sum(shard.n for shard in shards) * job.signal.n_times / job.signal.sfreq,
        short_s=round(short_s, 3),
        seconds=round(time.perf_counter() - began, 3),
    )
    write(job.sidecar, done)
    return done


def _opened(opened: Opened, signal: Signal) -> tuple[Cut, str]:
    recording, fingerprint = opened
    return Cut(chosen(recording, signal.stype), signal), fingerprint


class _Tars:
    """A subject's tars: one open per montage, a new one when it is full, moved in place at the end."""

    def __init__(self, job: Job) -> None:
        self._job, self._slug = job, slug(job.subject.name)
        self._parts = job.output / PARTS
        self._parts.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, tuple[Any, BinaryIO]] = {}
        self._files: list[tuple[Path, str]] = []
        self._n_segments = 0
        self.montages: dict[str, Place] = {}

    def write(self, segment: Segment, ch_names: tuple[str, ...], recording: str, fingerprint: str) -> None:
        """Add a segment."""
        montage = montage_id(ch_names)
        self.montages.setdefault(montage, Place(ch_names=ch_names, positions=_places(ch_names)))
        told = {"recording": recording, "start": segment.start, "fingerprint": fingerprint}
        about = json.dumps(told, ensure_ascii=False).encode()
        writer, stream = self._writer(montage)
        writer.write(
            {
                "__key__": f"{self._slug}-{self._n_segments:06d}",
                "json": about.ljust(_JSON_BYTES),
                "x.npy": segment.x.astype("<f2", copy=False),
            }
        )
        self._n_segments += 1
        if stream.tell() >= self._job.shard_bytes:
            self._close(montage)

    def publish(self) -> list[Shard]:
        """Close the tars, put them in the place of any older ones, and return their entries."""
        for montage in list(self._open):
            self._close(montage)
        shards = [describe(path, montage, self._job.subject.name) for path, montage in self._files]
        for path, _ in self._files:
            os.replace(path, self._job.output / path.name)
        for path in tars_of(self._job.output, self._slug)[len(shards) :]:
            path.unlink()
        return shards

    def _writer(self, montage: str) -> tuple[Any, BinaryIO]:
        if montage not in self._open:
            from webdataset.writer import TarWriter  # brings torch

            path = self._parts / f"{self._slug}-{len(self._files):04d}.tar"
            stream = path.open("wb")
            self._files.append((path, montage))
            self._open[montage] = (TarWriter(stream, mtime=0.0), stream)
        return self._open[montage]

    def _close(self, montage: str) -> None:
        writer, stream = self._open.pop(montage)
        writer.close()
        stream.close()


def _places(ch_names: tuple[str, ...]) -> tuple[tuple[float, float, float] | None, ...]:
    """Return the electrodes' places, rounded to what matters; None where a name has none."""
    return tuple(_place(name) if located(name) else None for name in ch_names)


def _place(name: str) -> tuple[float, float, float]:
    x, y, z = np.round(positions([name])[0], 6).tolist()
    return x, y, z
