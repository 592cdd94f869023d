"""Files that cannot be replayed end in one clear sentence, whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import (
    write_brainvision,
    write_edf,
    write_muse,
    write_npz,
    write_openbci,
    write_rows,
    write_xdf,
)

from streamer.errors import RecordingError
from streamer.sources.recording import Recording, load

RNG = np.random.default_rng(0)
N = 120


def gdf(path: Path) -> Path:
    """Write a GDF 1.25 of two int16 channels of 60 samples per record and an event."""
    fixed = b"GDF 1.25".ljust(184, b" ") + np.int64(768).tobytes() + bytes(44) + np.int64(2).tobytes()
    fixed += np.array([1, 1, 2], "<u4").tobytes()
    text = b"".join(field.ljust(16) for field in (b"C3", b"C4")) + bytes(160) + b"uV      " * 2
    ranges = np.array([-1e3, -1e3, 1e3, 1e3]).tobytes() + np.array([-1000, -1000, 1000, 1000]).tobytes()
    layout = np.array([60, 60, 3, 3], "<i4").tobytes()
    samples = RNG.integers(-500, 500, 240).astype("<i2").tobytes()
    events = b"\x01" + bytes(3) + np.uint32(1).tobytes() + np.uint32(20).tobytes() + np.uint16(769).tobytes()
    path.write_bytes(fixed + text + ranges + bytes(160) + layout + bytes(64) + samples + events)
    return path


def fif(path: Path) -> Path:
    """Write a FIF of two channels."""
    import mne

    with mne.use_log_level("ERROR"):
        raw = mne.io.RawArray(1e-5 * RNG.normal(size=(2, N)), mne.create_info(["C3", "C4"], 100.0, "eeg"))
        raw.save(path)
    return path


def xdf(path: Path) -> Path:
    """Write an XDF of a signal and markers."""
    signal = {"name": "A", "type": "EEG", "rate": 100, "values": RNG.normal(size=(N, 2)).astype(np.float32)}
    marks = {"name": "M", "type": "Markers", "rate": 0, "stamps": [5.2, 5.4], "values": ["go", "stop"]}
    return write_xdf(path, [signal | {"stamps": 5 + np.arange(N) / 100, "labels": ["C3", "C4"]}, marks])


def brainflow(path: Path) -> Path:
    """Write rows of a Cyton."""
    rows = RNG.normal(size=(N, 24))
    rows[:, 0], rows[:, 22] = np.arange(N), 1.7e9 + np.arange(N) / 250
    return write_rows(path, rows)


WRITERS: dict[str, Callable[[Path], Path]] = {
    "a.edf": lambda path: write_edf(
        path, [RNG.integers(-99, 99, (3, 40))] * 2, ["C3", "Status"], onsets=[0, 1, 3], notes=[(1, 2, "T1")]
    ),
    "a.gdf": gdf,
    "a_raw.fif": fif,
    "a.vhdr": lambda path: write_brainvision(path, RNG.integers(-99, 99, (N, 2))),
    "a.xdf": xdf,
    "a.txt": lambda path: write_openbci(
        path, np.arange(N), RNG.normal(size=(N, 2)), [f"{1.6e12 + 4 * i:.0f}" for i in range(N)], old=False
    ),
    "rows.csv": brainflow,
    "muse.csv": lambda path: write_muse(
        path, 9 + np.arange(N) / 256, RNG.normal(size=(N, 5)), 1 * (np.arange(N) == 50)
    ),
    "a.npz": lambda path: write_npz(path, RNG.integers(-99, 99, (2, N)).astype(np.int16)),
}
changes = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8)), max_size=4
)  # where, bytes taken away, bytes put in
keep = st.one_of(st.just(1.0), st.floats(0, 1))


def load_or_refuse(path: Path) -> Recording | str:
    """Return the recording, or the sentence with which it was refused."""
    try:
        return load(path)
    except RecordingError as refusal:
        return str(refusal)


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files_are_refused_or_read(tmp_path: Path, name: str) -> None:
    """A file cut anywhere, or with bytes changed anywhere, opens or is refused; nothing else comes out."""
    path = WRITERS[name](tmp_path / name)
    sound = path.read_bytes()
    load(path)

    @settings(deadline=None, max_examples=60, database=None)
    @given(changes, keep, st.booleans())
    def damage(edits: list[tuple[float, int, bytes]], kept: float, early: bool) -> None:
        blob = bytearray(sound)
        for place, gone, come in edits:  # half of the time where headers are
            at = round(place * (min(len(blob), 1500) if early else len(blob)))
            blob[at : at + gone] = come
        path.write_bytes(blob[: round(kept * len(blob))])
        outcome = load_or_refuse(path)
        if isinstance(outcome, str):
            assert path.name in outcome
            assert "\n" not in outcome
        else:
            assert np.all(np.diff(outcome.index) > 0)

    damage()


@pytest.mark.parametrize("name", WRITERS)
def test_cut_within_the_header(tmp_path: Path, name: str) -> None:
    """A file of which only the first bytes are there is refused by name, with what to do."""
    path = WRITERS[name](tmp_path / name)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(RecordingError, match=rf"^{name}"):
        load(path)


def test_wrong_suffix(tmp_path: Path) -> None:
    """A file whose content is another format's is refused, and the message says which suffix it needs."""
    path = WRITERS["a.edf"](tmp_path / "a.bdf")
    with pytest.raises(RecordingError, match=r"a\.bdf does not begin like BDF: rename it to \.edf"):
        load(path)
    noise = tmp_path / "a.gdf"
    noise.write_bytes(bytes(1000))
    with pytest.raises(RecordingError, match="does not begin like GDF: copy or export it again"):
        load(noise)


def test_no_recording(tmp_path: Path) -> None:
    """A folder, a missing file, an empty one and a suffix nobody reads are each told apart."""
    empty, other = tmp_path / "a.edf", tmp_path / "a.mp3"
    empty.touch()
    other.write_bytes(b"ID3")
    cases = {
        tmp_path: "is a folder: name a file in it",
        tmp_path / "b.edf": "does not exist: check the path",
        empty: "is empty: nothing was recorded",
        other: r"recordings are read by suffix, one of \.edf, .*\.mp3 is not among them",
    }
    for path, reason in cases.items():
        with pytest.raises(RecordingError, match=reason):
            load(path)


def test_absurd_counts_cost_nothing(tmp_path: Path) -> None:
    """A header that claims a billion channels, events or samples is refused before they are made room for."""
    header = WRITERS["a.vhdr"](tmp_path / "a.vhdr")
    header.write_text(header.read_text().replace("Channels=2", "Channels=999999999"))
    table = gdf(tmp_path / "a.gdf")
    blob = table.read_bytes()
    at = len(blob) - 10
    table.write_bytes(blob[:at] + b"\xff\xff\xff\x7f" + blob[at + 4 :])
    loop = fif(tmp_path / "a_raw.fif")
    tags = bytearray(loop.read_bytes())
    tags[12:16] = b"\x00\x00\x00\x24"
    tags[36 + 12 : 36 + 16] = b"\x00\x00\x00\x24"  # the second tag names itself as the next
    loop.write_bytes(tags)
    text = WRITERS["a.txt"](tmp_path / "a.txt")
    lines = text.read_text().replace("channels = 2", "channels = 999999999").splitlines(keepends=True)
    text.write_text("".join(line for line in lines if not line.startswith("Sample Index")))
    for path in (header, table, loop, text):
        with pytest.raises(RecordingError, match=r"claims|does not lie|own successor|cannot lie in rows"):
            load(path)
