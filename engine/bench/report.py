"""The jobs of the bench, put together."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from engine.backends import BackendConfig
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bench import step
from engine.bench.compare import Latencies, Take, Tried, compare
from engine.bench.consumers import FLOOR, OURS, PEERS, TRANSPORT, deciding
from engine.bench.figures import bar, beyond
from engine.bench.job import EEG_BAND, STREAMS, Job, Stream
from engine.bench.many import COUNTS, fed, streams_per_core
from engine.bench.reference import decisions, windows
from engine.bench.turns import take
from engine.bundle import Bundle, load
from engine.demo import private_lsl

JOBS = ("transport", "decision", "step", "many")
SETTLE_S = 4.0  # beyond the motor-imagery bundle's left context
Say = Callable[[str], None]
Found = tuple[dict[str, Any], Latencies]


@dataclass(frozen=True)
class Options:
    """What is to be measured.

    Attributes
    ----------
    what : tuple of str
        Of `JOBS`.
    streams : tuple of Stream
        For the transport.
    sfreq : float
        Of the decision's stream, Hz; its channels are the bundle's.
    against : tuple of str
        Names of `PEERS`.
    seconds, rounds : float, int
        What each system is measured for, in so many turns.
    bundle : str
        Folder or name.
    backends : mapping
        Settings of each backend, by what it is called in the report.
    """

    what: tuple[str, ...] = JOBS[:3]
    streams: tuple[Stream, ...] = (STREAMS["eeg-8"],)
    sfreq: float = 250.0
    against: tuple[str, ...] = (FLOOR,)
    seconds: float = 30.0
    rounds: int = 3
    bundle: str = "motor-imagery"
    backends: Mapping[str, BackendConfig] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """A report for JSON, and the latencies behind it for a plot: ms, by panel and system."""

    document: dict[str, Any]
    latencies: dict[str, Latencies]


def measure(options: Options, *, say: Say, one_turn: Take = take) -> Measured:
    """Do all that is asked for.

    Raises
    ------
    StreamLost
        The floor or the engine gave no answer, or a wrong one.
    BundleError, ConfigError
        The bundle is no decoder, or takes one stream at a time and many are asked for; nothing of that name.
    """
    bundle = load(options.bundle)
    _ = bundle.readout  # refuses a bundle for another command before anything is started
    if "many" in options.what:
        bundle.batched(max(COUNTS))  # refuses a bundle of one row, as early
    document: dict[str, Any] = {"machine": machine()}
    latencies: dict[str, Latencies] = {}
    backends = options.backends or {"onnxruntime": OnnxRuntime()}
    options = replace(options, backends=backends)
    with private_lsl():
        if "transport" in options.what:
            document["transport"] = {}
            for stream in options.streams:
                panel = f"transport, {stream.name}"
                found, latencies[panel] = _transport(stream, options, say, one_turn)
                document["transport"][stream.name] = found
        if "decision" in options.what:
            document["decision"], latencies["decision"] = _decision(bundle, options, say, one_turn)
    if "step" in options.what:
        say(f"step: {bundle.label}, a step and its whole left context in turn")
        document["step"] = {name: step.measure(bundle, one) for name, one in backends.items()}
    if "many" in options.what:
        say(f"many: {bundle.label}, more and more streams on one core")
        document["many"] = fed(bundle) | {
            "backends": {name: streams_per_core(bundle, backend=one) for name, one in backends.items()}
        }
    return Measured(document, latencies)


def machine() -> dict[str, Any]:
    """Return what a figure measured here depends on."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "pylsl", "onnxruntime")},
    }


def _transport(stream: Stream, options: Options, say: Say, one_turn: Take) -> Found:
    job = Job(stream, options.seconds / options.rounds, SETTLE_S)
    low, high = stream.band
    say(f"transport {stream.name}: {stream.words()}; {low:g}-{high:g} Hz, notch, 2 s every 100 ms")
    tried = [Tried(PEERS[name], windows(stream)) for name in options.against]
    tried.append(Tried(TRANSPORT, windows(stream)))
    found = compare(tried, job, options.rounds, say=say, one_turn=one_turn)
    return {"stream": stream.words(), "band_hz": list(stream.band), **found.document}, found.latencies


def _decision(bundle: Bundle, options: Options, say: Say, one_turn: Take) -> Found:
    wanted, graph = bundle.manifest.input, bundle.manifest.graph
    stream = Stream("decision", wanted.ch_names, options.sfreq, EEG_BAND, wanted.stype)
    hop_s = graph.hop / wanted.sfreq
    settle_s = max(SETTLE_S, graph.left_context / wanted.sfreq + 2 * hop_s)
    job = Job(stream, options.seconds / options.rounds, settle_s, hop_s=hop_s)
    say(f"decision: {bundle.label} on {stream.words()}")
    tried = [Tried(PEERS[name], windows(stream)) for name in options.against if name == FLOOR]
    right = decisions(bundle, stream)
    several = len(options.backends) > 1
    for name, config in options.backends.items():
        called = f"{OURS} ({name})" if several else OURS
        system = deciding(options.bundle, config.model_dump(mode="json"), called)
        tried.append(Tried(system, right, bar(config)))
    found = compare(tried, job, options.rounds, say=say, one_turn=one_turn)
    document = {"stream": stream.words(), "bundle": bundle.label, "hop_ms": 1e3 * hop_s, **found.document}
    return document | {"beyond_floor_and_step_ms": beyond(found.document["systems"])}, found.latencies
