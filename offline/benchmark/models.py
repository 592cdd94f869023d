"""How each kind of model learns from a fold and answers for the people it tests: `answer`, `identity`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.backends import Backend
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, load
from engine.manifest import MANIFEST
from offline import yaml_file
from offline.benchmark.cells import Answered
from offline.benchmark.classical import asked_after_rest, train_decoder
from offline.benchmark.memo import Memo
from offline.benchmark.people import Fold, Recordings
from offline.benchmark.recipe import Calibrate, Classical, Finetuned, Recipe, Task, Trained
from offline.design import design_of
from offline.evaluate.played import Played, play
from offline.probe.recipe import digest
from offline.probe.tasks import Session
from offline.provenance import versions
from streamer.errors import ConfigError

SHOWN = {"name", "answer", "ours", "backbone_saw_test"}  # settings that change no answer
APART = {"output", "card", "seed"}  # likewise, of a recipe; the seed is the benchmark's
SIDES = ("train", "validate")
FORMAT = 3  # of what is kept, and how it is made: cells of another one are made again
SCORING = {"answer", "live", "smoothing_s"}  # of a protocol: changes no decision


@dataclass(frozen=True, slots=True)
class Bench:
    """What every cell needs: the recipe, the recordings, and what was computed lately."""

    recipe: Recipe
    recordings: Recordings
    memo: Memo


def identity(model: Trained | Finetuned | Classical, bench: Bench, fold: Fold, seed: int) -> dict[str, Any]:
    """Return what decides a model's answers for a fold, as JSON values.

    Raises
    ------
    ConfigError
        A recipe that is not there.
    """
    task = bench.recipe.task
    told: dict[str, Any] = {
        "model": model.model_dump(mode="json", exclude=SHOWN, by_alias=True),
        "task": _told(task),
        "seed": seed,
        "format": FORMAT,
        "bcistream": versions()["bcistream"],
        "train": _prints(bench, fold.train),
        "validate": _prints(bench, fold.validate),
        "test": _prints(bench, fold.test),
    }
    if isinstance(model, Classical):
        rest_s = _own_rest(model, bench)
        told |= {"calibrate": {"rest_s": rest_s}} if rest_s else {}
        return told | {"protocol": task.protocol.model_dump(mode="json", exclude=SCORING)}
    raw = yaml_file.read(model.recipe, "Recipe", model.set)
    kept = {key: value for key, value in raw.items() if key not in APART}
    if isinstance(model, Finetuned):
        kept["weights"] = _weights(model)
    elif isinstance(kept.get("data"), dict):  # who learns and who validates is the fold's to say
        kept["data"] = {key: value for key, value in kept["data"].items() if key not in SIDES}
    calibrate = bench.recipe.calibrate
    return told | {
        "recipe": digest(repr(kept)),
        "calibrate": calibrate and calibrate.model_dump(mode="json"),
    }


def answer(
    model: Trained | Finetuned | Classical, bench: Bench, fold: Fold, seed: int, folder: Path
) -> Answered:
    """Train the model on the fold and return what it says about every recording of the people tested.

    Parameters
    ----------
    folder : Path
        For what is trained: an interrupted training goes on from there.

    Raises
    ------
    ConfigError, RecordingError, StreamMismatch
        The model does not fit the task or the recordings, or knows the people tested.
    """
    started = time.monotonic()
    if isinstance(model, Classical):
        answered = _classical(model, bench, fold)
    else:
        make = _trained if isinstance(model, Trained) else _finetuned
        bundle, notes = make(model, bench, fold, seed, folder)  # type: ignore[arg-type]
        answered = _play(bundle, notes, bench, fold)
    return replace(answered, seconds=round(time.monotonic() - started, 1))


def _classical(model: Classical, bench: Bench, fold: Fold) -> Answered:
    task, rest_s = bench.recipe.task, _own_rest(model, bench)
    learned = (model, task, fold, bench.recordings, bench.memo)
    people = [bench.recordings.sessions(name) for name in fold.test]
    decoder = train_decoder(*learned)
    played = [decoder.play_person(sessions, memo=bench.memo) for sessions in people]
    answered = Answered(tuple(one for some in played for one in some), model.decision)
    if not rest_s:
        return answered
    own = train_decoder(*learned, rest_s)
    after = [one for sessions in people for one in own.play_person(sessions, memo=bench.memo)]
    before: list[Played] = []
    for sessions, some in zip(people, played, strict=True):
        before += [asked_after_rest(some[0], sessions[0], rest_s, task), *some[1:]]
    return replace(answered, calibrated=tuple(after), uncalibrated=tuple(before))


def _own_rest(model: Classical, bench: Bench) -> float:
    """Return how much rest of a person's own a classical decoder is given: matrices have no mean to take."""
    calibrate = bench.recipe.calibrate
    return 0.0 if calibrate is None or model.reader.matrices else calibrate.rest_s


def _trained(
    model: Trained, bench: Bench, fold: Fold, seed: int, folder: Path
) -> tuple[Bundle, tuple[str, ...]]:
    from offline.train.fold import train_fold

    bundle = load(train_fold(model.recipe, model.set, fold.train, fold.validate, seed, folder))
    _refuse_known(model.name, bundle, bench, fold, SIDES)
    return bundle, ()


def _finetuned(
    model: Finetuned, bench: Bench, fold: Fold, seed: int, folder: Path
) -> tuple[Bundle, tuple[str, ...]]:
    from offline.export_decoder import export_decoder
    from offline.finetune.finetune import finetune
    from offline.finetune.recipe import load as read_recipe
    from offline.runs import CHECKPOINT
    from offline.runs import load_run as pretraining

    changes = [
        *model.set,
        f"task.train=[{', '.join(fold.train)}]",
        f"task.validate=[{', '.join(fold.validate)}]",
        f"seed={seed}",
        f"output={folder / 'run'}",
    ]
    recipe = read_recipe(model.recipe, changes)
    seen = {one for group in pretraining(recipe.backbone.run).fingerprints.values() for one in group}
    known = [name for name in fold.test if seen & set(bench.recordings.fingerprints(name))]
    if known and not model.backbone_saw_test:
        raise ConfigError(
            f"{model.name}: the backbone {recipe.backbone.run} was pretrained on recordings of "
            f"{len(known)} of the people tested ({known[0]}, ...). Pretrain it without them, test others, or "
            "say backbone_saw_test: true, and the report will say so."
        )
    if not (folder / "bundle" / MANIFEST).is_file():
        resume = recipe.mode != "frozen" and (recipe.output / CHECKPOINT).is_file()
        finetune(recipe, resume=resume)
        partial = folder / "bundle.part"  # what is called bundle is whole, its head included
        export_decoder(recipe.output, partial)
        partial.rename(folder / "bundle")
    bundle = load(folder / "bundle")
    _refuse_known(model.name, bundle, bench, fold, SIDES)
    notes = [f"backbone pretrained on recordings of {len(known)} of {len(fold.test)} people tested"]
    return bundle, tuple(notes[: len(known)])


def _play(bundle: Bundle, notes: tuple[str, ...], bench: Bench, fold: Fold) -> Answered:
    task, readout = bench.recipe.task, bundle.readout
    if (readout.classes, readout.idle) != (task.classes, task.idle):
        raise ConfigError(
            f"Bundle {bundle.label} tells {', '.join(readout.classes)} (idle: {readout.idle}), the task has "
            f"{', '.join(task.classes)} (idle: {task.idle}): write the same, in the same order, in both."
        )
    people = {name: bench.recordings.sessions(name) for name in fold.test}
    with OnnxRuntime().open(bundle) as backend:
        played = tuple(play(bundle, backend, one) for sessions in people.values() for one in sessions)
        answered = Answered(
            played, readout.decision, notes, temperature=readout.temperature, design=design_of(bundle)
        )
        if bench.recipe.calibrate is None:
            return answered
        return _refitted(answered, bundle, backend, people, bench.recipe.calibrate)


def _refitted(
    answered: Answered,
    bundle: Bundle,
    backend: Backend,
    people: Mapping[str, Sequence[Session]],
    settings: Calibrate,
) -> Answered:
    """Add what each person's own head says of the rest of their recordings."""
    from offline.evaluate.calibrated import calibrated

    if bundle.readout.head is None:
        return replace(answered, notes=(*answered.notes, "carries no head that could be refitted"))
    after: list[Played] = []
    before: list[Played] = []
    notes: list[str] = []
    for name, sessions in people.items():
        made = calibrated(bundle, backend, sessions, **settings.model_dump())
        after += made.refitted
        before += made.zero_shot
        notes += [] if made.refitted else [f"{name} is not calibrated: {made.why}"]
    notes = [*answered.notes, *notes]
    return replace(answered, notes=tuple(notes), calibrated=tuple(after), uncalibrated=tuple(before))


def _refuse_known(name: str, bundle: Bundle, bench: Bench, fold: Fold, sides: Sequence[str]) -> None:
    """Refuse a bundle whose head learned from, or was chosen by, recordings of the people tested."""
    listed = bundle.manifest.provenance.get("fingerprints", {})
    known = {str(one) for side in sides for one in listed.get(side, ())}
    for person in fold.test:
        if known & set(bench.recordings.fingerprints(person)):
            raise ConfigError(
                f"{name} was trained on a recording of {person}, who is tested: the same samples are in the "
                "folder under two names. Leave one of them out."
            )


def _prints(bench: Bench, people: Sequence[str]) -> dict[str, list[str]]:
    return {name: list(bench.recordings.contents(name)) for name in people}


def _told(task: Task) -> dict[str, Any]:
    """Return what of the task decides answers; cells of before there was `moabb` have no such key."""
    told = task.model_dump(mode="json", exclude={"folder": {"path"}, "protocol": True})
    return {key: value for key, value in told.items() if key != "moabb" or value is not None}


def _weights(model: Finetuned) -> str:
    """Return what identifies the backbone; nothing where it is not there, which the training will say."""
    from offline.finetune.recipe import load as read_recipe
    from offline.run_folder import WEIGHTS

    path = read_recipe(model.recipe, model.set).backbone.run / WEIGHTS
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""
