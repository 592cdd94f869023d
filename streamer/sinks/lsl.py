"""Decisions as an LSL stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from streamer.lsl import load
from streamer.lsl_info import marker_info
from streamer.lsl_outlet import Outlet
from streamer.sinks import SinkConfig
from streamer.types import Decision, DecisionInfo

NO_LABEL = -1.0
STATE_CHANNELS = ("label", "confidence", "valid", "index")


class Config(SinkConfig):
    """Publish decisions over LSL.

    Attributes
    ----------
    name : str or None
        Of the stream; the run's name by default.
    labels : bool
        Also publish ``<name>-labels``: a string stream with the label, ``"none"`` for no decision, each
        time that it changes.  For programs that only want to be told.
    """

    kind: Literal["lsl"] = "lsl"
    name: Annotated[str, Field(min_length=1)] | None = None
    labels: bool = False

    def open(self, info: DecisionInfo) -> LslSink:
        """Put the stream on the network."""
        return LslSink(info, self.name or info.name, labels=self.labels)

    def of_stream(self, name: str) -> Self:
        """Return the settings with the stream's name in that of the sink; the run's has it anyway."""
        return self.model_copy(update={"name": f"{self.name}-{name}"}) if self.name else self


class LslSink(Outlet):
    """One channel per class with its probability, then ``label``, ``confidence``, ``valid`` and ``index``.

    ``label`` is the number of the class decided for, -1 for none; ``valid`` is 1 or 0.  Samples are doubles:
    a sample index is exact up to 2**53, where float32 ends at 2**24, 19 hours of 250 Hz.  A sample is
    stamped with the decision's own time, that of the last sample used, not with the time of sending.
    """

    def __init__(
        self,
        info: DecisionInfo,
        name: str,
        *,
        labels: bool = False,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._number = {label: float(i) for i, label in enumerate(info.classes)}
        self._last: str | None = ""
        super().__init__(_described(info, name), wait=wait)
        self._labels: Any = load().StreamOutlet(marker_info(f"{name}-labels")) if labels else None

    def write(self, decision: Decision) -> None:
        """Send one decision on."""
        label = NO_LABEL if decision.label is None else self._number[decision.label]
        state = (label, decision.confidence, float(decision.valid), float(decision.index))
        self.push((*decision.probabilities, *state), decision.time)
        if self._labels is not None and decision.label != self._last:
            self._last = decision.label
            self._labels.push_sample([decision.label or "none"], decision.time)

    def close(self) -> None:
        """Take the stream off the network once its readers could fetch the end; may be called twice."""
        super().close()
        self._labels = None


def _described(info: DecisionInfo, name: str) -> Any:
    channels = [*info.classes, *STATE_CHANNELS]
    made = load().StreamInfo(name, "Decisions", len(channels), info.rate, "double64", f"{name}-decisions")
    made.set_channel_labels(channels)
    made.set_channel_types(["probability"] * len(info.classes) + list(STATE_CHANNELS))
    desc = made.desc()
    desc.append_child_value("manufacturer", "bcistream")
    classes = desc.append_child("classes")
    for label in info.classes:
        classes.append_child_value("class", label)
    source = desc.append_child("source")
    source.append_child_value("name", info.source.name)
    source.append_child_value("source_id", info.source.source_id)
    meta = desc.append_child("meta")
    for key, value in info.meta.items():
        meta.append_child_value(key, str(value))
    return made
