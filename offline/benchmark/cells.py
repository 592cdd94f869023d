"""What is done of a benchmark, on disk: a `Cell` per model, seed and fold.

::

    OUTPUT/
      cells/MODEL/SEED_FOLD/   cell.json and the played test recordings, 000.npz, ...
      models/MODEL/...         run folders and bundles of what was trained

A cell is there whole or not at all, and knows by a digest whether it is what the recipe asks for.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.decision import AnyDecision, DecisionSettings
from offline.evaluate.played import Played
from offline.probe.recipe import digest
from offline.provenance import versions
from streamer.errors import RecordingError

ABOUT = "cell.json"
OF_RECIPE = ("model", "task", "recipe")  # settings that the cells of one model share, whatever fold and seed
PACKAGES = ("numpy", "scipy", "scikit-learn", "pyriemann", "torch", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model said about the people tested.

    Attributes
    ----------
    played : tuple of Played
        One per recording.
    decision : DecisionSettings
        Of the decision stage that gave the labels.
    notes : tuple of str
        What a reader of the figures must know.
    calibrated : tuple of Played
        What a refitted head said of the rest of each person's recordings, and in ``uncalibrated`` what the
        model's own head said of the same; empty where neither was asked for.
    seconds : float
        It took.
    temperature : float
        That the logits were divided by.
    design : dict, optional
        Of the net (`offline.design`); None of a classical decoder, which is none.
    """

    played: tuple[Played, ...]
    decision: DecisionSettings
    notes: tuple[str, ...] = ()
    calibrated: tuple[Played, ...] = ()
    uncalibrated: tuple[Played, ...] = ()
    seconds: float = 0.0
    temperature: float = 1.0
    design: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One model, trained with one seed, tested on one fold.

    Attributes
    ----------
    model : str
    seed, fold : int
    settings : dict
        What decides the answers, recordings included, as JSON values.
    folder : Path
    """

    model: str
    seed: int
    fold: int
    settings: Mapping[str, Any] = field(repr=False)
    folder: Path

    @property
    def digest(self) -> str:
        """16 hex digits of what decides the answers."""
        return digest(json.dumps(self.settings, sort_keys=True))

    @property
    def done(self) -> bool:
        """Whether the answers are there, and are those that these settings give."""
        try:
            return bool(self.about()["digest"] == self.digest)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def about(self) -> dict[str, Any]:
        """Return what is said of the answers beside them; raises where nothing is there."""
        return dict(json.loads((self.folder / ABOUT).read_text()))

    def keep(self, answered: Answered) -> None:
        """Write the answers in place of whatever is there; an interruption leaves none."""
        part = self.folder.with_name(f".{self.folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        groups = {"": answered.played, "calibrated": answered.calibrated}
        for name, some in (groups | {"uncalibrated": answered.uncalibrated}).items():
            (part / name).mkdir(exist_ok=True)
            for number, one in enumerate(some):
                one.save(part / name / f"{number:03d}.npz")
        about = {
            "digest": self.digest,
            "recipe": digest(json.dumps([self.settings.get(key) for key in OF_RECIPE], sort_keys=True)),
            "model": self.model,
            "seed": self.seed,
            "fold": self.fold,
            "decision": answered.decision.model_dump(mode="json"),
            "notes": list(answered.notes),
            "seconds": answered.seconds,
            "temperature": answered.temperature,
            "design": answered.design,
            "versions": versions(*PACKAGES),
        }
        (part / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        shutil.rmtree(self.folder, ignore_errors=True)
        part.rename(self.folder)

    def read(self) -> Answered:
        """Return what was kept; `RecordingError` where it is damaged."""
        try:
            about = self.about()
            decision: Any = TypeAdapter(AnyDecision).validate_python(about["decision"])
            return Answered(
                played=self._group(""),
                decision=decision,
                notes=tuple(about["notes"]),
                calibrated=self._group("calibrated"),
                uncalibrated=self._group("uncalibrated"),
                seconds=float(about["seconds"]),
                temperature=float(about["temperature"]),
                design=about.get("design"),  # cells of before do not tell it
            )
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise RecordingError(
                f"{self.folder} is damaged ({error}): delete it and run the command again."
            ) from error

    def _group(self, name: str) -> tuple[Played, ...]:
        return tuple(Played.load(path) for path in sorted((self.folder / name).glob("*.npz")))


def plain(name: str) -> str:
    """Return a name as that of a folder; different names stay different."""
    kept = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    return kept if kept == name else f"{kept}_{digest(name)[:4]}"
