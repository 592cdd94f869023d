"""What the LSL sink does beyond the contract of sinks."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pylsl
import pytest

from streamer.sinks.lsl import Config as Lsl
from streamer.types import Decision, DecisionInfo, StreamInfo

PATIENCE_S = 10.0
SOURCE = StreamInfo("cap", "cap-1", "EEG", 250.0, ("C3", "C4"), ("eeg", "eeg"), "uV")
LEFT = Decision(1000, 17.25, (0.7, 0.3), "left", 0.7, True)
NONE = replace(LEFT, index=1016, time=17.3, label=None)


def run_info() -> DecisionInfo:
    """Describe a run of a name that nobody else has."""
    return DecisionInfo(f"run-{uuid.uuid4().hex[:8]}", ("left", "right"), 16.0, SOURCE, {"bundle": "toy"})


@pytest.mark.usefixtures("lsl_session")
def test_the_decision_stream_describes_itself() -> None:
    """A reader that knows nothing of the project finds channels, classes, rate and source in the stream."""
    info = run_info()
    with Lsl().open(info):
        (found,) = pylsl.resolve_byprop("name", info.name, timeout=PATIENCE_S)
        full = pylsl.StreamInlet(found).info(PATIENCE_S)
    assert (full.type(), full.nominal_srate()) == ("Decisions", 16.0)
    assert full.channel_format() == pylsl.cf_double64
    assert full.get_channel_labels() == ["left", "right", "label", "confidence", "valid", "index"]
    first = full.desc().child("classes").child("class")
    assert (first.child_value(), first.next_sibling().child_value()) == ("left", "right")
    assert full.desc().child("source").child_value("name") == "cap"
    assert full.desc().child("meta").child_value("bundle") == "toy"


@pytest.mark.usefixtures("lsl_session")
def test_labels_are_told_when_they_change() -> None:
    """The label stream has one string per change, stamped as the decision."""
    info = run_info()
    with Lsl(name=info.name, labels=True).open(info) as sink:
        (found,) = pylsl.resolve_byprop("name", f"{info.name}-labels", timeout=PATIENCE_S)
        inlet = pylsl.StreamInlet(found, recover=False)
        inlet.open_stream(PATIENCE_S)
        for decision in (LEFT, replace(LEFT, time=17.26), NONE, replace(LEFT, time=18.0)):
            sink.write(decision)
        heard = [inlet.pull_sample(PATIENCE_S) for _ in range(3)]
        assert inlet.pull_sample(0.0) == (None, None)
    assert heard == [(["left"], 17.25), (["none"], 17.3), (["left"], 18.0)]
