"""`bcitrain data list`: what a folder of recordings holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import spoil, write_muse, write_openbci, write_rows
from typer.testing import CliRunner

from offline.cli import app
from offline.data.fingerprint import fingerprint, fingerprint_of_file

RUN = "A1/A1R1.npz"


def listed(*words: str | Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["data", "list", *map(str, words), "--json"])
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_a_row_says_what_a_recording_is(corpus_dir: Path) -> None:
    """Whose, how long, at which rate, which channels and how often which marker."""
    rows = listed(corpus_dir)["recordings"]
    assert [row["recording"] for row in rows[:3]] == ["A1R1", "A1R2", "A2R1"]
    with np.load(corpus_dir / RUN) as file:
        stored, events = file["data"], file["events"]
        codes = json.loads(str(file["event_codes"]))
    markers = {codes[str(code)]: int((events[:, 2] == code).sum()) for code in set(events[:, 2].tolist())}
    assert rows[0] == {
        "subject": "A1",
        "recording": "A1R1",
        "seconds": round(stored.shape[1] / 160, 1),
        "sfreq": 160.0,
        "unit": "uV",
        "channels": {"eeg": len(stored)},
        "holes": 0,
        "markers": dict(sorted(markers.items())),
        "fingerprint": fingerprint(stored),
    }


def test_a_damaged_name_stops_nothing(corpus_dir: Path, tmp_path: Path) -> None:
    """Of a file whose compressed text no longer unpacks the others are listed all the same."""
    shutil.copy(corpus_dir / RUN, tmp_path / "good.npz")
    with np.load(corpus_dir / RUN) as file:
        np.savez_compressed(tmp_path / "bad.npz", **file)
    spoil(tmp_path / "bad.npz", "meta.npy")
    document = listed(tmp_path)
    assert [row["recording"] for row in document["recordings"] if "seconds" in row] == ["good"]
    assert "bad" in json.dumps(document)


def test_every_format_is_listed_and_what_cannot_be_read_is_told(corpus_dir: Path, tmp_path: Path) -> None:
    """Beside npz whatever MNE or pyxdf read; one damaged file stops nothing."""
    mne = pytest.importorskip("mne")
    shutil.copy(corpus_dir / RUN, tmp_path / "good.npz")
    (tmp_path / "cut.npz").write_bytes((corpus_dir / RUN).read_bytes()[:2000])
    info = mne.create_info(["C3", "C4"], 100.0, "eeg")
    raw = mne.io.RawArray(np.zeros((2, 300)), info, verbose="error")
    raw.set_annotations(mne.Annotations([1.0], [0.5], ["left"]))
    raw.save(tmp_path / "other_raw.fif", verbose="error")
    document = listed(tmp_path)
    found = {row["recording"]: row for row in document["recordings"]}
    assert set(found) == {"good", "other_raw"}
    assert found["other_raw"]["markers"] == {"left": 1}
    ((one,),) = [document["unreadable"]]
    assert one["recording"] == "cut/cut"
    assert "cut.npz" in one["why"]


def test_text_of_recorders_is_listed_and_other_text_is_not(tmp_path: Path) -> None:
    """Files of the OpenBCI GUI, of muse-lsl and of BrainFlow; no notes, no tables, no matrices."""
    counts = np.arange(500)
    (tmp_path / "s").mkdir()
    write_openbci(tmp_path / "gui.txt", counts, np.zeros((500, 8)), None, old=False)
    write_openbci(tmp_path / "s" / "OpenBCI-RAW-1.txt", counts, np.zeros((500, 8)), None, old=False)
    stamps = counts / 256
    write_muse(tmp_path / "muse.csv", stamps, np.ones((500, 5)), 0 * counts)
    rows = np.column_stack([counts, np.zeros((500, 4)), 1.7e9 + stamps, np.zeros(500)])
    write_rows(tmp_path / "rows.csv", rows)
    write_rows(tmp_path / "s" / "BrainFlow-RAW_1_0.csv", rows)  # the same session once more
    write_rows(tmp_path / "matrix.csv", rows[:, [0, 1, 2, 3, 4, 6]])
    write_rows(tmp_path / "ACC.csv", rows[:, [5, 5, 5]])  # of a wristband: when it began, then numbers
    (tmp_path / "events.csv").write_text("timestamps,condition\n1544027337.0,left\n")
    (tmp_path / "README.txt").write_text("What this is.\n")
    (tmp_path / "participants.csv").write_text("subject,age\nS1,30\n")
    (tmp_path / "empty.txt").write_text("")
    document = listed(tmp_path)
    assert {row["recording"] for row in document["recordings"]} == {"gui", "muse", "OpenBCI-RAW-1"}
    (one,) = document["unreadable"]
    assert one["recording"] == "rows/rows"  # that its board is not told is said, not passed over


def test_options_of_the_folder_hold(corpus_dir: Path) -> None:
    """The rows are what `evaluate` with the same options would see."""
    (row,) = listed(corpus_dir, "--subject-pattern", "(A1)/A1R1", "--labels", "left_fist=left")["recordings"]
    assert "left" in row["markers"]
    assert "left_fist" not in row["markers"]


def test_a_table_for_people(corpus_dir: Path) -> None:
    """Without --json a table, with the commonest markers."""
    result = CliRunner().invoke(app, ["data", "list", str(corpus_dir)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "A3R2" in result.stdout
    assert "rest" in result.stdout


def test_a_fingerprint_is_of_the_samples_alone(run_writer: Callable[..., Path], tmp_path: Path) -> None:
    """Renaming a subject keeps the fingerprint; other samples have another."""
    path = run_writer(tmp_path / "s1" / "a.npz", seed=1)
    (tmp_path / "x9").mkdir()
    copy = shutil.copy(path, tmp_path / "x9" / "b.npz")
    other = run_writer(tmp_path / "s2" / "a.npz", seed=2)
    assert fingerprint_of_file(path) == fingerprint_of_file(Path(copy))
    assert fingerprint_of_file(path) != fingerprint_of_file(other)
    assert len(fingerprint_of_file(path)) == 16
