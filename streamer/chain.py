"""A list of DSP steps as one step."""

from __future__ import annotations

from collections.abc import Sequence

from streamer.dsp import Step, StepConfig
from streamer.types import Chunk, StreamInfo


class Chain:
    """DSP steps in sequence; itself a `Step`.

    Parameters
    ----------
    configs : sequence of StepConfig
        In signal order.
    info : StreamInfo
        The stream that enters; each step is built for the output of the one before.

    Attributes
    ----------
    info : StreamInfo
        The stream that leaves.
    delay_s : float
        Sum of the steps' group delays, seconds.
    """

    def __init__(self, configs: Sequence[StepConfig], info: StreamInfo) -> None:
        self.source_info = info
        self.steps: list[Step] = []
        self.delay_s = 0.0
        for config in configs:
            step = config.build(info)
            info = step.info
            self.delay_s += step.delay / info.sfreq
            self.steps.append(step)
        self.info = info
        self.delay = round(self.delay_s * info.sfreq)

    def __call__(self, chunk: Chunk) -> Chunk:
        """Return the chain's output for this chunk; may be empty."""
        for step in self.steps:
            chunk = step(chunk)
        return chunk

    def reset(self) -> None:
        """Reset every step."""
        for step in self.steps:
            step.reset()
