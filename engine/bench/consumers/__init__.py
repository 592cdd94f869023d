"""Who does the job: one file per system, each with ``consume(meter, **settings) -> Told``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from engine.bench.job import Job
from engine.bench.meter import Meter
from streamer.errors import BciError

FLOOR, OURS, MNE_LSL = "floor", "bcistream", "mne-lsl"
TOLD, REFUSED = "told", "refused"


@dataclass(frozen=True, slots=True)
class System:
    """A consumer.

    Attributes
    ----------
    name : str
        What it is called in the report.
    module : str
        File of this folder.
    needs : tuple of str
        Modules that must be installed.
    packages : tuple of str
        Distributions whose versions matter.
    how : str
        With which settings it runs.
    settings : mapping
        Keyword arguments of its ``consume``; picklable.
    """

    name: str
    module: str
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    how: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """Return what it needs and is not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def versions(self) -> dict[str, str]:
        """Return the versions that its figures depend on."""
        return {package: version(package) for package in self.packages}


PEERS = {
    system.name: system
    for system in (
        System(
            FLOOR,
            "floor",
            packages=("pylsl",),
            how="a bare pylsl loop: pull_chunk(min_samples=1) into its own buffer, SciPy, a mirrored ring",
        ),
        System(
            MNE_LSL,
            "mne_lsl",
            needs=("mne_lsl",),
            packages=("mne-lsl",),
            how="StreamLSL.filter and a callback, acquisition_delay at its default, the least, of 1 ms",
        ),
        System(
            "ezmsg",
            "ezmsg",
            needs=("ezmsg", "ezmsg.lsl", "ezmsg.sigproc"),
            packages=("ezmsg", "ezmsg-lsl", "ezmsg-sigproc"),
            how="LSLInlet without dejittering, Filter, Window, all units in one process",
        ),
        System(
            "timeflux",
            "timeflux",
            needs=("timeflux", "timeflux_dsp"),
            packages=("timeflux", "timeflux-dsp"),
            how="one graph at rate 0, as fast as it goes; Receive, IIRFilter, Window",
        ),
    )
}
TRANSPORT = System(
    OURS,
    "transport",
    packages=("bcistream",),
    how="as `bcistream run` does: LslSource, Clock, Repair, bandpass, notch; but no model",
)


def deciding(bundle: str, backend: Mapping[str, Any], name: str = OURS) -> System:
    """Return the engine with a bundle, as `bcistream run` drives it."""
    settings = {"bundle": bundle, "backend": dict(backend)}
    return System(
        name, "decision", packages=("bcistream",), how=f"`bcistream run` with {bundle}", settings=settings
    )


def run(system: System, job: Job, started: float, ready: Any, answers: Any) -> None:
    """Do the job in this process and answer with ``(TOLD, Told)``, or ``(REFUSED, why)``."""
    from pylsl import local_clock

    module = importlib.import_module(f"engine.bench.consumers.{system.module}")
    meter = Meter(job, started, ready.set, clock=local_clock)
    try:
        answers.put((TOLD, module.consume(meter, **system.settings)))
    except BciError as error:
        answers.put((REFUSED, str(error)))
