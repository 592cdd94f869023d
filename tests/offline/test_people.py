"""Whose recordings are: one rule for whatever learns, tests, scores or lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from offline.benchmark.people import Recordings
from offline.data.listing import recordings
from offline.data.sources import Folder, find
from offline.probe.tasks import read_sessions

Writer = Callable[..., Path]


@pytest.fixture
def flat(tmp_path: Path, run_writer: Writer) -> Folder:
    """Two files of Anna's and one of Bert's in one folder, and one that does not say whose it is."""
    for seed, (name, subject) in enumerate(
        {"S001R04": "anna", "S001R08": "anna", "S002R04": "bert", "x": ""}.items()
    ):
        path = run_writer(tmp_path / "flat" / f"{name}.npz", seed=seed, n_trials=1)
        with np.load(path) as file:
            content = dict(file)
        np.savez(path, **content | {"meta": json.dumps({"subject": subject, "task": "imagery"})})
    return Folder(path=tmp_path / "flat")


def test_a_file_is_of_whom_it_says_whoever_reads_it(flat: Folder) -> None:
    """Else a person whose files lie in one folder would be learned from and tested at once."""
    whose = {"anna": ["S001R04", "S001R08"], "bert": ["S002R04"], "x": ["x"]}
    found = Recordings(flat, "EEG")
    assert {name: [one.name for one in found.sessions(name)] for name in found.names} == whose
    assert [one.subject for one in read_sessions(flat, ["anna"], "EEG")] == ["anna", "anna"]
    assert [row["subject"] for row in recordings(flat)[0]] == ["anna", "anna", "bert", "x"]


def test_a_prefix_and_a_choice_go_by_that_name(flat: Folder) -> None:
    """A pattern is the user's own word and stands above it."""
    some = flat.model_copy(update={"prefix": "a-", "exclude": ("a-x",)})
    assert [one.name for one in find([some], [])] == ["a-anna", "a-bert"]
    by_pattern = flat.model_copy(update={"subject": r"S\d+"})
    assert [one.name for one in find([by_pattern], [])] == ["S001", "S002"]


def test_who_is_called_zero_is_somebody(tmp_path: Path) -> None:
    """A number is a name, zero too: else the files of the first of a numbered set were a person each."""
    for name, subject in {"a": 0, "b": 0, "c": 1}.items():
        np.savez(tmp_path / f"{name}.npz", meta=json.dumps({"subject": subject}))
    whose = {one.name: [path.stem for path in one.files] for one in find([Folder(path=tmp_path)], [])}
    assert whose == {"0": ["a", "b"], "1": ["c"]}
