"""Makes a bundle of one's own."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from engine.bundle import MANIFEST, Bundle
from engine.bundle import load as load_bundle
from engine.bundle_folder import CARD, refuse_unwritable
from offline.evaluate.recordings import Options, find_people, task_of
from offline.evaluate.renaming import refuse_unused
from offline.export import export
from offline.personal.filters import Adapted, Settings, adapt
from offline.personal.origin import Origin
from offline.personal.person import Person, read_person
from streamer.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Own:
    """What became of one person's bundle; ``bundle`` is None where the old one was kept."""

    came: Adapted
    person: Person
    trials: dict[str, int]
    bundle: Bundle | None


def personalise(
    one: Origin,
    path: str | Path,
    subject: str | None,
    folder: str | Path,
    settings: Settings,
    *,
    options: Options | None = None,
) -> Own:
    """Fit a bundle to all trials of one person, and write it where trials left out in turn are for it.

    Raises
    ------
    ConfigError
        The folder is there already or cannot be written, there is more than one person, too few trials, or a
        new name for what no recording has.
    RecordingError
        Nothing of that person can be used.
    """
    target = Path(folder)
    if target.exists():
        raise ConfigError(f"{target} is there already: name a new folder for the bundle.")
    refuse_unwritable(target)
    task = task_of(one.bundle, path, options)
    people = find_people(task, None if subject is None else [subject])
    if len(people) != 1:
        names = ", ".join(person.name for person in people[:5])
        raise ConfigError(f"{path} is of {len(people)} people ({names}): choose one, --subjects.")
    refuse_unused(task, people, options)
    person = read_person(one, task, people[0])
    came = adapt(one.model, one.run.recipe, person.shown, settings, one.bundle.readout.temperature)
    counts = person.shown.counts(one.run.recipe.classes)
    return Own(came, person, counts, _write(one, came, person, counts, target) if came.better else None)


def _write(one: Origin, came: Adapted, person: Person, counts: dict[str, int], folder: Path) -> Bundle:
    """Write one person's bundle, whole or not at all."""
    readout, recipe = one.bundle.readout, one.run.recipe
    card = recipe.card.model_copy(update={"version": f"{one.bundle.manifest.version}+{person.name}"})
    run = one.run.model_copy(
        update={
            "recipe": recipe.model_copy(update={"card": card}),
            "fingerprints": one.run.fingerprints | {"personal": person.side.fingerprints},
            "temperature": came.bolder * readout.temperature,
            "decision": readout.decision,
            "operating": readout.operating,
            "scores": {},
        }
    )
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        (partial / CARD).write_text(_card(one, came, person, counts))
        export(run, partial, model=came.model)
        manifest = json.loads((partial / MANIFEST).read_bytes())
        provenance = manifest["provenance"]
        if "operating" in one.bundle.manifest.provenance:
            provenance["operating"] = one.bundle.manifest.provenance["operating"]
        provenance["personal"] = {
            "from": one.bundle.label,
            "subject": person.name,
            "trials": counts,
            "left_out_cross_entropy": {"before": round(came.before, 4), "after": round(came.after, 4)},
            "bolder": round(came.bolder, 4),
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_bundle(folder)


def _card(one: Origin, came: Adapted, person: Person, counts: dict[str, int]) -> str:
    label = one.bundle.label
    shown = ", ".join(f"{count} of {name}" for name, count in counts.items())
    return (
        f"# {one.bundle.manifest.title}: {person.name}\n\n"
        f"`{label}` made one person's by `bcitrain personalise`, from {shown} and {len(person.shown.rest)} "
        f"stretches of rest: its filters over electrodes are {person.name}'s. Trials that were left out in "
        f"turn were answered with a cross-entropy of {came.after:.3f} nats, {came.before:.3f} before; its "
        f"logits were cooled by {came.bolder:.2f}, by which they had grown in rest. Decision stage and "
        f"operating points are those of `{label}`, measured on other people. It has no head for `bcistream "
        f"calibrate`. Data, protocol and limits: the card of `{label}`.\n"
    )
