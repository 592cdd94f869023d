"""Corpora into shards: `prepare` turns recordings of any format into tars of preprocessed segments.

The shards are WebDataset tars, plain tars that any tool reads, written with webdataset's own writer.
They are read by an order of our own (`offline.data.shards`), a pure function of seed and step: that is what
resumes exactly, and makes N processes equal to one.  litdata, the alternative, ties the state of a resume to
the number of workers and brings a cloud SDK along.

Samples are stored as float16, (n_chans, n_times): on EEGMMIDB behind 0.5-40 Hz the error is 2.1e-4 of the
signal's rms, 0.003 µV.  int16 with a scale per channel would have 0.4e-4, but its error grows with the
loudest artefact of the segment, and it needs the scale to be read at all.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PositiveFloat, model_validator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offline import yaml_file
from offline.data.segments import Signal
from offline.data.shard_index import INDEX, SUBJECTS, Index, Sidecar, digest, read_sidecar, tars_of, write
from offline.data.shard_writer import PARTS, Job
from offline.data.sources import Folder, Moabb, find
from offline.data.workers import run_all
from streamer.errors import ConfigError, RecordingError

_JOB_KEYS = ("folders", "moabb", "shard_mb", "output")


def _as_folder(value: Any) -> Any:
    """Let a plain path stand for a folder without settings."""
    return {"path": value} if isinstance(value, str | Path) else value


class Prepare(Signal):
    """What becomes shards, and how: the keys of `Signal`, and these.

    Attributes
    ----------
    folders : tuple of Folder
        A plain path will do.
    moabb : tuple of Moabb
    shard_mb : float
        A subject's tar is closed when it is as large, and another begun.
    output : Path
        Folder of the shards.
    """

    folders: tuple[Annotated[Folder, BeforeValidator(_as_folder)], ...] = ()
    moabb: tuple[Moabb, ...] = ()
    shard_mb: PositiveFloat = 256.0
    output: Path

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not (self.folders or self.moabb):
            raise ValueError("give folders, moabb or both: there is nothing to prepare")
        return self

    def signal(self) -> Signal:
        """Return what decides the samples."""
        return Signal.model_construct(**{key: getattr(self, key) for key in Signal.model_fields})

    def jobs(self) -> list[Job]:
        """Return a job per chosen subject, sorted by name."""
        size = round(self.shard_mb * 1e6)
        return [Job(s, self.signal(), size, self.output) for s in find(self.folders, self.moabb)]


def load(path: str | Path) -> Prepare:
    """Read a configuration.

    Raises
    ------
    ConfigError
        No such file, not YAML, or faults: all of them, each with its path.
    """
    return parse(yaml_file.read(path, "Configuration"), str(path))


def parse(raw: Any, where: str = "configuration") -> Prepare:
    """Return the configuration that a mapping describes; `ConfigError` lists every fault."""
    return yaml_file.checked(Prepare, raw, f"{where} does not say what to prepare")


def prepare(
    config: Prepare,
    *,
    workers: int | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the shards of a corpus; subjects that are done are not done again.

    The same shards, byte for byte, come of any number of workers.  A kill at any time leaves whole subjects
    behind, and the same call goes on from there.

    Parameters
    ----------
    workers : int, optional
        Processes; one per processor by default.
    progress : bool
        Show a bar on standard error.
    say : callable
        Takes each recording that was left out, in a sentence.

    Returns
    -------
    dict
        ``output``, ``subjects``, ``done_before``, ``segments``, ``hours`` (kept), ``short_hours`` (filled no
        segment), ``rejected`` (segments, by reason), ``failed``, ``notes``, ``bytes``, ``seconds``; and to
        reckon for other corpora, ``signal_hours_per_s`` (of one worker; None when nothing was left to do)
        and ``gb_per_hour`` of recording.

    Raises
    ------
    ConfigError
        The folder holds shards made with other settings.
    RecordingError
        A source is not there, or no recording could be used.
    """
    began = time.perf_counter()
    jobs = config.jobs()
    before, todo = _sort_out(jobs)
    done = {sidecar.subject: sidecar for sidecar in before}
    with _counter(len(jobs), len(before), progress) as advance:
        for sidecar in run_all(todo, workers or os.cpu_count() or 1):
            done[sidecar.subject] = sidecar
            for recording, why in sidecar.failed.items():
                say(f"left out {recording}: {why}")
            advance()
    sidecars = [done[job.subject.name] for job in jobs]
    index = _index(config, sidecars)
    _forget_others(config.output, {job.sidecar.name for job in jobs})
    write(config.output / INDEX, index)
    old = {sidecar.subject for sidecar in before}
    fresh = [sidecar for sidecar in sidecars if sidecar.subject not in old]
    return _report(config, index, sidecars, fresh, time.perf_counter() - began)


def _sort_out(jobs: Sequence[Job]) -> tuple[list[Sidecar], list[Job]]:
    """Return the sidecars of subjects that are done, and the jobs that are left."""
    before: list[Sidecar] = []
    todo: list[Job] = []
    for job in jobs:
        sidecar = read_sidecar(job.sidecar)
        if sidecar is None or sidecar.files != job.subject.sizes():
            todo.append(job)
            continue
        changed = _differences(sidecar.settings, job.settings)
        if changed and not sidecar.shards:
            todo.append(job)
            continue
        if changed:
            raise ConfigError(
                f"{job.output} holds shards made with other settings ({', '.join(changed)}): choose another "
                "output, or remove that folder to make them anew."
            )
        if all(_is_whole(job.output / shard.file, shard.bytes) for shard in sidecar.shards):
            before.append(sidecar)
        else:
            todo.append(job)
    return before, todo


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def _index(config: Prepare, sidecars: Sequence[Sidecar]) -> Index:
    used = [sidecar for sidecar in sidecars if sidecar.shards]
    rejected: Counter[str] = Counter()
    failed: dict[str, str] = {}
    for sidecar in sidecars:
        rejected.update(sidecar.rejected)
        failed |= sidecar.failed
    if not used:
        reasons = [f"  {name}: {why}" for name, why in list(failed.items())[:8]]
        raise RecordingError(
            f"No recording could be used: {len(failed)} could not be read, {rejected.total()} segments were "
            "rejected.\n" + "\n".join(reasons)
        )
    settings = config.signal().model_dump(mode="json")
    return Index(
        settings=digest([sidecar.settings for sidecar in used]),
        stype=config.stype,
        sfreq=config.sfreq,
        unit=used[0].unit,
        dsp=tuple(settings["dsp"]),
        segment_s=config.segment_s,
        n_times=config.signal().n_times,
        montages={name: place for s in used for name, place in sorted(s.montages.items())},
        shards=tuple(shard for sidecar in used for shard in sidecar.shards),
        subjects={sidecar.subject: sidecar.fingerprints for sidecar in used},
        hours=round(sum(sidecar.kept_s for sidecar in used) / 3600, 4),
        rejected=dict(sorted(rejected.items())),
        failed=failed,
    )


def _forget_others(output: Path, kept: set[str]) -> None:
    """Remove the shards of subjects that are not chosen any more, and what a kill left half done."""
    for path in (output / SUBJECTS).glob("*.json"):
        if path.name not in kept:
            for tar in tars_of(output, path.stem):
                tar.unlink()
            path.unlink()
    for part in (output / PARTS).glob("*"):
        part.unlink()
    if (output / PARTS).is_dir():
        (output / PARTS).rmdir()


def _report(
    config: Prepare, index: Index, sidecars: Sequence[Sidecar], fresh: Sequence[Sidecar], seconds: float
) -> dict[str, Any]:
    notes: Counter[str] = Counter()
    for sidecar in sidecars:
        notes.update(sidecar.notes)
    size = sum(shard.bytes for shard in index.shards)
    signal_h = sum(sidecar.signal_s for sidecar in sidecars) / 3600
    busy_s = sum(sidecar.seconds for sidecar in fresh)
    return {
        "output": str(config.output),
        "subjects": len(index.subjects),
        "done_before": len(sidecars) - len(fresh),
        "segments": sum(shard.n for shard in index.shards),
        "hours": index.hours,
        "short_hours": round(sum(sidecar.short_s for sidecar in sidecars) / 3600, 4),
        "rejected": index.rejected,
        "failed": index.failed,
        "notes": dict(sorted(notes.items())),
        "bytes": size,
        "seconds": round(seconds, 1),
        "signal_hours_per_s": sum(s.signal_s for s in fresh) / 3600 / busy_s if busy_s else None,
        "gb_per_hour": size / 1e9 / signal_h,
    }


@contextmanager
def _counter(total: int, done: int, show: bool) -> Iterator[Callable[[], None]]:
    """Show a bar of subjects; yield what moves it on."""
    columns = (TextColumn("prepare"), BarColumn(), MofNCompleteColumn(), TextColumn("subjects"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task("prepare", total=total, completed=done)
        yield lambda: bar.advance(task)
