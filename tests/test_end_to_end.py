"""The whole way: a real recording, over a real LSL stream, through the shipped bundle, to a reader."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import parse
from engine.live import Observer, run_config
from streamer.player import Player
from streamer.sources.recording import Config as Recording
from streamer.sources.recording import RecordingSource, load
from streamer.types import Decision

BUNDLE = "motor-imagery"
# Where the boards' 16 electrodes sit.
PLACED = [
    "Fz",
    "FC3",
    "FC1",
    "FCz",
    "FC2",
    "FC4",
    "C3",
    "C1",
    "Cz",
    "C2",
    "C4",
    "CP3",
    "CPz",
    "CP4",
    "P1",
    "P2",
]
FIELDS = ("index", "probabilities", "label", "confidence", "valid")


@pytest.fixture(scope="module")
def edf(data_dir: Path) -> Path:
    """A run of imagined fist movements: 125 s, 64 channels, 160 Hz."""
    return data_dir / "originals" / "edf" / "eegmmidb_S007R04.edf"


def decode(source: dict[str, Any], *sinks: dict[str, Any]) -> tuple[list[Decision], dict[str, Any]]:
    """Run the shipped bundle on a source; return its decisions and the report."""
    heard: list[Decision] = []
    config = parse({"source": source, "bundle": BUNDLE, "sinks": list(sinks)}, "test")
    report = run_config(config, extra=Observer(heard.append))
    return heard, report


def bare(decisions: list[Decision]) -> list[tuple[Any, ...]]:
    """Return the decisions without their stamps: those depend on when the stream began."""
    return [tuple(getattr(decision, field) for field in FIELDS) for decision in decisions]


@contextmanager
def replayed(path: Path, name: str, speed: float) -> Iterator[None]:
    """Play a file over LSL from another thread."""
    with Recording(path=path).open() as source, Player(source, name=name, speed=speed) as player:
        thread = threading.Thread(target=player.run)
        thread.start()
        yield
        thread.join()


@pytest.fixture(scope="module")
def direct(edf: Path) -> list[Decision]:
    """The decisions without LSL, at full speed."""
    decisions, report = decode({"kind": "recording", "path": str(edf)})
    assert report["samples_in"] == 20000
    assert report["samples_lost"] == 0
    return decisions


@pytest.mark.parametrize("chunk", [1, 13, 20000])
def test_any_chunking_of_a_file_decides_alike(edf: Path, direct: list[Decision], chunk: int) -> None:
    """One sample at a time, odd chunks or the whole file: bit-identical decisions, stamps included."""
    decisions, _ = decode({"kind": "recording", "path": str(edf), "chunk": chunk})
    assert decisions == direct


@pytest.mark.usefixtures("lsl_session")
def test_live_over_lsl_equals_the_file(edf: Path, direct: list[Decision], tmp_path: Path) -> None:
    """Sent over LSL and decoded live, every decision is the file's, and so is what the sinks received."""
    import pylsl

    name = f"replay-{uuid.uuid4().hex[:8]}"
    out = f"decisions-{name}"
    read: list[list[float]] = []
    labels: list[str] = []
    done = threading.Event()

    def listen() -> None:
        (found,) = pylsl.resolve_byprop("name", out, timeout=20.0)
        inlet = pylsl.StreamInlet(found)
        inlet.open_stream(timeout=5.0)
        root = inlet.info(timeout=5.0).desc().child("channels").first_child()
        while not root.empty():
            labels.append(root.child_value("label"))
            root = root.next_sibling()
        while not done.is_set():
            read.extend(inlet.pull_chunk(timeout=0.2)[0])

    listener = threading.Thread(target=listen)
    listener.start()
    jsonl = tmp_path / "decisions.jsonl"
    with replayed(edf, name, speed=8.0):
        heard, report = decode(
            {"kind": "lsl", "name": name}, {"kind": "lsl", "name": out}, {"kind": "jsonl", "path": str(jsonl)}
        )
    done.set()
    listener.join()
    assert bare(heard) == bare(direct)
    assert report["samples_lost"] == report["dropped"] == report["resets"] == 0
    assert report["ended"] == "end of stream"
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert [row["index"] for row in rows if "index" in row] == [d.index for d in direct]
    column = labels.index("index")
    by_index = {int(row[column]): row[: len(direct[0].probabilities)] for row in read}
    assert len(by_index) > 0.9 * len(direct)  # the listener may join a little late
    assert all(tuple(by_index[d.index]) == d.probabilities for d in direct if d.index in by_index)


@pytest.mark.parametrize("source", ["synthetic", "playback"])
def test_boards_run_unchanged_but_for_the_source(source: str, data_dir: Path) -> None:
    """BrainFlow's synthetic board and a file on its playback board go through the same run."""
    blocks = {
        "synthetic": {"kind": "brainflow", "board": "SYNTHETIC_BOARD", "channels": PLACED},
        "playback": {
            "kind": "brainflow",
            "board": "PLAYBACK_FILE_BOARD",
            "master_board": "SYNTHETIC_BOARD",
            "file": str(data_dir / "originals" / "openbci" / "brainflow_test_data.csv"),
            "channels": PLACED,
        },
    }
    config = parse({"source": blocks[source], "bundle": BUNDLE}, "test")
    heard: list[Decision] = []
    enough = threading.Event()

    def hear(decision: Decision) -> None:
        heard.append(decision)
        if len(heard) == 10:
            enough.set()

    report = run_config(config, extra=Observer(hear), stop=enough, seconds=30.0)
    assert report["ended"] == "stopped"
    assert [d.index for d in heard[:10]] == list(range(9, 109, 10))


@pytest.mark.usefixtures("lsl_session")
def test_real_time_over_lsl_equals_the_file(edf: Path) -> None:
    """In real time, through the acquisition thread and its ring, with a hole: the file's decisions."""
    whole = load(edf)
    data, times = whole.data[:2400], whole.times[:2400].copy()
    times[1500:] += 0.5
    recording = replace(whole, data=data, times=times, breaks=(1500,), markers=())
    name = f"live-{uuid.uuid4().hex[:8]}"
    heard: list[Decision] = []
    with RecordingSource(recording) as source, Player(source, name=name) as player:
        thread = threading.Thread(target=player.run)
        thread.start()
        config = parse({"source": {"kind": "lsl", "source_id": name}, "bundle": BUNDLE}, "test")
        report = run_config(config, extra=Observer(heard.append))
        thread.join()
    again: list[Decision] = []
    config = config.model_copy(update={"source": Tape(RecordingSource(recording))})
    run_config(config, extra=Observer(again.append))
    assert report["latency_ms"]["p50"] is not None
    assert report["resets"] == 1
    assert report["samples_lost"] == 80
    assert bare(heard) == bare(again)


class Tape:
    """A source that is open already, as a config."""

    def __init__(self, source: RecordingSource) -> None:
        self._source = source

    def open(self) -> RecordingSource:
        return self._source


@pytest.mark.usefixtures("lsl_session")
def test_the_demo_decodes_its_subject() -> None:
    """Another process plays the simulated subject over LSL; every sample arrives and a cue is answered."""
    result = subprocess.run(
        [sys.executable, "-m", "engine.cli", "demo", "--seconds", "10", "--json"],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    report = json.loads(result.stdout)
    assert report["samples_in"] == 2500
    assert report["samples_lost"] == 0
    assert report["decisions"] == 160
    assert report["n_trials"] == len(report["trials"]) == 1
    assert {"accuracy", "balanced_accuracy"} <= set(report)
    assert {"p50", "p95", "p99", "max"} <= set(report["latency_ms"])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_ends_a_run_with_its_report(edf: Path, tmp_path: Path) -> None:
    """Interrupted in the middle, a run still says what it decided, in one JSON document."""
    config = tmp_path / "run.yaml"
    config.write_text(f"source: {{kind: lsl}}\nbundle: {BUNDLE}\n")
    command = [
        sys.executable,
        "-m",
        "engine.cli",
        "run",
        str(config),
        "--file",
        str(edf),
        "--speed",
        "1",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if line.startswith("delay"):
            break
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(stdout)["ended"] == "stopped"
