"""`bcistream doctor`: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import importlib.util
import platform
import socket
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from streamer.errors import BciError

LSL_GROUP = "239.255.172.215"  # of liblsl's site scope


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes
    ----------
    name : str
    status : "ok", "missing" or "broken"
        ``missing`` is something optional that is not there; ``broken`` stops live sessions.
    detail : str
        What was found.
    fix : str
        What to do; empty when all is well.
    """

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str
    fix: str = ""


def examine() -> list[Check]:
    """Run every check, in the order in which a live session would need them."""
    checks: list[Callable[[], Check]] = [
        _python, _liblsl, _lsl_loopback, _multicast, _streams, _brainflow, _onnxruntime, _readers, _clock,
        _torch, _gpu, _tensorrt,
    ]  # fmt: skip
    return [_tried(check) for check in checks]


def _tried(check: Callable[[], Check]) -> Check:
    """Run a check; one that fails in a way that nobody foresaw is a finding, too."""
    try:
        return check()
    except Exception as error:  # the doctor must outlive whatever is broken
        name = check.__name__.strip("_").replace("_", " ")
        return Check(name, "broken", f"{type(error).__name__}: {error}", "Mend what is broken above first.")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _liblsl() -> Check:
    try:
        import pylsl
    except (ImportError, RuntimeError, OSError) as error:
        return Check(
            "liblsl", "broken", str(error).splitlines()[0], "pip install --force-reinstall 'pylsl>=1.18.5'"
        )
    return Check("liblsl", "ok", f"pylsl {_version('pylsl')}, liblsl {pylsl.library_version() / 100:.2f}")


def _lsl_loopback() -> Check:
    """Send one sample to ourselves: outlet, discovery and inlet."""
    import pylsl

    info = pylsl.StreamInfo("bcistream-doctor", "probe", 1, 100.0, "float32", uuid.uuid4().hex)
    outlet = pylsl.StreamOutlet(info)
    started = time.perf_counter()
    found = pylsl.resolve_byprop("source_id", info.source_id(), timeout=3.0)
    if not found:
        return Check(
            "lsl loopback", "broken", "our own stream is not found within 3 s",
            "Allow UDP 16571-16604 and TCP 16572-16604 in the firewall, and check that the loopback is up.",
        )  # fmt: skip
    inlet = pylsl.StreamInlet(found[0], recover=False)
    inlet.open_stream(timeout=3.0)
    outlet.wait_for_consumers(3.0)
    outlet.push_sample([1.0])
    sample, _ = inlet.pull_sample(timeout=3.0)
    inlet.close_stream()
    if sample is None:
        return Check(
            "lsl loopback", "broken", "found our own stream, but no sample arrives", "Check the firewall."
        )
    return Check("lsl loopback", "ok", f"found and read within {time.perf_counter() - started:.2f} s")


def _multicast() -> Check:
    """Join LSL's multicast group and hear ourselves: how streams of other machines are found."""
    fix = "Leave VPN or guest Wi-Fi, or name the peers under [lab] KnownPeers in lsl_api.cfg."
    token = uuid.uuid4().bytes
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hear,
        socket.socket(type=socket.SOCK_DGRAM) as tell,
    ):
        try:
            hear.bind(("", 0))
            group = socket.inet_aton(LSL_GROUP) + socket.inet_aton("0.0.0.0")
            hear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            hear.settimeout(1.0)
            tell.sendto(token, (LSL_GROUP, hear.getsockname()[1]))
            heard = hear.recv(64) == token
        except OSError as error:
            return Check(
                "multicast", "missing", f"{LSL_GROUP}: {error}; only this machine's streams are found", fix
            )
    return Check("multicast", "ok" if heard else "missing", f"{LSL_GROUP} answers", "" if heard else fix)


def _streams() -> Check:
    """Look for streams; finding none is no fault."""
    import pylsl

    streams = [s for s in pylsl.resolve_streams(wait_time=1.0) if s.name() != "bcistream-doctor"]
    names = ", ".join(f"{s.name()} ({s.type()}, {s.hostname()})" for s in streams[:5])
    return Check("lsl streams", "ok", f"{len(streams)} visible: {names}" if streams else "none visible now")


def _brainflow() -> Check:
    """Start and stop BrainFlow's own synthetic board."""
    from streamer.errors import MissingDependency, StreamNotFound
    from streamer.sources.brainflow import Config

    try:
        with Config(board="SYNTHETIC_BOARD").open():
            pass
    except (MissingDependency, StreamNotFound) as error:
        return Check("brainflow", "broken", str(error), "pip install --force-reinstall brainflow")
    return Check("brainflow", "ok", f"{_version('brainflow')}, the synthetic board starts")


def _onnxruntime() -> Check:
    """Load every shipped bundle and step it."""
    from engine.backends.onnxruntime import PROVIDERS, Config
    from engine.bundle import load, shipped

    times = []
    try:
        import onnxruntime as ort

        for name in shipped():
            with Config().open(load(name)) as backend:
                runner = backend.runner()
                runner.warm_up()
                started = time.perf_counter()
                runner.step()
                times.append(f"{name} {1e3 * (time.perf_counter() - started):.2f} ms a step")
    except (BciError, ImportError) as error:
        return Check("onnxruntime", "broken", str(error), "pip install --force-reinstall bcistream")
    providers = [name for name, full in PROVIDERS.items() if full in ort.get_available_providers()]
    told = f"{ort.__version__} ({', '.join(providers)}); " + (", ".join(times) or "no bundle shipped")
    return Check("onnxruntime", "ok", told)


def _readers() -> Check:
    missing = [name for name in ("mne", "pyxdf") if _version(name) is None]
    if missing:
        return Check(
            "recordings", "broken", f"no {' and no '.join(missing)}", f"pip install {' '.join(missing)}"
        )
    return Check("recordings", "ok", f"mne {_version('mne')}, pyxdf {_version('pyxdf')}")


def _clock() -> Check:
    """See how late a thread wakes up: the floor under every latency here."""
    late = []
    for _ in range(50):
        started = time.perf_counter()
        time.sleep(0.002)
        late.append(1e3 * (time.perf_counter() - started) - 2.0)
    median, worst = statistics.median(late), max(late)
    busy = median > 2.0
    return Check(
        "clock", "ok", f"a thread wakes {median:.2f} ms late (median), {worst:.2f} ms at worst",
        "Close other programs, and plug the laptop in: power saving delays timers." if busy else "",
    )  # fmt: skip


def _torch() -> Check:
    found = _version("torch")
    if found is None:
        fix = "Only training needs it: pip install 'bcistream[offline]'"
        return Check("torch", "missing", "not installed (live sessions do not use it)", fix)
    return Check("torch", "ok", f"{found} (for bcitrain only)")


def _gpu() -> Check:
    """Ask the driver itself: a TensorRT object without a driver may take the process down."""
    from engine.backends._cuda import driver, gpu, gpu_count

    library = driver()
    if library is None:
        return Check("gpu", "missing", "no NVIDIA driver", "None is needed: ONNX Runtime runs on the CPU.")
    found, count = gpu(library), gpu_count(library)
    if found is None:
        return Check(
            "gpu", "missing", "a driver, but no device that it can use", "Run nvidia-smi to see why."
        )
    more = f" and {count - 1} more" if count > 1 else ""
    return Check(
        "gpu", "ok", f"{found.name}, compute capability {found.capability}, CUDA {found.driver}{more}"
    )


def _tensorrt() -> Check:
    """See what of the TensorRT backend is installed, without making anything of it."""
    wanted = {"pycuda": "memory on the GPU", "cuda.bindings": "CUDA graphs", "onnx": "casts to fp16 and int8"}
    packages = {"pycuda": "pycuda", "cuda.bindings": "cuda-bindings", "onnx": "onnx"}
    libraries = [name for name in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(name) is not None]
    if not libraries:
        return Check("tensorrt", "missing", "not installed", "Optional, for NVIDIA GPUs.")
    there = [f"{name} {_version(name) or ''}".strip() for name in libraries]
    there += [f"{packages[name]} {_version(packages[name])}" for name in wanted if _there(name)]
    lacking = [f"no {packages[name]} ({use})" for name, use in wanted.items() if not _there(name)]
    fix = "pip install 'bcistream[tensorrt]', with CUDA's headers at hand" if lacking else ""
    return Check("tensorrt", "missing" if lacking else "ok", ", ".join([*there, *lacking]), fix)


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it
        return False
