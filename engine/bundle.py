"""The bundle: what `offline` exports and the engine runs.

A bundle is a folder::

    bundle.json       the manifest: input contract, graph, decision, provenance, hashes of the other files
    step.onnx         the step graph: one hop of samples and the state in, outputs and the new state out
    MODEL_CARD.md     data, protocol, score, limits

Nothing in it is executable by Python and nothing is unpickled.  Every file is checked against its hash
before anything is made of it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from engine.decision import DecisionConfig
from engine.faults import faults
from streamer.components import Config, union
from streamer.dsp import StepConfig
from streamer.errors import BundleError

if TYPE_CHECKING:
    AnyStep = StepConfig
else:
    AnyStep = union("streamer.dsp")

MANIFEST = "bundle.json"
FORMAT = 1
MAX_FILE_BYTES = 2_000_000_000  # protobuf's own limit; a larger "graph" is not one


def _plain(name: str) -> str:
    """Accept only a plain file name: a manifest must not reach outside its folder."""
    if name != Path(name).name or name in {"", ".", "..", MANIFEST} or "\\" in name:
        raise ValueError(f"a file of the bundle is a plain name, not {name!r}")
    return name


FileName = Annotated[str, AfterValidator(_plain)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Tensor(Config):
    """One tensor of the step graph; the shape is fixed, batch first."""

    name: str
    shape: tuple[PositiveInt, ...]
    dtype: Literal["float32", "int64", "bool"] = "float32"


class State(Config):
    """One state tensor: enters as `input`, leaves as `output`, and is zero at the start."""

    input: str
    output: str
    shape: tuple[PositiveInt, ...]
    dtype: Literal["float32", "int64", "bool"] = "float32"


class Graph(Config):
    """The step graph and its time geometry, all in samples at ``input.sfreq``.

    ``hop`` samples go in per step; an output depends on ``left_context`` samples before its own hop at
    most, and describes the signal ``delay`` samples ago.
    """

    file: FileName = "step.onnx"
    input: Tensor
    outputs: tuple[Tensor, ...]
    state: tuple[State, ...] = ()
    hop: PositiveInt
    left_context: Annotated[int, Field(ge=0)]
    delay: Annotated[int, Field(ge=0)] = 0


class InputContract(Config):
    """What the graph must be fed: these channels, this rate, this unit, through exactly these DSP steps."""

    stype: str = "EEG"
    sfreq: PositiveFloat
    unit: Literal["uV", "mV", "V"]
    ch_names: Annotated[tuple[str, ...], Field(min_length=1)]
    min_present: PositiveInt
    dsp: tuple[AnyStep, ...] = ()


class Readout(Config):
    """How the outputs become decisions."""

    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    idle: str | None = None
    logits: str = "logits"
    latent: str | None = None
    temperature: PositiveFloat = 1.0
    decision: DecisionConfig = DecisionConfig()


class Manifest(Config):
    """The content of ``bundle.json``."""

    format: Literal[1]
    name: str
    version: str
    title: str
    system: str
    input: InputContract
    graph: Graph
    readout: Readout
    provenance: dict[str, Any] = Field(default_factory=dict)
    files: dict[FileName, Sha256]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse a manifest whose parts contradict each other."""
        expected = (1, len(self.input.ch_names), self.graph.hop)
        outputs = {tensor.name: tensor for tensor in self.graph.outputs}
        classes = self.readout.classes
        wrong = []
        if self.graph.input.shape != expected:
            wrong.append(f"graph.input.shape is {self.graph.input.shape}; channels and hop say {expected}")
        if self.readout.logits not in outputs:
            wrong.append(f"readout.logits {self.readout.logits!r} is not among the outputs {sorted(outputs)}")
        elif outputs[self.readout.logits].shape[-1] != len(classes):
            wrong.append(
                f"{len(classes)} classes, but the logits have {outputs[self.readout.logits].shape[-1]}"
            )
        if self.readout.latent is not None and self.readout.latent not in outputs:
            wrong.append(f"readout.latent {self.readout.latent!r} is not among the outputs {sorted(outputs)}")
        if self.readout.idle is not None and self.readout.idle not in classes:
            wrong.append(f"idle class {self.readout.idle!r} is not among the classes {list(classes)}")
        if self.graph.file not in self.files:
            wrong.append(f"graph.file {self.graph.file!r} has no hash under files")
        if self.input.min_present > len(self.input.ch_names):
            wrong.append(
                f"min_present {self.input.min_present} exceeds the {len(self.input.ch_names)} channels"
            )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read and checked.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
    graph_bytes : bytes
        The step graph, as hashed: what was checked is what runs.
    """

    folder: Path
    manifest: Manifest
    graph_bytes: bytes

    @property
    def label(self) -> str:
        """Name and version, for people."""
        return f"{self.manifest.name} {self.manifest.version}"


def load(reference: str | Path) -> Bundle:
    """Read a bundle and check it.

    Parameters
    ----------
    reference : str or Path
        A folder that holds ``bundle.json``, or the name of a bundle shipped with the package.

    Raises
    ------
    BundleError
        No such bundle, a damaged or missing file, a manifest that this version cannot read.
    """
    folder = locate(reference)
    manifest = _read_manifest(folder)
    contents = {name: _read_checked(folder, name, sha) for name, sha in manifest.files.items()}
    return Bundle(folder, manifest, contents[manifest.graph.file])


def shipped() -> dict[str, Path]:
    """Return the bundles inside the package, by name."""
    root = Path(str(resources.files("engine.bundles")))
    return {path.parent.name.replace("_", "-"): path.parent for path in sorted(root.glob(f"*/{MANIFEST}"))}


def locate(reference: str | Path) -> Path:
    """Return the folder of a bundle given by path or by the name of a shipped one."""
    path = Path(reference)
    try:
        if (path / MANIFEST).is_file():
            return path
    except OSError as error:
        raise BundleError(f"{str(reference)[:80]!r} is no folder: {error.strerror}.") from error
    names = shipped()
    if str(reference) in names:
        return names[str(reference)]
    if path.is_dir():
        raise BundleError(
            f"{path} holds no {MANIFEST}, so it is no bundle: give the folder that export wrote."
        )
    close = difflib.get_close_matches(str(reference), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names) or "none"
    raise BundleError(
        f"No bundle {str(reference)!r}: neither a folder nor a shipped bundle ({listed}).{hint}"
    )


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return hashlib.sha256(content).hexdigest()


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON ({error}): damaged or cut short. Export it again.") from error
    found = raw.get("format") if isinstance(raw, dict) else None
    if found != FORMAT:
        raise BundleError(f"{path}: bundle format {found!r}; this version reads {FORMAT}. Export it again.")
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        raise BundleError(f"{path} does not describe a bundle:\n{faults(error)}") from error


def _read_checked(folder: Path, name: str, sha: str) -> bytes:
    path = folder / name
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise BundleError(f"Bundle file {path} cannot be read: {error.strerror}. Copy it again.") from error
    if digest(content) != sha:
        raise BundleError(
            f"Bundle file {path} ({size} bytes) is not what its manifest says: SHA-256 "
            f"{digest(content)[:12]}, expected {sha[:12]}. Damaged, cut short or changed: copy it again."
        )
    return content
