"""Writes into a bundle how it decides, and what is to be expected at which rate of false activations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import MANIFEST, Bundle, digest, load
from engine.bundle_folder import CARD, refuse_other, replace_files
from engine.decision import DecisionSettings
from engine.manifest import PRODUCTS
from engine.operating import OperatingPoint
from offline.activations import Tally, tally
from offline.card import operated_anew
from offline.cells_played import read_played, temperature_of, told_design
from offline.design import design_of, differing
from offline.evaluate.namesakes import namesakes, told, told_met
from offline.evaluate.played import Played, play, undecided
from offline.evaluate.protocol import Live
from offline.evaluate.recordings import Options, find_people, look, protocol_of, task_of, trained_on
from offline.evaluate.renaming import refuse_unused
from offline.export_folder import carry_training
from offline.head_statistics import measured_anew, measured_over
from offline.operating import CONFIDENCE, fit
from offline.probe.tasks import Session
from streamer.errors import ConfigError, RecordingError

PEOPLE = "not trained on; those that validated the bundle may be among them"
SAME = "nets of the same recipe"
UNTOLD = "nets that do not tell their recipe: it is the user's word that it is the same"
Progress = Callable[[str, int, int], None]


def silent(_subject: str, _done: int, _total: int) -> None:
    """Report no progress."""


def operate(
    reference: str | Path,
    data: str | Path,
    output: str | Path,
    subjects: Sequence[str] | None = None,
    *,
    options: Options | None = None,
    progress: Progress = silent,
) -> Bundle:
    """Fit a bundle's decision stage on these people's recordings, and write the bundle anew.

    People whom the bundle was trained on are left out: it is surer of them than of anybody.

    Parameters
    ----------
    reference : str or Path
        A bundle's folder, or the name of a shipped one.
    data : str or Path
        Folder of recordings.
    output : str or Path
        Of the new bundle; may be the folder of the old one.
    subjects : sequence of str, optional
        Everybody by default.
    options : Options, optional
        How the folder is read and what counts, beside what the bundle says of it.

    Raises
    ------
    ConfigError
        The bundle has no idle class, so nothing that it says is false; the output is another bundle's folder
        or cannot be written; or a new name for what no recording has.
    RecordingError
        No recording that it can be measured on.
    """
    bundle = _with_idle(reference)
    refuse_other(Path(output), bundle.manifest.name)
    sessions, said = _sessions(bundle, data, subjects, options)
    played: list[Played] = []
    with OnnxRuntime().open(bundle) as backend:
        for done, session in enumerate(sessions):
            progress(session.subject, done, len(sessions))
            played.append(play(bundle, backend, session))
    progress("", len(sessions), len(sessions))
    never = [f"{one.subject}/{one.name} left out: {why}" for one in played if (why := undecided(one))]
    played = [one for one in played if not undecided(one)]
    said = {"decisions_of": "this bundle", "people": PEOPLE, **said, "notes": [*said["notes"], *never]}
    return _operated(bundle, played, said, Path(data), Path(output), options)


def operate_played(
    reference: str | Path,
    folder: str | Path,
    output: str | Path,
    subjects: Sequence[str] | None = None,
    *,
    data: str | Path | None = None,
    nets: str | Path | None = None,
    options: Options | None = None,
    progress: Progress = silent,
) -> Bundle:
    """Fit a bundle's decision stage on what other nets of its recipe said of people whom they did not know.

    A benchmark keeps that for everybody it tests, so there are many people even where the bundle itself has
    learnt from nearly all of them.  What is promised is then what the recipe does on new people.  The bundle
    takes over those nets' median temperature, too: its own comes from the few people that it validated on.
    Of a bundle without an idle class nothing else is changed.

    What a refit of the head gains new people (`engine.gains`) hangs on the temperature.  It is measured anew,
    or else no longer told.

    Parameters
    ----------
    folder : str or Path
        Of a benchmark's cells of one model, or of one of them.
    data : str or Path, optional
        Folder with recordings of people whom the bundle was not trained on, to measure that on.
    nets : str or Path, optional
        Folder of a benchmark's models, to measure it with each of these nets on the people in ``data`` whom
        that one was not trained on: everybody once.

    The others, and what is raised, are as for `operate`.
    """
    bundle = load(reference)
    refuse_other(Path(output), bundle.manifest.name)
    temperature = temperature_of(Path(folder))
    if bundle.readout.idle is None and temperature is None:
        _with_idle(reference)  # there is nothing to take over
    played = read_played(Path(folder), bundle, subjects)
    whose = SAME if told_design(Path(folder)) else UNTOLD
    head: bytes | None = None
    if temperature is not None:
        bundle = _with_temperature(bundle, temperature)
        if bundle.readout.head is not None:
            head = _head(bundle, data, nets, options, progress)
    if bundle.readout.idle is None:
        return _write(bundle, _as_it_was(bundle, played, whose, options), Path(output), head)
    return _operated(bundle, played, {"decisions_of": whose}, Path(folder), Path(output), options, head)


def _head(
    bundle: Bundle,
    data: str | Path | None,
    nets: str | Path | None,
    options: Options | None,
    progress: Progress,
) -> bytes:
    """Return the head file with what a refit gains at the bundle's temperature."""
    if data is None:
        return measured_anew(bundle, [])
    if nets is None:
        return measured_anew(bundle, _sessions(bundle, data, None, options)[0])
    return measured_over(bundle, _unknown_to(_nets(Path(nets)), bundle, data, options, progress))


def _nets(folder: Path) -> list[Path]:
    """Return the bundles of a benchmark's models; `ConfigError` where one fold has two of a seed."""
    found = sorted(path.parent for path in folder.glob(f"*/bundle/{MANIFEST}"))
    if not found:
        raise ConfigError(f"{folder} holds no nets: expected a benchmark's models, such as RUN/models/ours.")
    folds = Counter(path.parent.name.rpartition("_")[0] for path in found)
    if twice := sorted(name for name, n in folds.items() if n > 1):
        raise ConfigError(
            f"{folder} holds several nets of {', '.join(twice)}, all but one of other settings: move those "
            "away."
        )
    return found


def _unknown_to(
    folders: Sequence[Path], bundle: Bundle, data: str | Path, options: Options | None, progress: Progress
) -> Iterator[tuple[Bundle, list[Session]]]:
    """Yield each net, at the bundle's temperature, and whom it has neither learned from nor validated on.

    Nobody comes twice.
    """
    seen: set[str] = set()
    for done, folder in enumerate(folders):
        progress(folder.parent.name, done, len(folders))
        net = _with_temperature(load(folder), bundle.readout.temperature)
        if wrong := differing(design_of(bundle), design_of(net)):
            raise ConfigError(
                f"{folder} is of another recipe: it and bundle {bundle.label} differ in {', '.join(wrong)}."
            )
        sessions = [one for one in _unknown(net, data, options) if one.subject not in seen]
        seen |= {one.subject for one in sessions}
        yield net, sessions


def _unknown(net: Bundle, data: str | Path, options: Options | None) -> list[Session]:
    """Return the recordings that had no part in a net; none where it knows all."""
    task, known, held = task_of(net, data, options), trained_on(net), dict[str, str]()
    looked = (each for who in find_people(task) for each in look(net, task, who, known, held))
    return [each.session for each in looked if each.session is not None]


def _with_idle(reference: str | Path) -> Bundle:
    bundle = load(reference)
    if bundle.readout.idle is None:
        raise ConfigError(
            f"Bundle {bundle.label} has no idle class: it always says one of "
            f"{', '.join(bundle.readout.classes)}, and no rate of false activations can be promised."
        )
    return bundle


def _with_temperature(bundle: Bundle, temperature: float) -> Bundle:
    readout = bundle.readout.model_copy(update={"temperature": round(temperature, 4)})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"readout": readout}))


@dataclass(frozen=True, slots=True)
class _Fitted:
    """How a bundle is to decide, its operating points, and what they were measured on."""

    settings: DecisionSettings
    points: tuple[OperatingPoint, ...]
    live: Live
    about: dict[str, Any]


def _as_it_was(bundle: Bundle, played: Sequence[Played], whose: str, options: Options | None) -> _Fitted:
    """Return the decision stage as the bundle has it, and whose nets its temperature is of."""
    readout, live = bundle.readout, protocol_of(bundle, options).live
    subjects = sorted({one.subject for one in played})
    about = {"temperature_of": whose, "subjects": subjects}
    return _Fitted(readout.decision, readout.operating, live, about)


def _operated(
    bundle: Bundle,
    played: Sequence[Played],
    said: dict[str, Any],
    where: Path,
    output: Path,
    options: Options | None,
    head: bytes | None = None,
) -> Bundle:
    """Fit, and write the bundle anew."""
    readout = bundle.readout
    live = protocol_of(bundle, options).live
    settings, points = fit(played, readout.classes, readout.idle, readout.decision, live)
    if not points:
        raise RecordingError(
            f"Nothing to measure in {where}: needed are good signal under commands, and without any. "
            f"{'; '.join(said.get('notes', []))}".rstrip()
        )
    about = said | _about(played, bundle, live)
    return _write(bundle, _Fitted(settings, points, live, about), output, head)


def _sessions(
    bundle: Bundle, data: str | Path, subjects: Sequence[str] | None, options: Options | None
) -> tuple[list[Session], dict[str, Any]]:
    """Return the recordings that the bundle can be measured on, and what is to be said of the others."""
    task = task_of(bundle, data, options)
    people, learned = find_people(task, subjects), trained_on(bundle, but="validate")
    refuse_unused(task, people, options)
    held: dict[str, str] = {}
    looked = [(who.name, each) for who in people for each in look(bundle, task, who, learned, held)]
    found = [each.session for _, each in looked if each.session is not None]
    left_out = [each for _, each in looked if each.session is None]
    if not found:
        why = "; ".join(f"{each.where}: {each.why}" for each in left_out[:3])
        raise RecordingError(f"Nothing to measure in {data}: {why}.")
    met = {name for name, each in looked if each.met}
    why_not = {"left_out_because": dict(Counter(each.why for each in left_out))} if left_out else {}
    assumed = sorted({note for _, each in looked for note in each.notes})
    notes = [*told_met(met), *told(namesakes(bundle, {one.subject for one in found}, "train")), *assumed]
    return found, {"recordings_left_out": len(left_out), **why_not, "notes": notes}


def _about(played: Sequence[Played], bundle: Bundle, live: Live) -> dict[str, Any]:
    """Return what the operating points were measured on."""
    readout = bundle.readout
    counted = Tally.joined([tally(one, one.labels, readout.classes, readout.idle, live) for one in played])
    return {
        "subjects": sorted({one.subject for one in played}),
        "recordings": len(played),
        "commands": len(counted.right),
        "minutes_without_command": round(float(counted.minutes.sum()), 1),
        "false_per_min": f"upper limit of the mean over people, {100 * CONFIDENCE:g} % confidence, one-sided",
        "hits": "share of the commands whose first label was their own",
        "on": "share of the time without a command for which a label was on, mean over people",
        "within": "share of the people whose own rate was not above false_per_min",
        "live": live.model_dump(mode="json"),
    }


def _write(bundle: Bundle, fitted: _Fitted, folder: Path, head: bytes | None = None) -> Bundle:
    """Write the bundle as it now decides; of the files beside the manifest the head may be another.

    The card says that its figures are of the settings before.
    """
    contents = {name: (bundle.folder / name).read_bytes() for name in bundle.manifest.files}
    files = dict(bundle.manifest.files)
    if head is not None and bundle.readout.head is not None:
        contents[bundle.readout.head], files[bundle.readout.head] = head, digest(head)
    if CARD in contents:
        contents[CARD] = operated_anew(contents[CARD], fitted.about)
        files[CARD] = digest(contents[CARD])
    changed = {"decision": fitted.settings, "operating": fitted.points}
    manifest = bundle.manifest.model_copy(
        update={
            "files": files,
            "readout": bundle.readout.model_copy(update=changed),
            "provenance": _told(bundle.manifest.provenance, fitted),
        }
    )
    text = json.dumps(manifest.model_dump(mode="json", exclude=set(PRODUCTS) - {manifest.product}), indent=1)
    replace_files(folder, {**contents, MANIFEST: f"{text}\n".encode()})
    carry_training(bundle.folder, folder)
    return load(folder)


def _told(provenance: dict[str, Any], fitted: _Fitted) -> dict[str, Any]:
    """Return a bundle's provenance with what was measured; what counts is its own from there on."""
    told = provenance | {"operating": fitted.about}
    task = provenance.get("task")
    if isinstance(task, dict) and isinstance(task.get("protocol"), dict):
        live = {"live": fitted.live.model_dump(mode="json")}
        told["task"] = task | {"protocol": task["protocol"] | live}
    return told
