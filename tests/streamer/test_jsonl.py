"""What the jsonl sink does beyond the contract of sinks."""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamer.errors import ConfigError
from streamer.sinks.jsonl import Config as Jsonl
from streamer.types import Decision, DecisionInfo, StreamInfo

PATIENCE_S = 10.0
SOURCE = StreamInfo("cap", "cap-1", "EEG", 250.0, ("C3", "C4"), ("eeg", "eeg"), "uV")
LEFT = Decision(1000, 17.25, (0.7, 0.3), "left", 0.7, True)
NONE = replace(LEFT, index=1016, time=17.3, label=None)


def run_info() -> DecisionInfo:
    """Describe a run of a name that nobody else has."""
    return DecisionInfo(f"run-{uuid.uuid4().hex[:8]}", ("left", "right"), 16.0, SOURCE, {"bundle": "toy"})


def decisions(path: Path) -> list[dict[str, Any]]:
    """Return the file's lines, headers of runs aside."""
    return [row for row in map(json.loads, path.read_text().splitlines()) if "index" in row]


def test_lines_tell_classes_by_name(tmp_path: Path) -> None:
    """Each line is one object, with a probability per class name, there as soon as it is written."""
    path = tmp_path / "new folder" / "decisions.jsonl"
    with Jsonl(path=path).open(run_info()) as sink:
        sink.write(LEFT)
        assert json.loads(path.read_text().splitlines()[1]) == {
            "index": 1000,
            "time": 17.25,
            "probabilities": {"left": 0.7, "right": 0.3},
            "label": "left",
            "confidence": 0.7,
            "valid": True,
        }


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """A second run does not take away what the first one wrote."""
    path = tmp_path / "decisions.jsonl"
    for decision in (LEFT, NONE):
        with Jsonl(path=path).open(run_info()) as sink:
            sink.write(decision)
    assert [row["index"] for row in decisions(path)] == [1000, 1016]


def test_behind_half_a_line_a_new_one_begins(tmp_path: Path) -> None:
    """Who was killed while writing spoils no run after it."""
    path = tmp_path / "decisions.jsonl"
    for decision in (LEFT, NONE):
        with Jsonl(path=path).open(run_info()) as sink:
            sink.write(decision)
        path.write_bytes(path.read_bytes() + b'{"index": 1, "tim')
    lines = [line for line in path.read_text().splitlines() if line != '{"index": 1, "tim']
    assert [row.get("index") for row in map(json.loads, lines)] == [None, 1000, None, 1016]


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 samples", b"{}\n", b'{"bundle": "toy"}\n', b"\n", b"[" * 100_000], ids=range(5)
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    """A recording given as the place for decisions by mistake stays as it was."""
    path = tmp_path / "recording.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"does not begin as a file of decisions.*Choose another 'path'"):
        Jsonl(path=path).open(run_info())
    assert path.read_bytes() == content


def test_an_empty_file_is_written_to(tmp_path: Path) -> None:
    """What holds nothing is nobody's."""
    path = tmp_path / "decisions.jsonl"
    path.touch()
    with Jsonl(path=path).open(run_info()) as sink:
        sink.write(LEFT)
    assert [row["index"] for row in decisions(path)] == [1000]


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    """The file stays JSON when a probability is none."""
    path = tmp_path / "decisions.jsonl"
    with Jsonl(path=path).open(run_info()) as sink:
        sink.write(replace(LEFT, probabilities=(float("nan"), float("inf")), confidence=float("nan")))
    row = json.loads(path.read_text().splitlines()[1], parse_constant=pytest.fail)
    assert (row["probabilities"], row["confidence"]) == ({"left": None, "right": None}, None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to write to")
def test_a_full_disk_is_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The session goes on, one message says why, and every decision that is not in the file is counted."""
    with caplog.at_level(logging.ERROR):
        with Jsonl(path=Path("/dev/full")).open(run_info()) as sink:
            for _ in range(5):
                sink.write(LEFT)
            assert sink.lost == 5
        sink.close()
    assert len(caplog.messages) == 2
    assert "No space left on device" in caplog.messages[0]
    assert "5 decisions are not in /dev/full" in caplog.messages[1]


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk takes only part of a line the file ends with the line before."""
    path = tmp_path / "decisions.jsonl"
    sink = Jsonl(path=path).open(run_info())
    sink.write(LEFT)
    file = sink._file

    class HalfFull:
        """Takes ten bytes of what it is given."""

        def write(self, line: bytes) -> int:
            assert file is not None
            return file.write(line[:10])

        def __getattr__(self, name: str) -> object:
            return getattr(file, name)

    monkeypatch.setattr(sink, "_file", HalfFull())
    sink.write(NONE)
    assert [row["index"] for row in decisions(path)] == [1000]
    assert sink.lost == 1


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder in place of the file is one clear error, before the run begins."""
    with pytest.raises(ConfigError, match=r"cannot be written.*Choose another 'path'"):
        Jsonl(path=tmp_path).open(run_info())
