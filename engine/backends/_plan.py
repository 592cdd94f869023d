"""A compiled plan, the JSON beside it, and every reason not to load it.  No TensorRT in here.

TensorRT refuses a plan by returning nothing, with the reason in its log at best, and some foreign plans it
loads and runs slowly.  So what a plan was made of, where and by what is written beside it, and compared
before TensorRT sees it.  A plan holds code for the GPU: only what lies in the user's own cache is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from engine.bundle import digest
from engine.faults import faults
from streamer.components import Config
from streamer.errors import PlanError

if TYPE_CHECKING:
    from engine.bundle import Graph

FORMAT = 1
FLAVOURS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
VERSION_AT = 24  # major, minor, patch, build: one byte each

Precision = Literal["fp32", "tf32", "fp16", "int8"]
Tensors = dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name; -1 is a free dimension


class Gpu(Config):
    """A GPU, as its driver describes it.

    Attributes
    ----------
    capability : str
        Compute capability, such as "8.9".
    multiprocessors : int
        Same capability and another count is another product, for which other kernels are the fastest.
    """

    name: str
    capability: str
    multiprocessors: int
    driver: str


@dataclass(frozen=True, slots=True)
class Here:
    """What would load a plan: which TensorRT, of which version, on which GPU, if there is one."""

    flavour: str
    version: str
    gpu: Gpu | None


class Sidecar(Config):
    """What stands beside a plan.

    Attributes
    ----------
    status : "ready" or "not validated"
        Ready: it was run on this GPU and computed what ONNX Runtime computes.
    onnx_sha256 : str
        Of the bundle's own step graph, before any cast.
    capability : str
        What it was built for.
    gpu : Gpu or None
        Where it was built; None: without a GPU.
    rows : tuple of int
        Least, best and greatest number of rows.
    agreement : dict or None
        How well it agreed with ONNX Runtime; see `engine.agreement`.
    """

    format: Literal[1] = 1
    status: Literal["ready", "not validated"]
    bundle: str
    plan_sha256: str
    onnx_sha256: str
    flavour: str
    version: str
    capability: str
    gpu: Gpu | None
    precision: Precision
    rows: tuple[int, int, int]
    tensors: Tensors
    agreement: dict[str, float | None] | None = None


def header(plan: bytes) -> tuple[str, str]:
    """Return which TensorRT wrote a plan, and its version, from the plan's first bytes.

    Raises
    ------
    PlanError
        These are not the bytes of a plan.
    """
    if len(plan) < VERSION_AT + 4 or plan[:4] not in FLAVOURS:
        known = " or ".join(tag.decode() for tag in FLAVOURS)
        raise PlanError(f"not a TensorRT plan: it begins with {plan[:4]!r}, a plan with {known}.")
    return FLAVOURS[plan[:4]], ".".join(str(byte) for byte in plan[VERSION_AT : VERSION_AT + 4])


def sidecar_of(path: Path) -> Path:
    """Return where the JSON of a plan lies."""
    return path.with_name(f"{path.name}.json")


def read_sidecar(path: Path) -> Sidecar:
    """Read the JSON beside a plan; `PlanError` when there is none, or it is not one of this version."""
    beside = sidecar_of(path)
    try:
        return Sidecar.model_validate_json(beside.read_bytes())
    except OSError as error:
        raise PlanError(
            f"{beside} cannot be read: {error.strerror}. A plan without it is not loaded."
        ) from error
    except ValidationError as error:
        raise PlanError(f"{beside} does not describe a plan of this version:\n{faults(error)}") from error


def read(path: Path, here: Here, onnx_sha256: str) -> tuple[bytes, Sidecar]:
    """Read a plan that is to be run here.

    Raises
    ------
    PlanError
        It cannot be read, or does not belong here: every reason is given.
    """
    beside = read_sidecar(path)
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise PlanError(f"Plan {path} cannot be read: {error.strerror}.") from error
    wrong = reasons(plan, beside, here, onnx_sha256)
    if wrong:
        listed = "\n".join(f"  - {reason}" for reason in wrong)
        raise PlanError(f"Plan {path} is not loaded:\n{listed}\nCompile it again, on this machine.")
    return plan, beside


def reasons(plan: bytes, beside: Sidecar, here: Here, onnx_sha256: str) -> list[str]:
    """Return why a plan must not be run here; empty when it may be."""
    if digest(plan) != beside.plan_sha256:
        return [
            f"its SHA-256 is {digest(plan)[:12]}, written down was {beside.plan_sha256[:12]}: damaged, cut "
            "short or changed"
        ]
    try:
        flavour, version = header(plan)
    except PlanError as error:
        return [str(error)]
    wrong = []
    if flavour != here.flavour:
        wrong.append(f"it was built by {flavour} {version}, here is {here.flavour} {here.version}")
    elif version.split(".")[:3] != here.version.split(".")[:3]:
        wrong.append(f"it was built by {flavour} {version}, here is version {here.version}")
    wrong += _gpu_reasons(beside, here.gpu)
    if beside.onnx_sha256 != onnx_sha256:
        wrong.append(
            f"it was built from another step graph ({beside.onnx_sha256[:12]}) than the bundle's "
            f"({onnx_sha256[:12]})"
        )
    if beside.status != "ready":
        wrong.append("nobody has seen it compute what ONNX Runtime computes: it was never validated")
    return wrong


def _gpu_reasons(beside: Sidecar, gpu: Gpu | None) -> list[str]:
    if gpu is None:
        return [f"it was built for compute capability {beside.capability}, here is no GPU"]
    if beside.gpu is None:
        return [f"it was built without a GPU, for compute capability {beside.capability}"]
    built = beside.gpu
    if built.capability != gpu.capability:
        return [
            f"it was built for compute capability {built.capability} ({built.name}), here is "
            f"{gpu.capability} ({gpu.name})"
        ]
    if (built.name, built.multiprocessors) != (gpu.name, gpu.multiprocessors):
        return [
            f"it was built on {built.name} ({built.multiprocessors} multiprocessors), here is {gpu.name} "
            f"({gpu.multiprocessors}): the same compute capability, but its kernels were timed elsewhere"
        ]
    return []


def compare(tensors: Mapping[str, tuple[str, Sequence[int]]], graph: Graph, label: str) -> None:
    """Raise PlanError unless the tensors of a plan are those of the manifest; -1 stands for any number."""
    wanted = {t.name: (t.dtype, t.shape) for t in (graph.input, *graph.outputs)}
    wanted |= {name: (s.dtype, s.shape) for s in graph.state for name in (s.input, s.output)}
    for name in sorted(wanted.keys() | tensors.keys()):
        found, expected = tensors.get(name), wanted.get(name)
        if found is None or expected is None or found[0] != expected[0] or not _fits(found[1], expected[1]):
            raise PlanError(
                f"Bundle {label}: {name!r} is {_told(found)} in the plan, {_told(expected)} in the manifest. "
                "Compile it again."
            )


def _fits(found: Sequence[int], expected: Sequence[int]) -> bool:
    pairs = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(a in (-1, b) for a, b in pairs)


def _told(tensor: tuple[str, Sequence[int]] | None) -> str:
    return "absent" if tensor is None else f"{tensor[0]} {tuple(tensor[1])}"
