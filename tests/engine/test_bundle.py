"""A bundle is read whole or refused in words."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, digest, load, shipped
from streamer.errors import BundleError


def test_loads_what_was_written(toy: Bundle) -> None:
    """A sound bundle gives its manifest and exactly the bytes that were hashed."""
    assert toy.manifest.name == "toy"
    assert toy.graph_bytes == (toy.folder / "step.onnx").read_bytes()


def test_every_shipped_bundle_loads_and_has_a_card() -> None:
    """What is in the wheel loads by name, compiles, and says what it is."""
    for name in shipped():
        bundle = load(name)
        with OnnxRuntime().open(bundle):
            assert "MODEL_CARD.md" in bundle.manifest.files


def test_shipped_bundles_stay_small() -> None:
    """All bundles together stay under 15 MB."""
    sizes = [file.stat().st_size for folder in shipped().values() for file in folder.iterdir()]
    assert sum(sizes) < 15e6


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", 2, "format 2"),
        ("input.sfreq", -1, "input.sfreq"),
        ("input.sfreq", "fast", "input.sfreq"),
        ("graph.hop", 20, "channels and hop say"),
        ("readout.idle", "asleep", "idle class 'asleep'"),
        ("readout.classes", ["left", "right"], "2 classes, but the logits have 3"),
        ("readout.logits", "y", "readout.logits 'y'"),
        ("files", {}, "has no hash"),
        ("files", {"../../etc/passwd": "0" * 64}, "plain name"),
        ("graph.file", "/etc/passwd", "plain name"),
        ("surprise", 1, "unknown key 'surprise'"),
        ("input.dsp", [{"kind": "laser"}], "laser"),
    ],
)
def test_a_wrong_manifest_is_refused(toy_writer, path: str, value: object, said: str) -> None:
    """Each fault of a manifest is named in the message."""
    with pytest.raises(BundleError, match=said.replace("(", r"\(")):
        load(toy_writer(**{path: value}))


def test_all_faults_at_once(toy_writer) -> None:
    """Two faults give two lines."""
    with pytest.raises(BundleError) as error:
        load(toy_writer(**{"input.sfreq": -1, "graph.hop": 0}))
    assert "input.sfreq" in str(error.value)
    assert "graph.hop" in str(error.value)


def test_a_truncated_graph_is_refused(toy_writer) -> None:
    """A graph cut short does not reach the backend."""
    folder = toy_writer()
    whole = (folder / "step.onnx").read_bytes()
    (folder / "step.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match="not what its manifest says"):
        load(folder)


def test_a_missing_graph_is_refused(toy_writer) -> None:
    """A file that the manifest lists must be there."""
    folder = toy_writer()
    (folder / "step.onnx").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        load(folder)


def test_an_unknown_name_lists_the_choices() -> None:
    """A misspelt shipped name says which ones there are."""
    with pytest.raises(BundleError, match="No bundle 'motor-imagry'"):
        load("motor-imagry")


def test_a_graph_that_is_not_the_manifests_is_refused(toy_writer) -> None:
    """The backend compares the compiled graph's tensors with the manifest's."""
    folder = toy_writer(**{"graph.state": [{"input": "s", "output": "t", "shape": [1, 3]}]})
    with pytest.raises(BundleError, match="not the manifest's"):
        OnnxRuntime().open(load(folder))


def test_a_graph_that_is_no_onnx_is_refused(toy_writer) -> None:
    """Correct hashes over nonsense still end in one message."""
    with pytest.raises(BundleError, match="cannot load"):
        OnnxRuntime().open(load(toy_writer(graph=b"not a graph")))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mutation_is_refused_or_harmless(toy_folder: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever byte of whatever file changes or goes missing: a BundleError, or a sound bundle."""
    folder = tmp_path / "mutated"
    shutil.copytree(toy_folder, folder, dirs_exist_ok=True)
    path = folder / data.draw(st.sampled_from(["bundle.json", "step.onnx"]))
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[start:]
    else:
        content[start : start + 4] = data.draw(st.binary(min_size=1, max_size=4))
    path.write_bytes(bytes(content))
    with contextlib.suppress(BundleError):
        bundle = load(folder)
        assert digest(bundle.graph_bytes) == bundle.manifest.files["step.onnx"]


def test_a_graph_of_one_row_takes_one_stream(toy: Bundle) -> None:
    """More are refused in words; one is what it takes anyway."""
    assert toy.batched(1).manifest.graph == toy.manifest.graph
    with pytest.raises(BundleError, match="takes one stream at a time; 3 were asked of it"):
        toy.batched(3)


def test_a_graph_of_free_rows_takes_many_streams(toy_rows: Bundle) -> None:
    """Every tensor has a row for each, and the backend takes them; not more than there is room for."""
    graph = toy_rows.batched(5).manifest.graph
    assert [t.shape for t in (graph.input, *graph.outputs, *graph.state)] == [(5, 8, 10), (5, 1, 3), (5, 3)]
    with OnnxRuntime().open(toy_rows.batched(5)) as backend:
        assert backend.graph == graph
    with pytest.raises(ValueError, match="1 to 1024 streams"):
        toy_rows.batched(1025)
