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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from engine.faults import faults
from engine.manifest import (
    FORMAT,
    MANIFEST,
    MAX_CHANNELS,
    MAX_ROWS,
    AnyStep,
    Graph,
    InputContract,
    Manifest,
    Readout,
    Signal,
    State,
    Tensor,
    Tokens,
)
from streamer.errors import BundleError, StreamMismatch

__all__ = [
    "FORMAT", "MANIFEST", "AnyStep", "Bundle", "Graph", "InputContract", "Manifest", "Readout", "Signal",
    "State", "Tensor", "Tokens", "digest", "load", "locate", "shipped",
]  # fmt: skip

MAX_FILE_BYTES = 2_000_000_000  # protobuf's own limit; a larger "graph" is not one
# What a bundle is for, by what it puts out: for the message when it is given to another command.
USES = {
    "readout": "decisions, for `bcistream run`",
    "tokens": "codes, for `bcistream tokens`",
    "signal": "a waveform from codes, for `bcistream listen`",
    "features": "latents, for `bcistream tokens` with publish: latent",
}
_Shaped = TypeVar("_Shaped", Tensor, State)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read and checked.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
    graph_bytes : bytes
        The step graph, as hashed: what was checked is what runs.
    head_bytes : bytes
        The head file, as hashed; empty where the bundle has none.
    """

    folder: Path
    manifest: Manifest
    graph_bytes: bytes
    head_bytes: bytes = b""

    @property
    def label(self) -> str:
        """Name and version, for people."""
        return f"{self.manifest.name} {self.manifest.version}"

    @property
    def readout(self) -> Readout:
        """How the outputs become decisions; `BundleError` when they become something else."""
        if self.manifest.readout is None:
            raise self._other("decisions")
        return self.manifest.readout

    @property
    def tokens(self) -> Tokens:
        """Which outputs are codes; `BundleError` when none are."""
        if self.manifest.tokens is None:
            raise self._other("codes")
        return self.manifest.tokens

    @property
    def signal(self) -> Signal:
        """Which output is the waveform; `BundleError` when none is."""
        if self.manifest.signal is None:
            raise self._other("a waveform from codes")
        return self.manifest.signal

    def _other(self, wanted: str) -> BundleError:
        return BundleError(
            f"Bundle {self.label} puts out {USES[self.manifest.product]}; {wanted} are asked of it here. "
            "Choose another bundle, or the command that this one is for."
        )

    def sized(self, ch_names: Sequence[str]) -> Bundle:
        """Return a bundle for any montage with the shapes of this one; any other bundle as it is.

        Parameters
        ----------
        ch_names : sequence of str
            The channels that will be fed, one row of the graph each.

        Raises
        ------
        StreamMismatch
            There are none, or more than `engine.manifest.MAX_CHANNELS`.
        """
        contract, graph = self.manifest.input, self.manifest.graph
        if not contract.per_channel:
            return self
        n = len(ch_names)
        if not 0 < n <= MAX_CHANNELS:
            raise StreamMismatch(f"Bundle {self.label} takes 1 to {MAX_CHANNELS} channels; there are {n}.")

        named = contract.model_copy(update={"ch_names": tuple(ch_names)})
        return replace(
            self, manifest=self.manifest.model_copy(update={"input": named, "graph": _with_rows(graph, n)})
        )

    def batched(self, n: int) -> Bundle:
        """Return the bundle with the shapes of ``n`` streams, one a row.

        Raises
        ------
        BundleError
            Its graph is fixed at one row, or its rows are channels.
        ValueError
            ``n`` is not in 1 to `engine.manifest.MAX_ROWS`.
        """
        manifest = self.manifest
        if not 1 <= n <= MAX_ROWS:
            raise ValueError(f"1 to {MAX_ROWS} streams go through one graph, not {n}")
        if manifest.input.per_channel:
            raise BundleError(f"Bundle {self.label}: the rows of its graph are channels, not streams.")
        if n > 1 and manifest.graph.rows == "one":
            raise BundleError(
                f"Bundle {self.label}: its graph takes one stream at a time; {n} were asked of it. Export it "
                "again for any number, or run a process for each stream."
            )
        return replace(self, manifest=manifest.model_copy(update={"graph": _with_rows(manifest.graph, n)}))


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
    head = manifest.readout.head if manifest.readout is not None else None
    return Bundle(folder, manifest, contents[manifest.graph.file], contents[head] if head else b"")


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


def _with_rows(graph: Graph, n: int) -> Graph:
    return graph.model_copy(
        update={
            "input": _rows(n, graph.input),
            "outputs": tuple(_rows(n, tensor) for tensor in graph.outputs),
            "state": tuple(_rows(n, state) for state in graph.state),
        }
    )


def _rows(n: int, tensor: _Shaped) -> _Shaped:
    return tensor.model_copy(update={"shape": (n, *tensor.shape[1:])})


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
