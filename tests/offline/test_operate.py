"""What a bundle's decision stage is fitted on, beside how: `test_operating_fit`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_bundle import CHANNELS, toy_graph, toy_manifest, write_bundle

from engine.bundle import load
from offline.evaluate.recordings import find_people, openers, task_of
from offline.operate import operate
from streamer.errors import RecordingError


def test_a_recording_trained_on_is_left_out_whatever_it_is_called(
    tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    """Rates are measured on people whom the weights are not of; where all are known, on nobody."""
    graph, data = toy_graph(), tmp_path / "data"
    plain = write_bundle(tmp_path / "toy", toy_manifest(graph), graph)
    for seed, name in enumerate(("P1", "P2", "P3")):
        run_writer(data / name / "one.npz", seed=seed, channels=CHANNELS)
    task = task_of(load(plain), data)
    known = {one.name: read().fingerprint for one in find_people(task) for _, read in openers(task, one)}
    shutil.move(data / "P2", data / "Z")
    told = {"provenance": {"fingerprints": {"train": [known["P2"]]}}}
    folder = write_bundle(tmp_path / "trained", toy_manifest(graph) | told, graph)
    new = operate(folder, data, tmp_path / "new")
    assert new.manifest.provenance["operating"]["subjects"] == ["P1", "P3"]
    assert {point.people for point in new.readout.operating} == {2}
    with pytest.raises(RecordingError, match="had a part"):
        operate(folder, data, tmp_path / "none", ["Z"])
