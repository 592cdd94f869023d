"""ezmsg: LSL inlet, filter and window as units of one process."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.bench.consumers._windows import SILENT_S
from engine.bench.job import HOP_S, WINDOW_S
from engine.bench.meter import Meter, Told


def consume(meter: Meter) -> Told:
    """Run a graph of four units until the last window has come."""
    import ezmsg.core as ez
    import pylsl
    from ezmsg.lsl.inlet import LSLInfo, LSLInletSettings, LSLInletUnit
    from ezmsg.sigproc.filter import Filter, FilterSettings
    from ezmsg.sigproc.window import Window, WindowSettings
    from ezmsg.util.messages.axisarray import AxisArray

    ez.logger.setLevel("WARNING")
    stream = meter.job.stream
    ends = [0]

    class Hear(ez.Unit):  # type: ignore[misc]
        INPUT = ez.InputStream(AxisArray)

        @ez.subscriber(INPUT)  # type: ignore[untyped-decorator]
        async def on_window(self, message: Any) -> None:
            ends[0] += stream.hop if ends[0] else stream.window
            meter.answer(ends[0], message.data)
            if ends[0] + stream.hop > meter.job.samples:
                raise ez.NormalTermination

        @ez.task  # type: ignore[untyped-decorator]
        async def watch(self) -> None:
            meter.ready()
            heard = -1
            while heard != ends[0] or not heard:
                heard = ends[0]
                await asyncio.sleep(SILENT_S)
            raise ez.NormalTermination

    units = {
        "inlet": LSLInletUnit(
            LSLInletSettings(
                LSLInfo(name="bench", type=stream.stype),
                use_lsl_clock=True,
                processing_flags=pylsl.proc_none,
            )
        ),
        "filter": Filter(FilterSettings(coefs=stream.sos, coef_type="sos")),
        "window": Window(WindowSettings(window_dur=WINDOW_S, window_shift=HOP_S, zero_pad_until="none")),
        "hear": Hear(),
    }
    ez.run(
        components=units,
        connections=(
            (units["inlet"].OUTPUT_SIGNAL, units["filter"].INPUT_SIGNAL),
            (units["filter"].OUTPUT_SIGNAL, units["window"].INPUT_SIGNAL),
            (units["window"].OUTPUT_SIGNAL, units["hear"].INPUT),
        ),
        force_single_process=True,
    )
    last = meter.job.samples - (meter.job.samples - stream.window) % stream.hop
    return meter.told(last - ends[0])
