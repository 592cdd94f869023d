"""`bcistream compile`: a bundle's step graph into a plan for this GPU, and whether the plan is right."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.agreement import (
    MIN_FRAMES,
    Agreement,
    Frames,
    at_rows,
    compare,
    halves,
    noise_frames,
    recording_frames,
    shortfalls,
)
from engine.backends import tensorrt
from engine.backends._cache import TIMING, file_name, folder, save, write
from engine.backends._plan import Here, Precision, Sidecar
from engine.backends._plan import compare as compare_tensors
from engine.backends._trt import Machine
from engine.backends._trt_build import Built, Order
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.bundle import Bundle, digest, load
from engine.manifest import MAX_CHANNELS, MAX_ROWS
from engine.precision import BARS, cast
from engine.quantise import quantise
from streamer.errors import ConfigError, PlanError

Target = Literal["tensorrt", "onnxruntime"]
ANY_MONTAGE_ROWS = 64  # of a bundle for any montage, one per channel: a full cap
READY = "ready"
# Settings that say nothing to the backend.
FOREIGN: dict[Target, tuple[str, ...]] = {
    "tensorrt": ("output",),
    "onnxruntime": ("batch", "capability", "cache"),
}
NOT_VALIDATED = "built, not validated: no GPU"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to compile.

    Attributes
    ----------
    batch : int or None
        The greatest number of rows; None: one, or 64 channels of a bundle for any montage.
    calibrate : Path or None
        A recording: int8 takes its ranges from its first half, and everything is judged on its second half;
        None: judged on noise.
    capability : str or None
        Compute capability to build for, where there is no GPU.
    cache : Path or None
        Folder of the plans; None: the user's own.
    output : Path or None
        Folder of the bundle that ONNX Runtime is to run in int8.
    """

    precision: Precision = "fp32"
    batch: int | None = None
    calibrate: Path | None = None
    capability: str | None = None
    cache: Path | None = None
    output: Path | None = None


def compile_bundle(
    reference: str | Path,
    target: Target,
    settings: Settings,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compile a bundle for a backend, and check what came out.

    Returns
    -------
    dict
        The report; ``status`` is "ready" only where the plan was run and agreed with ONNX Runtime.

    Raises
    ------
    BciError
        It does not compile, or what came out computes something else; then nothing is left behind.
    """
    foreign = [name for name in FOREIGN[target] if getattr(settings, name) is not None]
    if foreign:
        options = ", ".join(f"--{name}" for name in foreign)
        raise ConfigError(f"{options}: not for --backend {target}. Leave it out.")
    return TARGETS[target](load(reference), settings, say)


def _tensorrt(bundle: Bundle, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    machine = tensorrt.machine(to_run=False)
    capability = _capability(machine.here, settings.capability)
    rows = _greatest(bundle, settings.batch)
    sized = at_rows(bundle, rows)
    ranges, judged = _signal(sized, settings)
    cast_graph = cast(sized, settings.precision, ranges)
    cast_alone = _judged_cast(sized, cast_graph, settings.precision, judged)
    if cast_alone is not None:
        say(f"{settings.precision} on the CPU against fp32: {_told(cast_alone)}")
    where = folder(machine.here, capability, settings.cache)
    aimed_at = None if machine.here.gpu else capability
    tf32 = settings.precision == "tf32"
    say(f"building with {machine.here.flavour} {machine.here.version}")
    started = time.perf_counter()
    built = machine.build(Order(cast_graph, rows, tf32, aimed_at, _timing(where / TIMING)))
    build_s = time.perf_counter() - started
    compare_tensors(built.tensors, sized.manifest.graph, sized.label)
    agreement = _validated(bundle, built, machine, settings.precision, judged)
    path = where / file_name(bundle, settings.precision, rows)
    beside = _sidecar(bundle, built, machine.here, capability, settings.precision, agreement)
    save(path, built.plan, beside)
    if built.timing:
        write(where / TIMING, built.timing)
    return {
        "bundle": bundle.label,
        "status": NOT_VALIDATED if agreement is None else READY,
        "backend": f"{machine.here.flavour} {machine.here.version}",
        "gpu": machine.here.gpu.name if machine.here.gpu else f"none; built for {capability}",
        "precision": settings.precision,
        "rows": f"{built.rows[0]} to {built.rows[2]}" if built.rows[2] > 1 else "1",
        "build_s": round(build_s, 2),
        "plan_mb": round(len(built.plan) / 1e6, 2),
        "plan": str(path),
        "cast_alone": asdict(cast_alone) if cast_alone else None,
        "agreement": beside.agreement,
    }


def _onnxruntime(bundle: Bundle, settings: Settings, _say: Callable[[str], None]) -> dict[str, Any]:
    """Make the bundle int8: all else ONNX Runtime compiles by itself as it loads."""
    if settings.precision != "int8" or settings.output is None:
        raise ConfigError(
            "ONNX Runtime compiles a bundle whenever it loads it; what can be made beforehand is its int8 "
            "form: --precision int8, and --output for the folder of the new bundle."
        )
    figures = quantise(bundle, settings.output, probe=settings.calibrate)
    return {
        "bundle": bundle.label,
        "status": READY,
        "precision": "int8",
        **figures,
        "folder": str(settings.output),
    }


def _capability(here: Here, asked: str | None) -> str:
    if here.gpu is not None:
        if asked not in (None, here.gpu.capability):
            raise ConfigError(
                f"--capability {asked} is not that of the GPU here, {here.gpu.name} ({here.gpu.capability}). "
                "Leave it out: a plan is built where it runs."
            )
        return here.gpu.capability
    if asked is None:
        raise ConfigError(
            "There is no NVIDIA GPU here, so no plan can be run. To see whether the bundle builds, name the "
            "compute capability of the GPU that you mean: --capability 8.9."
        )
    return asked


def _greatest(bundle: Bundle, batch: int | None) -> int:
    per_channel = bundle.manifest.input.per_channel
    most = MAX_CHANNELS if per_channel else MAX_ROWS if bundle.manifest.graph.rows == "free" else 1
    if batch is None:
        return ANY_MONTAGE_ROWS if per_channel else 1
    if not 1 <= batch <= most:
        raise ConfigError(
            f"--batch {batch}: bundle {bundle.label} takes 1 to {most} rows."
            if most > 1
            else f"--batch {batch}: the step graph of bundle {bundle.label} has one row, and no more."
        )
    return batch


def _signal(bundle: Bundle, settings: Settings) -> tuple[Frames | None, Frames]:
    """Return what ranges are taken from, if anything, and what the result is judged on."""
    if settings.calibrate is None:
        return None, noise_frames(bundle)
    if bundle.manifest.signal is not None:
        raise ConfigError(
            f"Bundle {bundle.label} takes codes: a recording holds none. Leave out --calibrate."
        )
    ranges, judged = halves(recording_frames(bundle, settings.calibrate))
    if len(judged) < MIN_FRAMES:
        raise ConfigError(
            f"{settings.calibrate} gives {2 * len(judged)} steps of bundle {bundle.label}, fewer than "
            f"{2 * MIN_FRAMES}. Take a longer recording."
        )
    return ranges, judged


def _judged_cast(bundle: Bundle, graph: bytes, precision: Precision, frames: Frames) -> Agreement | None:
    """Run the cast graph by ONNX Runtime: what the cast costs is known before anything is compiled."""
    if graph == bundle.graph_bytes:
        return None
    cast_bundle = replace(bundle, graph_bytes=graph)
    with OnnxRuntimeBackend(bundle) as one, OnnxRuntimeBackend(cast_bundle) as other:
        found = compare(bundle, one.runner(), other.runner(), frames)
    _refuse(bundle, found, precision, "cast to {} and run by ONNX Runtime")
    return found


def _validated(
    bundle: Bundle, built: Built, machine: Machine, precision: Precision, frames: Frames
) -> Agreement | None:
    """Run the plan against ONNX Runtime, at the least and the greatest number of rows; None without a GPU."""
    if machine.here.gpu is None:
        return None
    found = []
    for rows in sorted({built.rows[0], built.rows[2]}):
        sized = at_rows(bundle, rows)
        with (
            OnnxRuntimeBackend(sized) as reference,
            tensorrt.TensorRTBackend(sized, machine.load(built.plan), "plan") as plan,
        ):
            found.append(compare(sized, reference.runner(), plan.runner(), frames[:, :rows]))
        _refuse(bundle, found[-1], precision, "compiled in {}" + (f", {rows} rows," if rows > 1 else ""))
    return _worst(found)


def _refuse(bundle: Bundle, found: Agreement, precision: Precision, done: str) -> None:
    wrong = shortfalls(found, BARS[precision])
    if wrong:
        raise PlanError(
            f"Bundle {bundle.label}, {done.format(precision)}, does not compute what it does in float32: "
            f"{'; '.join(wrong)}. No plan was kept." + (" Compile it in fp32." if precision != "fp32" else "")
        )


def _worst(found: list[Agreement]) -> Agreement:
    codes = [a.codes for a in found if a.codes is not None]
    labels = [a.labels for a in found if a.labels is not None]
    return Agreement(
        values=max(a.values for a in found),
        state=max(a.state for a in found),
        codes=min(codes, default=None),
        labels=min(labels, default=None),
    )


def _sidecar(
    bundle: Bundle,
    built: Built,
    here: Here,
    capability: str,
    precision: Precision,
    agreement: Agreement | None,
) -> Sidecar:
    return Sidecar(
        status="not validated" if agreement is None else "ready",
        bundle=bundle.label,
        plan_sha256=digest(built.plan),
        onnx_sha256=digest(bundle.graph_bytes),
        flavour=here.flavour,
        version=here.version,
        capability=capability,
        gpu=here.gpu,
        precision=precision,
        rows=built.rows,
        tensors=built.tensors,
        agreement=None if agreement is None else asdict(agreement),
    )


def _timing(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _told(found: Agreement) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in asdict(found).items() if value is not None)


TARGETS: dict[Target, Callable[[Bundle, Settings, Callable[[str], None]], dict[str, Any]]] = {
    "tensorrt": _tensorrt,
    "onnxruntime": _onnxruntime,
}
