"""The least that hands on a filtered window: a hand-written pylsl loop."""

from __future__ import annotations

import numpy as np
from scipy import signal

from engine.bench.consumers._windows import SILENT_S, Windows
from engine.bench.meter import Meter, Told

ROWS = 64  # at least; a tenth of a second where that is more


def consume(meter: Meter) -> Told:
    """Pull, filter, hand on."""
    import pylsl

    job, stream = meter.job, meter.job.stream
    (found,) = pylsl.resolve_byprop("source_id", job.source_id, timeout=30.0)
    inlet = pylsl.StreamInlet(found, max_buflen=4, recover=False)
    inlet.open_stream(timeout=10.0)
    buffer = np.empty((max(ROWS, stream.hop), stream.n_chans), dtype=np.float32)
    sos = stream.sos
    state = np.zeros((len(sos), 2, stream.n_chans))
    windows = Windows(meter)
    meter.ready()
    while windows.missing:
        data, stamps = inlet.pull_chunk(SILENT_S, len(buffer), dest_obj=buffer, min_samples=1, as_numpy=True)
        if not len(stamps):
            break
        rows, state = signal.sosfilt(sos, data, axis=0, zi=state)
        windows.add(rows)
    return meter.told(windows.missing)
