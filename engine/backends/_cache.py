"""Where compiled plans lie: a folder of the user's, one below it per TensorRT, version and GPU."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from pathlib import Path

from engine.backends._plan import Here, Precision, Sidecar, read, read_sidecar, sidecar_of
from engine.bundle import Bundle, digest
from streamer.errors import PlanError

VARIABLE = "BCISTREAM_CACHE"
TIMING = "timing.cache"


def root(given: Path | None = None) -> Path:
    """Return the folder of all plans: the one given, that of `BCISTREAM_CACHE`, or the platform's own."""
    if given is not None:
        return given
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    if platform.system() == "Windows" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "bcistream" / "plans"
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / "bcistream" / "plans"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bcistream" / "plans"


def folder(here: Here, capability: str, given: Path | None = None) -> Path:
    """Return the folder of the plans of one TensorRT on one GPU, or for one that is not here."""
    gpu = f"{here.gpu.name}-{here.gpu.multiprocessors}" if here.gpu is not None else "no-gpu"
    return root(given) / _plain(f"{here.flavour}-{here.version}") / _plain(f"{gpu}-{capability}")


def file_name(bundle: Bundle, precision: Precision, rows: int) -> str:
    """Return what a plan of up to so many rows is called."""
    return f"{_stem(bundle, precision)}-{rows}.plan"


def write(path: Path, content: bytes) -> None:
    """Write a file so that another process sees it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)  # gone already where it took the other's place


def save(path: Path, plan: bytes, beside: Sidecar) -> None:
    """Write a plan and what stands beside it; the old one is unusable before the new one is there."""
    sidecar_of(path).unlink(missing_ok=True)
    write(path, plan)
    write(sidecar_of(path), beside.model_dump_json(indent=1).encode())


def find(
    bundle: Bundle, precision: Precision, here: Here, given: Path | None = None
) -> tuple[bytes, Sidecar]:
    """Return the plan of a bundle, for this machine: of those that take its rows the smallest.

    Raises
    ------
    PlanError
        There is none, none takes so many rows, or the one that does is damaged or foreign.
    """
    assert here.gpu is not None
    where = folder(here, here.gpu.capability, given)
    n = bundle.manifest.graph.input.shape[0]
    known, spoilt = [], None
    for path in sorted(where.glob(f"{_stem(bundle, precision)}-*.plan")):
        try:
            known.append((read_sidecar(path).rows, path))
        except PlanError as error:  # another plan may be whole
            spoilt = error
    taking = sorted((rows[2], path) for rows, path in known if rows[0] <= n <= rows[2])
    if not taking and spoilt is not None:
        raise spoilt
    if not taking:
        raise PlanError(_missing(bundle, precision, here, where, [rows for rows, _ in known]))
    return read(taking[0][1], here, _graph_digest(bundle))


def _missing(
    bundle: Bundle, precision: Precision, here: Here, where: Path, known: list[tuple[int, int, int]]
) -> str:
    assert here.gpu is not None
    n = bundle.manifest.graph.input.shape[0]
    label = (
        f"Bundle {bundle.label} has no {precision} plan for {here.gpu.name}, {here.flavour} {here.version}"
    )
    if known:
        ranges = ", ".join(f"{least} to {most}" for least, _, most in sorted(known))
        label += f" that takes {n} rows (there is one for {ranges})"
    batch = f" --batch {n}" if n > 1 else ""
    command = f"bcistream compile {bundle.manifest.name} --backend tensorrt --precision {precision}{batch}"
    return f"{label}, in {where}. Make it: {command}"


def _stem(bundle: Bundle, precision: Precision) -> str:
    return f"{_plain(bundle.manifest.name)}-{_graph_digest(bundle)[:12]}-{precision}"


def _graph_digest(bundle: Bundle) -> str:
    return digest(bundle.graph_bytes)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
