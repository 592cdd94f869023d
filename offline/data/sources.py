"""Where a corpus comes from: folders of recordings in any format, and MOABB's data sets, by subject."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from offline.data.fingerprint import fingerprint, fingerprint_of_file
from offline.data.people import own_subject
from streamer.components import Config
from streamer.errors import ConfigError, MissingDependency, RecordingError
from streamer.sources.recording import Holes, Recording, load, of_signal, repeated
from streamer.types import Marker, StreamInfo

TEXTS = (".txt", ".csv")  # where they begin like a recording
SUFFIXES = (".edf", ".bdf", ".gdf", ".fif", ".vhdr", ".xdf", ".xdfz", ".npz", *TEXTS)
_BIDS = re.compile(r"sub-[A-Za-z0-9]+")
Opened = tuple[Recording, str]


class Folder(Config):
    """A folder of recordings: EDF, BDF, GDF, FIF, BrainVision, XDF or the project's npz, at any depth.

    So are text files of the OpenBCI GUI, of BrainFlow and of muse-lsl; other text is no recording.

    Attributes
    ----------
    path : Path
        Relative to the working directory.
    subject : str, optional
        Regular expression on a file's path below the folder; its first group (or all that it matches) names
        the subject.  Without one an npz's own word counts (``subject`` in its ``meta``); of others the
        subject is the first sub-folder, or where they lie in none the ``sub-XX`` in the name or the name.
    prefix : str
        Put in front of every subject's name, where two folders use the same names.
    include, exclude : tuple of str
        Subjects, or ranges of them (``S001-S064``), with their prefix; ``include`` is all by default.
    hold : int
        Rows for which a recorder repeats each sample: one of so many is kept, and the rate divided by it.
    uv_per_count : float, optional
        µV per step, for recordings that tell no unit.
    holes : "split" or "repeat"
        What becomes of recordings that keep the first seconds of every epoch: stretches with holes between
        them, before each of which every state is reset; or one signal without holes, in which each is
        repeated to fill its epoch, for a net that looks at the first seconds only.  `RecordingError` where
        the stretches are no such epochs.
    channels, labels : dict
        New names of channels and of markers, old to new, where two corpora call the same by different names,
        or wear the same armband otherwise.
    """

    path: Path
    subject: str | None = None
    prefix: str = ""
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    hold: PositiveInt = 1
    uv_per_count: PositiveFloat | None = None
    holes: Holes = "split"
    channels: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def where(self) -> str:
        """What it is called in messages."""
        return str(self.path)

    @field_validator("subject")
    @classmethod
    def _is_a_pattern(cls, subject: str | None) -> str | None:
        try:
            re.compile(subject or "")
        except re.error as error:
            raise ValueError(f"{subject!r} is no regular expression: {error}") from error
        return subject


class Moabb(Config):
    """A data set that MOABB fetches; subjects are called ``<dataset>_001``, ...

    Attributes
    ----------
    dataset : str
        Name of a class of ``moabb.datasets``.
    include, exclude : tuple of int
        MOABB's subject numbers; ``include`` is all by default.
    """

    dataset: str
    include: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()

    @property
    def where(self) -> str:
        """What it is called in messages."""
        return f"MOABB's {self.dataset}"


@dataclass(frozen=True, slots=True)
class Subject:
    """A person's recordings, not yet opened.

    Attributes
    ----------
    name : str
    origin : Folder or Moabb
    files : tuple of Path
        Sorted; empty for MOABB.
    number : int
        MOABB's; 0 for a folder.
    """

    name: str
    origin: Folder | Moabb
    files: tuple[Path, ...] = ()
    number: int = 0

    def sizes(self) -> dict[str, int]:
        """Return the files' bytes by path: what tells that a subject's recordings were changed."""
        return {str(path): path.stat().st_size for path in self.files}

    def openers(self) -> Iterator[tuple[str, Callable[[], Opened]]]:
        """Yield each recording's name and a function that reads it and its fingerprint.

        The name is the file's without its suffix; where several of the person's are called so, it is the path
        below the folder that holds them all.
        The function raises `RecordingError` where there is nothing to read.
        """
        if isinstance(self.origin, Moabb):
            for name, raw in _raws(self.origin.dataset, self.number):
                yield name, partial(_from_raw, name, raw)
            return
        for name, path in zip(_names(self.files), self.files, strict=True):
            yield name, partial(_read, path, self.origin)


def find(folders: Sequence[Folder], moabb: Sequence[Moabb]) -> list[Subject]:
    """Return the chosen subjects, sorted by name.

    Raises
    ------
    RecordingError
        A folder that is not there or empty, or a subject that it does not have.
    ConfigError
        Two sources have a subject of the same name.
    """
    found: dict[str, Subject] = {}
    for subject in [*(s for f in folders for s in _in_folder(f)), *(s for m in moabb for s in _in_moabb(m))]:
        if subject.name in found:
            places = f"{found[subject.name].origin.where} and in {subject.origin.where}"
            raise ConfigError(
                f"Subject {subject.name!r} is in {places}: give one of the folders a `prefix:`."
            )
        found[subject.name] = subject
    return [found[name] for name in sorted(found)]


def select(subjects: Sequence[str], wanted: Sequence[str], where: str) -> list[str]:
    """Return the subjects that are wanted; an entry is a name or a range, ``S001-S064`` or ``sub-01-sub-09``.

    Raises
    ------
    RecordingError
        An entry that fits none.
    """
    chosen: dict[str, None] = {}
    for entry in wanted:
        names = [entry] if entry in subjects else _range(subjects, entry)
        if not names:
            raise RecordingError(
                f"{where} has no subject {entry!r}; it has {len(subjects)}, from {min(subjects)} to "
                f"{max(subjects)}."
            )
        chosen |= dict.fromkeys(names)
    return list(chosen)


def _range(subjects: Sequence[str], entry: str) -> list[str]:
    """Return the subjects between the two names; a name may itself contain dashes."""
    for dash in (i for i, letter in enumerate(entry) if letter == "-"):
        if between := [name for name in subjects if entry[:dash] <= name <= entry[dash + 1 :]]:
            return between
    return []


def _in_folder(folder: Folder) -> list[Subject]:
    if not folder.path.is_dir():
        raise RecordingError(f"No folder {folder.path}: expected recordings ({', '.join(SUFFIXES)}).")
    files: dict[str, list[Path]] = {}
    for path in sorted(_walk(folder.path)):
        own = own_subject(path) if folder.subject is None else None
        name = own or subject_of(path.relative_to(folder.path), folder.subject)
        if name is not None:
            files.setdefault(folder.prefix + name, []).append(path)
    if not files:
        raise RecordingError(
            f"{folder.path} holds no recording ({', '.join(SUFFIXES)})"
            + (f" that fits subject: {folder.subject}." if folder.subject else ".")
        )
    names = list(files)
    chosen = names if folder.include is None else select(names, folder.include, str(folder.path))
    left_out = set(select(names, folder.exclude, str(folder.path)))
    return [Subject(name, folder, tuple(files[name])) for name in chosen if name not in left_out]


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, followlinks=True):
        if any(name.startswith("OpenBCI-RAW") for name in names):  # the GUI writes either of a session
            names = [name for name in names if not name.startswith("BrainFlow-RAW")]
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and (path.suffix.lower() not in TEXTS or of_signal(path)):
                yield path


def subject_of(path: Path, pattern: str | None) -> str | None:
    """Return the subject of a file by its path below the folder; None: the pattern leaves it out."""
    if pattern is not None:
        match = re.search(pattern, path.as_posix())
        return match[match.re.groups and 1] if match else None
    if len(path.parts) > 1:
        return path.parts[0]
    bids = _BIDS.search(path.stem)
    return bids[0] if bids else path.stem


def _in_moabb(moabb: Moabb) -> list[Subject]:
    known: list[int] = list(_dataset(moabb.dataset).subject_list)
    chosen = known if moabb.include is None else moabb.include
    if unknown := sorted({*chosen, *moabb.exclude} - set(known)):
        raise RecordingError(
            f"{moabb.dataset} has no subject {unknown[0]}; it has {min(known)} to {max(known)}."
        )
    return [
        Subject(f"{moabb.dataset}_{number:03d}", moabb, number=number)
        for number in chosen
        if number not in moabb.exclude
    ]


def _dataset(name: str) -> Any:
    """Return MOABB's data set of that name."""
    try:
        import moabb.datasets
        import moabb.datasets.fake
    except ImportError as error:
        raise MissingDependency(
            f"Data set {name} comes through MOABB, not installed here: pip install 'bcistream[moabb]'"
        ) from error
    kind = getattr(moabb.datasets, name, None) or getattr(moabb.datasets.fake, name, None)
    if kind is None:
        raise ConfigError(f"MOABB has no data set {name!r}: see the list at moabb.neurotechx.com.")
    return kind()


def _raws(dataset: str, number: int) -> list[tuple[str, Any]]:
    """Return a subject's runs as MNE's Raw; `RecordingError` where they are not here and do not come."""
    source = _dataset(dataset)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MOABB's and MNE's own making
            sessions = source.get_data([number])[number]
    except Exception as error:  # whatever the reader of some data set raises, and what fetches for it
        raise RecordingError(f"{dataset}_{number:03d} cannot be had by MOABB: {_why(error)}") from error
    return [
        (f"{dataset}_{number:03d}_{session}_{run}", raw)
        for session, runs in sorted(sessions.items())
        for run, raw in sorted(runs.items())
    ]


def _why(error: Exception) -> str:
    """Say what MOABB failed at, and what to do."""
    from requests.exceptions import RequestException  # MOABB fetches with it

    if not isinstance(error, RequestException) or error.request is None:
        return f"{error or type(error).__name__}. If a file is damaged, remove it, and it is fetched again."
    address = str(error.request.url)
    home, path = Path(os.environ.get("MNE_DATA", "~/mne_data")).expanduser(), urlparse(address).path
    made = next(home.glob(f"MNE-*-data{Path(path).parent}"), home)  # MOABB makes a file's folder before it
    return (
        f"{address} gave nothing: there is no network here, or that server does not answer. Run this where "
        f"there is one; or fetch there what is missing, put it by hand into {made}, where MOABB looks, "
        "and set MOABB_DOWNLOAD_PROVIDER=upstream, so that MOABB asks no other server first."
    )


def _names(files: Sequence[Path]) -> list[str]:
    """Return a name for each of a person's files, no two the same."""
    if not files:
        return []
    common = os.path.commonpath([path.parent for path in files])
    paths = [path.relative_to(common) for path in files]
    stems = Counter(path.stem for path in paths)
    places = Counter(path.with_suffix("") for path in paths)
    names = []
    for path in paths:
        place = path.with_suffix("")
        whole = place if places[place] == 1 else path  # one recording in two formats
        names.append(path.stem if stems[path.stem] == 1 else whole.as_posix())
    return names


def _from_raw(name: str, raw: Any) -> Opened:
    types = raw.get_channel_types()
    volts = raw.get_data()  # (n_chans, n_times)
    data = np.ascontiguousarray(volts.T * 1e6, dtype=np.float32)
    info = StreamInfo(
        name=name,
        source_id=f"moabb:{name}",
        stype="EEG" if "eeg" in types else types[0].upper(),
        sfreq=float(raw.info["sfreq"]),
        ch_names=tuple(raw.ch_names),
        ch_types=tuple(types),
        unit="uV",
    )
    times = np.arange(len(data)) / info.sfreq
    return Recording(info, data, times, markers=_cues(raw)), fingerprint(data.T)


def _cues(raw: Any) -> tuple[Marker, ...]:
    """Return a Raw's annotations as markers: where MOABB has cues, each lasts as long as its trial."""
    first_s = float(raw.first_time)  # annotations count from where the recorder started
    notes = raw.annotations
    return tuple(
        Marker(float(onset) - first_s, str(label), float(duration))
        for onset, duration, label in zip(notes.onset, notes.duration, notes.description, strict=True)
    )


def _read(path: Path, folder: Folder) -> Opened:
    recording = load(path)
    if folder.holes == "repeat":
        recording = repeated(recording)
    recording = _renamed(recording, folder)
    if folder.hold > 1:
        recording = _unheld(recording, folder.hold)
    if recording.info.unit == "unknown" and folder.uv_per_count is not None:
        data = recording.data * np.float32(folder.uv_per_count)
        recording = replace(recording, data=data, info=replace(recording.info, unit="uV"))
    return recording, fingerprint_of_file(path)


def _renamed(recording: Recording, folder: Folder) -> Recording:
    """Return the recording with the folder's names of channels and markers."""
    names = tuple(folder.channels.get(name, name) for name in recording.info.ch_names)
    twice = {name for name in names if names.count(name) > 1}
    if twice and folder.channels:
        raise RecordingError(
            f"{recording.info.name}: with `channels:` several are called {', '.join(sorted(twice))}."
        )
    markers = (replace(one, label=folder.labels.get(one.label, one.label)) for one in recording.markers)
    return replace(recording, info=replace(recording.info, ch_names=names), markers=tuple(markers))


def _unheld(recording: Recording, hold: int) -> Recording:
    """Return one row of ``hold``."""
    if recording.breaks:
        raise RecordingError(
            f"{recording.info.name} has {len(recording.breaks)} holes: `hold:` needs a gapless recording"
        )
    info = replace(recording.info, sfreq=recording.info.sfreq / hold)
    return replace(recording, info=info, data=recording.data[::hold], times=recording.times[::hold])
