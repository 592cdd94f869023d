"""The engine's live path without a model, put together as anybody can: source, feed, DSP chain."""

from __future__ import annotations

import time

from engine.bench.consumers._windows import SILENT_S, Windows
from engine.bench.job import NOTCH_HZ, NOTCH_Q, ORDER, WINDOW_S
from engine.bench.meter import Meter, Told
from engine.pipeline import POLL_S
from engine.session import low_latency
from streamer.acquire import feed
from streamer.chain import Chain
from streamer.dsp.bandpass import Config as Bandpass
from streamer.dsp.notch import Config as Notch
from streamer.sources.lsl import Config as Lsl


def consume(meter: Meter) -> Told:
    """Read the feed, filter, hand on."""
    job, stream = meter.job, meter.job.stream
    low, high = stream.band
    steps = (
        Bandpass(low=low, high=high, order=ORDER),
        Notch(freqs=(NOTCH_HZ,), q=NOTCH_Q, harmonics=False),
    )
    source = Lsl(source_id=job.source_id, timeout_s=30.0).open()
    with feed(source) as samples:
        chain = Chain(steps, source.info)
        windows = Windows(meter)
        with low_latency():
            meter.ready()
            heard = time.monotonic()
            while windows.missing > 0 and time.monotonic() - heard < SILENT_S:
                chunk = samples.read(POLL_S)
                if chunk is None:  # nothing came, or nothing that the clock is sure of
                    continue
                heard = time.monotonic()
                if chunk.discontinuity:
                    chain.reset()
                windows.add(chain(chunk).data)
        counters = samples.counters
    delays = {"filters": 1e3 * chain.delay_s, "hop": 1e3 * job.hop_s, "window": 1e3 * WINDOW_S}
    held = counters.samples_lost + counters.repaired
    return meter.told(max(0, windows.missing) + held, algorithmic_delay_ms=delays)
