"""mne-lsl: `StreamLSL` with its own filter, and a callback that frames."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from engine.bench.consumers._windows import SILENT_S, Windows
from engine.bench.job import ORDER, WINDOW_S
from engine.bench.meter import Meter, Told

LOOK_S = 0.25  # how often the idle main thread looks whether samples still come


def consume(meter: Meter) -> Told:
    """Connect, filter, and listen until the last sample."""
    import pylsl

    os.environ["MNE_LSL_LIB"] = pylsl.lib.libpath  # the same liblsl for everybody
    from mne_lsl.stream import StreamLSL

    job, stream = meter.job, meter.job.stream
    windows, over = Windows(meter), threading.Event()

    def hear(data: Any, stamps: Any, info: Any) -> tuple[Any, Any]:
        windows.add(data)
        if windows.missing <= 0:
            over.set()
        return data, stamps

    live = StreamLSL(WINDOW_S, source_id=job.source_id).connect(timeout=30.0)
    low, high = stream.band
    live.filter(low, high, iir_params={"sos": stream.sos, "order": ORDER, "ftype": "butter"})
    live.add_callback(hear)
    meter.ready()
    heard, since = 0, time.monotonic()
    while not over.wait(LOOK_S) and time.monotonic() - since < SILENT_S:
        if windows.n != heard:
            heard, since = windows.n, time.monotonic()
    live.disconnect()
    return meter.told(windows.missing)
