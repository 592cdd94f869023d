"""timeflux: one graph of its own nodes, run by its own scheduler at rate 0: as fast as it goes."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

from engine.bench.consumers._windows import SILENT_S
from engine.bench.meter import Meter, Told

NAMES = ("receive", "filter", "count", "window", "hear")


def consume(meter: Meter) -> Told:
    """Run the graph until the last window has come."""
    import pylsl

    # timeflux 0.17 imports two names that pylsl has given up since, and uses them for its clock alone.
    vars(pylsl).setdefault("resolve_stream", pylsl.resolve_byprop)
    vars(pylsl).setdefault("pylsl", pylsl)
    from timeflux.core.exceptions import WorkerInterrupt
    from timeflux.core.graph import Graph
    from timeflux.core.node import Node
    from timeflux.core.scheduler import Scheduler
    from timeflux.nodes.lsl import Receive
    from timeflux.nodes.window import Window
    from timeflux_dsp.nodes.filters import IIRFilter

    job, stream = meter.job, meter.job.stream
    last = job.samples - stream.hop

    class Count(Node):  # type: ignore[misc]
        def __init__(self) -> None:
            self.n, self.since = 0, time.monotonic()

        def update(self) -> None:
            if self.i.ready():
                self.n += len(self.i.data)
                self.since = time.monotonic()
                self.o.data, self.o.meta = self.i.data, self.i.meta
            elif time.monotonic() - self.since > SILENT_S and self.n:
                raise WorkerInterrupt

    class Hear(Node):  # type: ignore[misc]
        def update(self) -> None:
            if self.i.ready():
                meter.answer(count.n, self.i.data.to_numpy())
                if count.n > last:
                    raise WorkerInterrupt

    count = Count()
    nodes: dict[str, Any] = {
        "receive": Receive(prop="source_id", value=job.source_id, timeout=30.0),
        "filter": IIRFilter(rate=stream.sfreq, sos=stream.sos),
        "count": count,
        "window": Window(length=stream.window, step=stream.hop, index="sample"),
        "hear": Hear(),
    }
    edges = [{"source": a, "target": b} for a, b in pairwise(NAMES)]
    graph = Graph({"nodes": [{"id": name, "module": "", "class": ""} for name in NAMES], "edges": edges})
    graph.build()
    meter.ready()
    with suppress(WorkerInterrupt):
        Scheduler(graph.traverse(), nodes, 0).run()
    return meter.told(max(0, last - count.n))
