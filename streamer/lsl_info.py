"""Stream descriptions: LSL's XML to and from ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streamer.errors import StreamMismatch
from streamer.lsl import describe, load
from streamer.types import StreamInfo
from streamer.units import told_unit

MNE_TYPES = frozenset(
    {"eeg", "emg", "eog", "ecg", "seeg", "ecog", "dbs", "resp", "gsr", "temperature", "bio"}
)
OTHER_TYPES = {"stim": "stim", "trigger": "stim", "triggers": "stim", "marker": "stim", "markers": "stim"}
UNITS = {
    "uv": "uV", "microvolt": "uV", "microvolts": "uV", "-6": "uV",
    "mv": "mV", "millivolt": "mV", "millivolts": "mV", "-3": "mV",
    "v": "V", "volt": "V", "volts": "V",
}  # fmt: skip
UNIT_WORDS = {"uV": "microvolts", "mV": "millivolts", "V": "volts"}


@dataclass(frozen=True, slots=True)
class Replay:
    """That a stream is a recording being played, not a device.

    Attributes
    ----------
    speed : float
        Times real time; infinite: as fast as it can be sent.
    n_times : int
        Samples from first to last; 0: not known.
    """

    speed: float
    n_times: int


def to_stream_info(
    info: Any, ch_names: Sequence[str] | None = None, unit: str | float | None = None
) -> StreamInfo:
    """Translate a full pylsl StreamInfo.

    Parameters
    ----------
    info : pylsl.StreamInfo
        With its description, as an inlet's ``info()`` returns it.
    ch_names : sequence of str, optional
        Names for a stream that does not tell them; else those told, else ``"1"`` to ``"n"``.
    unit : str or float, optional
        Likewise, a number being the microvolts of one count; else the one that the signal channels agree on,
        else ``"unknown"``.

    Raises
    ------
    StreamMismatch
        No regular numeric stream, or another number of channels than of ``ch_names``.
    """
    pylsl, n_chans = load(), info.channel_count()
    if info.channel_format() == pylsl.cf_string or not info.nominal_srate() > 0:
        raise StreamMismatch(
            f"Stream {info.name()!r} carries no regular signal ({describe(info)}). "
            "Choose a numeric stream with a sampling rate; read events as markers."
        )
    if ch_names is not None and len(ch_names) != n_chans:
        raise StreamMismatch(
            f"{len(ch_names)} names under 'channels', but stream {info.name()!r} has {n_chans} channels. "
            "Name each one, in order, or none."
        )
    labels, types, units = _channels(info, n_chans)
    stype = info.type().upper() or "EEG"
    ch_types = [_mne_type(word or stype) for word in types]
    return StreamInfo(
        name=info.name(),
        source_id=info.source_id(),
        stype=stype,
        sfreq=float(info.nominal_srate()),
        ch_names=tuple(ch_names) if ch_names is not None else _unique(labels),
        ch_types=tuple(ch_types),
        unit=told_unit(unit) if unit is not None else _common_unit(units, ch_types),
    )


def to_lsl(info: StreamInfo, channel_format: str = "float32") -> Any:
    """Return a pylsl StreamInfo that says all that this one does, with ``manufacturer`` bcistream."""
    pylsl = load()
    made = pylsl.StreamInfo(
        info.name, info.stype, info.n_chans, info.sfreq, channel_format, info.source_id or info.name
    )
    made.desc().append_child_value("manufacturer", "bcistream")
    made.set_channel_labels(list(info.ch_names))
    made.set_channel_types([word.upper() for word in info.ch_types])
    if info.unit in UNIT_WORDS:
        made.set_channel_units(UNIT_WORDS[info.unit])
    return made


def marker_info(name: str) -> Any:
    """Return the pylsl StreamInfo of a string marker stream."""
    made = load().StreamInfo(name, "Markers", 1, 0.0, "string", name)
    made.desc().append_child_value("manufacturer", "bcistream")
    return made


def tell_replay(info: Any, replay: Replay) -> None:
    """Write into a pylsl StreamInfo that it is a replay."""
    node = info.desc().append_child("replay")
    node.append_child_value("speed", repr(replay.speed))
    node.append_child_value("n_times", str(replay.n_times))


def told_replay(info: Any) -> Replay | None:
    """Return what a full pylsl StreamInfo says about being a replay; None for a device."""
    node = info.desc().child("replay")
    try:
        replay = Replay(float(node.child_value("speed")), int(node.child_value("n_times")))
    except ValueError:
        return None
    return replay if replay.speed > 0 and replay.n_times >= 0 else None


def _channels(info: Any, n_chans: int) -> tuple[list[str], list[str], list[str]]:
    """Return label, type and unit of each channel, "" where the stream does not say."""
    told: list[tuple[str, str, str]] = []
    channel = info.desc().child("channels").child("channel")
    while not channel.empty() and len(told) < n_chans:
        label, kind, unit = (channel.child_value(key).strip() for key in ("label", "type", "unit"))
        told.append((label, kind, unit))
        channel = channel.next_sibling("channel")
    told += [("", "", "")] * (n_chans - len(told))
    labels, types, units = (list(column) for column in zip(*told, strict=True))
    return labels, types, units


def _unique(labels: Sequence[str]) -> tuple[str, ...]:
    """Give a number to the nameless, and tell namesakes apart."""
    names: list[str] = []
    for i, label in enumerate(labels, start=1):
        name = label or str(i)
        names.append(name if name not in names else f"{name}-{i}")
    return tuple(names)


def _mne_type(word: str) -> str:
    word = word.lower()
    return word if word in MNE_TYPES else OTHER_TYPES.get(word, "misc")


def _common_unit(units: Sequence[str], ch_types: Sequence[str]) -> str:
    """Return the unit of the channels that carry a biosignal; beside them may be counters and sensors."""
    signal = [u for u, t in zip(units, ch_types, strict=True) if t not in {"misc", "stim"}] or list(units)
    words = {UNITS.get(unit.lower().replace("µ", "u").replace("μ", "u"), "unknown") for unit in signal}
    return words.pop() if len(words) == 1 else "unknown"
