"""LSL descriptions, to and from ours."""

from __future__ import annotations

import pylsl
import pytest
from live import info

from streamer.lsl_info import Replay, tell_replay, to_lsl, to_stream_info, told_replay
from streamer.types import StreamInfo


def described(*channels: dict[str, str], stype: str = "EEG", n_chans: int = 0) -> pylsl.StreamInfo:
    """Return a description with these words for each channel."""
    made = pylsl.StreamInfo("device", stype, n_chans or len(channels), 250.0, "float32", "device-1")
    node = made.desc().append_child("channels")
    for channel in channels:
        child = node.append_child("channel")
        for key, value in channel.items():
            child.append_child_value(key, value)
    return made


def test_a_description_survives_the_round_trip() -> None:
    """What `to_lsl` writes `to_stream_info` reads back."""
    stream = StreamInfo("cap", "cap-7", "EEG", 512.0, ("Fz", "EOG1", "x"), ("eeg", "eog", "misc"), "uV")
    made = to_lsl(stream)
    assert to_stream_info(made) == stream
    assert made.desc().child_value("manufacturer") == "bcistream"


@pytest.mark.parametrize(
    ("words", "unit"),
    [
        (("microvolts",), "uV"),
        (("Microvolt",), "uV"),
        (("uV", "µV", "μV", "UV"), "uV"),
        (("-6",), "uV"),
        (("mV", "millivolts"), "mV"),
        (("V", "volts"), "V"),
        (("uV", "mV"), "unknown"),
        (("furlongs",), "unknown"),
        (("",), "unknown"),
    ],
)
def test_units_in_all_spellings(words: tuple[str, ...], unit: str) -> None:
    """The unit is the one that the signal channels agree on, however it is spelt."""
    channels = [{"label": f"E{i}", "type": "EEG", "unit": word} for i, word in enumerate(words)]
    assert to_stream_info(described(*channels)).unit == unit
    sensor = {"label": "acc", "type": "ACC", "unit": "g"}
    assert to_stream_info(described(*channels, sensor)).unit == unit


def test_what_is_not_told_is_made_up_from_what_is() -> None:
    """Without a description channels are called 1 to n and are what the stream is; settings tell the rest."""
    bare = described(stype="emg", n_chans=2)
    stream = to_stream_info(bare)
    assert (stream.ch_names, stream.ch_types, stream.unit) == (("1", "2"), ("emg", "emg"), "unknown")
    assert stream.stype == "EMG"
    told = to_stream_info(bare, ch_names=("left", "right"), unit="mV")
    assert (told.ch_names, told.unit) == (("left", "right"), "mV")


def test_namesakes_are_told_apart() -> None:
    """Empty labels become numbers, repeated ones get one; words for types become MNE's."""
    channels = [{"label": "C3", "type": "EEG"}, {"label": "C3"}, {"type": "Trigger"}, {"type": "Gyro"}]
    stream = to_stream_info(described(*channels))
    assert stream.ch_names == ("C3", "C3-2", "3", "4")
    assert stream.ch_types == ("eeg", "eeg", "stim", "misc")


def test_descriptions_of_the_wrong_length_are_survived() -> None:
    """Fewer or more channels in the description than in the stream are filled up or cut off."""
    assert to_stream_info(described({"label": "a"}, n_chans=3)).ch_names == ("a", "2", "3")
    assert to_stream_info(described({"label": "a"}, {"label": "b"}, n_chans=1)).ch_names == ("a",)


def test_a_replay_says_so() -> None:
    """Speed and length of a replay survive the description; a device has none; nonsense counts as none."""
    made = to_lsl(info())
    assert told_replay(made) is None
    tell_replay(made, Replay(float("inf"), 5000))
    assert told_replay(made) == Replay(float("inf"), 5000)
    odd = to_lsl(info())
    odd.desc().append_child("replay").append_child_value("speed", "warp")
    assert told_replay(odd) is None
