"""A calibration: the head of a bundle refitted to one person, as a file.

JSON, tied to the one bundle whose latents it reads.  A run takes it with ``calibration: PATH``; without it
the bundle decides as it always did, so leaving it away is all that takes it back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from engine.bundle import Bundle
from engine.faults import faults
from engine.head import Head
from streamer.components import Config
from streamer.errors import ConfigError

FORMAT = 1
MAX_BYTES = 50_000_000  # a head of 512 classes on 4096 latents has half of that
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Score(Config):
    """How a head did on trials that it was not fitted on.

    Attributes
    ----------
    accuracy, balanced_accuracy : float
        Over all trials, and the mean over the classes.
    cross_entropy : float
        Mean over the trials, nats.
    per_class : dict of str to float
        Share answered right.
    """

    accuracy: Finite
    balanced_accuracy: Finite
    cross_entropy: Finite
    per_class: dict[str, Finite] = Field(default_factory=dict)


class MadeOf(Config):
    """What a calibration was made of.

    Attributes
    ----------
    stream : str
        Name of the stream or recording.
    seconds : float
        Signal from its beginning to the last answer used, s.
    trials : dict of str to int
        Trials used, by class.
    rest_s : float
        Seconds of rest that the latents were centred on; 0 for none.
    left_out : int
        Trials that held bad signal, were cut off or too short, or of which nobody said how long they lasted.
    """

    stream: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    trials: dict[str, Annotated[int, Field(ge=0)]]
    rest_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    left_out: Annotated[int, Field(ge=0)] = 0


class Tied(Config):
    """The bundle that a calibration is for: its name and version for people, and its identity."""

    name: str
    version: str
    identity: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


def personal(bundle: Bundle, calibration: Calibration | None) -> bool:
    """Say whether one person's head or filters decide, not what the bundle's rates were measured with."""
    own = calibration is not None and calibration.replaces
    return own or "personal" in bundle.manifest.provenance


class Calibration(Config):
    """The content of a calibration file.

    Attributes
    ----------
    method : str
        How the head was refitted; "kept" when the bundle's own head was no worse.
    reason : str
        Why, in words.
    old, new : Score or None
        Of the bundle's head and of the refitted one, cross-validated over whole trials; None without trials.
    weight, bias : tuples of float, or None
        The head, (n_classes, D) and (n_classes,); None: the bundle's own.
    """

    format: Literal[1] = 1
    bundle: Tied
    method: str
    reason: str
    made_of: MadeOf
    old: Score | None = None
    new: Score | None = None
    weight: tuple[tuple[Finite, ...], ...] | None = None
    bias: tuple[Finite, ...] | None = None

    @property
    def replaces(self) -> bool:
        """Whether another head than the bundle's decides."""
        return self.weight is not None

    @property
    def head(self) -> Head | None:
        """The refitted head; None where the bundle's own was kept."""
        if self.weight is None or self.bias is None:
            return None
        return Head(np.array(self.weight), np.array(self.bias))

    @model_validator(mode="after")
    def _one_head(self) -> Self:
        if (self.weight is None) != (self.bias is None):
            raise ValueError("weight and bias go together")
        if self.weight is not None and self.bias is not None:
            widths = {len(row) for row in self.weight}
            if len(self.weight) != len(self.bias) or len(widths) != 1:
                raise ValueError(
                    f"{len(self.bias)} biases, but weight has {len(self.weight)} rows of {sorted(widths)}"
                )
        return self

    def words(self) -> str:
        """Return one line for the person at the screen."""
        trials = ", ".join(f"{n} x {name}" for name, n in self.made_of.trials.items()) or "rest alone"
        seconds = max(self.made_of.seconds, self.made_of.rest_s)
        return f"{self.method}, from {seconds:.0f} s of {self.made_of.stream} ({trials})"


def tied_to(bundle: Bundle) -> Tied:
    """Return what ties a calibration to this bundle.

    What its latents and logits depend on is in its identity: input, graph, head, classes and temperature.
    Its card and decision settings are not.
    """
    manifest, readout = bundle.manifest, bundle.readout
    parts = {
        "input": manifest.input.model_dump(mode="json"),
        "readout": readout.model_dump(
            mode="json", include={"classes", "idle", "logits", "latent", "temperature"}
        ),
        "graph": manifest.files[manifest.graph.file],
        "head": manifest.files.get(readout.head or ""),
    }
    text = json.dumps(parts, sort_keys=True)
    return Tied(
        name=manifest.name,
        version=manifest.version,
        identity=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def check(calibration: Calibration, bundle: Bundle) -> None:
    """Refuse a calibration that is of another bundle, or that does not fit its graph; `ConfigError`."""
    own, made_for = tied_to(bundle), calibration.bundle
    if own.identity != made_for.identity:
        same = " of other content" if (own.name, own.version) == (made_for.name, made_for.version) else ""
        raise ConfigError(
            f"The calibration was made for bundle {made_for.name} {made_for.version} ({made_for.identity}), "
            f"not for {bundle.label}{same} ({own.identity}): a head reads only the latents that it was "
            "fitted on. Calibrate again with this bundle, or leave the calibration out."
        )
    head = calibration.head
    if head is None:
        return
    latent = next(t for t in bundle.manifest.graph.outputs if t.name == bundle.readout.latent)
    expected = (len(bundle.readout.classes), latent.shape[-1])
    if head.weight.shape != expected:
        raise ConfigError(
            f"The calibration's head is {head.weight.shape}, bundle {bundle.label} takes {expected}: the "
            "file was changed. Calibrate again."
        )


def read(path: str | Path) -> Calibration:
    """Read a calibration file; `ConfigError` when it cannot be read or is none."""
    try:
        size = os.path.getsize(path)
        raw: Any = json.loads(Path(path).read_bytes()) if size <= MAX_BYTES else None
    except OSError as error:
        raise ConfigError(f"Calibration {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"Calibration {path} is not JSON ({error}): damaged or cut short. Calibrate again."
        ) from error
    found = raw.get("format") if isinstance(raw, dict) else None
    if found != FORMAT or isinstance(found, bool):
        raise ConfigError(
            f"{path} is no calibration that this version reads (format {str(found)[:20]!r}, expected "
            f"{FORMAT}). Make one with `bcistream calibrate`."
        )
    try:
        return Calibration.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"Calibration {path} has faults:\n{faults(error)}") from error


def check_place(path: str | Path) -> None:
    """Refuse a place that a calibration cannot be written to, before anybody's trials are; `ConfigError`.

    So is one that holds anything but a calibration, such as the recording that is calibrated on.  Nothing is
    left there: a folder that does not exist is made when there is something to write.
    """
    target = Path(path)
    with _written(path):
        if target.is_dir():
            raise ConfigError(
                f"{path} is a folder: give the name of a file in it, such as {target / 'me.json'}."
            )
        folder = next(one for one in target.absolute().parents if one.exists())
        if not folder.is_dir():
            raise ConfigError(f"{path} cannot be a file: {folder} is no folder. Give another place.")
        _refuse_other(target)
        half = folder / _half(target).name
        half.touch()  # permissions alone do not tell: a file system may be read-only, or take no files
        half.unlink()


def write(calibration: Calibration, path: str | Path) -> None:
    """Write the file whole or not at all; `ConfigError` where it cannot be written or is another's."""
    target = Path(path)
    half = _half(target)
    with _written(path):
        _refuse_other(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            half.write_text(calibration.model_dump_json(indent=1) + "\n")
            half.replace(target)
        finally:
            half.unlink(missing_ok=True)


def _refuse_other(target: Path) -> None:
    """Refuse to write over anything but a calibration; an empty file is nobody's."""
    if not target.exists() or target.is_dir():
        return  # no folder is written over: that fails by itself
    if target.is_file():
        if not target.stat().st_size:
            return
        with suppress(ConfigError):
            read(target)
            return
    raise ConfigError(
        f"{target} is there already and is no calibration that this version reads, so it is not written "
        "over. Give another place for the calibration, or delete it first."
    )


def _half(target: Path) -> Path:
    """Return where the file is until it is whole."""
    return target.with_name(f".{target.name}.part")


@contextmanager
def _written(path: str | Path) -> Iterator[None]:
    """Say what went wrong of the path that was given, not of the file that is half written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}. Give another place for the calibration."
        ) from error
