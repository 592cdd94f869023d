"""What a bundle's decision stage is fitted on, beside how: `test_operating_fit`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_files import Killed, half_written
from toy_bundle import CHANNELS, toy_graph, toy_manifest, write_bundle
from typer.testing import CliRunner

from engine.bundle import load
from offline import operate as operating
from offline.cli import app
from offline.evaluate.recordings import find_people, openers, task_of
from offline.operate import _unknown_to, _with_temperature, operate, silent
from streamer.errors import ConfigError, RecordingError


def test_a_recording_trained_on_is_left_out_whatever_it_is_called(
    tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    """Rates are measured on people whom the weights are not of, on those that validated, too, or nobody."""
    graph, data = toy_graph(), tmp_path / "data"
    plain = write_bundle(tmp_path / "toy", toy_manifest(graph), graph)
    for seed, name in enumerate(("P1", "P2", "P3")):
        run_writer(data / name / "one.npz", seed=seed, channels=CHANNELS)
    task = task_of(load(plain), data)
    known = {one.name: read().fingerprint for one in find_people(task) for _, read in openers(task, one)}
    shutil.move(data / "P2", data / "Z")
    told = {"provenance": {"fingerprints": {"train": [known["P2"]], "validate": [known["P3"]]}}}
    folder = write_bundle(tmp_path / "trained", toy_manifest(graph) | told, graph)
    new = operate(folder, data, tmp_path / "new")
    assert new.manifest.provenance["operating"]["subjects"] == ["P1", "P3"]
    assert {point.people for point in new.readout.operating} == {2}
    with pytest.raises(RecordingError, match="had a part"):
        operate(folder, data, tmp_path / "none", ["Z"])


def test_who_a_bundle_was_made_for_is_not_measured_on(
    tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    """Any part in the weights counts, a person's own and a backbone's too; to have validated them is none."""
    graph, data = toy_graph(), tmp_path / "data"
    for seed, name in enumerate(("P1", "P2", "P3")):
        run_writer(data / name / "one.npz", seed=seed, channels=CHANNELS)
    plain = load(write_bundle(tmp_path / "toy", toy_manifest(graph), graph))
    task = task_of(plain, data)
    known = [read().fingerprint for one in find_people(task) for _, read in openers(task, one)]
    parts = dict(zip(("personal", "backbone_train", "validate"), ([one] for one in known), strict=True))
    told = {"provenance": {"fingerprints": {"train": []} | parts}}
    folder = write_bundle(tmp_path / "own", toy_manifest(graph) | told, graph)
    about = operate(folder, data, tmp_path / "new").manifest.provenance["operating"]
    assert about["subjects"] == ["P3"]


def test_a_net_is_asked_of_whom_it_does_not_know_at_the_temperature_that_is_taken_over(
    tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    """Neither of whom it learned from, nor of whom it was chosen by; nobody of two nets."""
    graph, data = toy_graph(), tmp_path / "data"
    bundle = load(write_bundle(tmp_path / "toy", toy_manifest(graph), graph))
    for seed, name in enumerate(("P1", "P2", "P3", "P4")):
        run_writer(data / name / "one.npz", seed=seed, channels=CHANNELS)
    task = task_of(bundle, data)
    known = {one.name: read().fingerprint for one in find_people(task) for _, read in openers(task, one)}
    folders = []
    for train, validate in (("P1", "P2"), ("P3", "P1")):
        manifest = toy_manifest(graph)
        manifest["provenance"] = {"fingerprints": {"train": [known[train]], "validate": [known[validate]]}}
        manifest["readout"]["temperature"] = 7.0
        folders.append(write_bundle(tmp_path / train / "bundle", manifest, graph))
    bundle = _with_temperature(bundle, 1.5)
    asked = list(_unknown_to(folders, bundle, data, None, silent))
    assert [[one.subject for one in sessions] for _, sessions in asked] == [["P3", "P4"], ["P2"]]
    assert [net.readout.temperature for net, _ in asked] == [1.5, 1.5]


@pytest.fixture
def toy(tmp_path: Path, run_writer: Callable[..., Path]) -> Path:
    """A bundle with a training in it, beside somebody's recording."""
    graph = toy_graph()
    run_writer(tmp_path / "data" / "P1" / "one.npz", seed=1, channels=CHANNELS)
    folder = write_bundle(tmp_path / "toy", toy_manifest(graph), graph)
    (folder / "training").mkdir()
    (folder / "training" / "weights.safetensors").write_bytes(b"its own")
    return folder


def test_the_training_comes_along(toy: Path, tmp_path: Path) -> None:
    """What could be made somebody's own still can; of a bundle without a training none is left behind."""
    kept = tmp_path / "new" / "training" / "weights.safetensors"
    for old in (b"", b"of another run"):
        if old:
            kept.write_bytes(old)
            (kept.parent / "more").write_bytes(old)
        operate(toy, tmp_path / "data", tmp_path / "new")
        assert [path.name for path in kept.parent.iterdir()] == [kept.name]
        assert kept.read_bytes() == b"its own"
    operate(toy, tmp_path / "data", toy)
    assert (toy / "training" / "weights.safetensors").read_bytes() == b"its own"
    shutil.rmtree(toy / "training")
    operate(toy, tmp_path / "data", tmp_path / "new")
    assert not kept.parent.exists()


def test_where_it_cannot_go_is_said_before_anything_is_played(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another bundle's folder, and a file."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("played")

    monkeypatch.setattr(operating, "play", refuse)
    monkeypatch.setattr(operating, "read_played", refuse)
    other = write_bundle(tmp_path / "other", toy_manifest(toy_graph()) | {"name": "other"}, toy_graph())
    (tmp_path / "file").write_text("mine")
    for where, said in ((other, "holds bundle other: name another"), (tmp_path / "file", "can be written")):
        for work in (operate, operating.operate_played):
            with pytest.raises(ConfigError, match=said):
                work(toy, tmp_path / "data", where)
    assert load(other).manifest.name == "other"


def test_who_may_be_measured_on_is_said(toy: Path, tmp_path: Path) -> None:
    """Those that validated a bundle are no strangers to it, and no help or result calls them so."""
    runner = CliRunner()
    shown = " ".join(runner.invoke(app, ["operate", "--help"], env={"COLUMNS": "200"}).output.split())
    assert "was not trained on" in shown
    assert "that validated it may be among them" in shown
    assert "does not know" not in shown
    about = operate(toy, tmp_path / "data", tmp_path / "new").manifest.provenance["operating"]
    assert about["people"] == "not trained on; those that validated the bundle may be among them"
    assert about["recordings_left_out"] == 0


def test_interrupted_while_writing_it_leaves_the_old_bundle(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over itself, too; and what stays the same is not written at all."""
    stamp = (toy / "step.onnx").stat().st_mtime_ns
    before = {path.name: path.read_bytes() for path in toy.iterdir() if path.is_file()}
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", half_written)
        with pytest.raises(Killed):
            operate(toy, tmp_path / "data", toy)
    assert {path.name: path.read_bytes() for path in toy.iterdir() if path.is_file()} == before
    assert operate(toy, tmp_path / "data", toy).readout.operating
    assert (toy / "step.onnx").stat().st_mtime_ns == stamp


def test_how_a_folder_is_read_goes_with_a_folder(toy: Path, tmp_path: Path) -> None:
    """New names without recordings to read are refused."""
    words = ["operate", str(toy), "--played", str(tmp_path), "-o", str(tmp_path / "new")]
    done = CliRunner().invoke(app, [*words, "--labels", "T1=left_fist"])
    assert done.exit_code == 2
    assert "give --data" in done.output
