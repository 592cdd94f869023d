"""A bundle in int8 is kept where it says the same, and refused in words where it does not or must not."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from toy_bundle import toy_graph, toy_manifest, write_bundle
from toy_codec import write_tokenizer

from engine import quantise as quantising
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, load
from engine.quantise import quantise
from engine.runner import Runner
from streamer.errors import BundleError, ConfigError, MissingDependency


def latents(bundle: Bundle, hops: np.ndarray) -> np.ndarray:
    with OnnxRuntime().open(bundle) as backend:
        runner = Runner(backend)
        rows = []
        for hop in hops:
            runner.input[:] = hop
            rows.append(runner.step()["latent"].copy())
    return np.array(rows)


def test_a_transformer_in_int8_is_a_bundle_that_says_the_same(tmp_path: Path) -> None:
    """It loads, is a third of the size, keeps its contract, and is as near as its provenance says."""
    figures = quantise("neuro2vec-sleep", tmp_path)
    before, after = load("neuro2vec-sleep"), load(tmp_path)
    assert after.manifest.input == before.manifest.input
    assert after.manifest.provenance["int8"]["error"] == figures["error"]
    assert len(after.graph_bytes) < len(before.graph_bytes) / 3
    hops = np.random.default_rng(5).normal(0, 20, (300, *before.manifest.graph.input.shape))
    wanted, found = (latents(bundle, hops.astype(np.float32)) for bundle in (before, after))
    error = math.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean())
    assert 0 < error == pytest.approx(figures["error"]["latent"], rel=0.5)
    assert "In int8" in (tmp_path / "MODEL_CARD.md").read_text()


def test_the_int8_form_takes_one_stream(toy_rows: Bundle, tmp_path: Path) -> None:
    """Its activations are rounded by the range of all rows, so that rows would not be independent."""
    figures = quantise(toy_rows, tmp_path)
    assert figures["agreement"] > 0.98
    assert load(tmp_path).manifest.graph.rows == "one"
    with OnnxRuntime().open(load(tmp_path)) as backend:
        assert backend.graph.input.shape == (1, 8, 10)


@pytest.mark.parametrize(
    ("bound", "value", "said"),
    [
        ("MAX_ERROR", 1e-9, "logits is off by"),
        ("MIN_AGREEMENT", 1.1, "the most probable class is the same at"),
    ],
)
def test_one_that_says_something_else_is_not_written(
    toy_rows: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: float, said: str
) -> None:
    """The gate refuses by the figure that is too far off."""
    monkeypatch.setattr(quantising, bound, value)
    with pytest.raises(BundleError, match=said):
        quantise(toy_rows, tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


def test_what_int8_does_not_suit_is_refused(tmp_path: Path) -> None:
    """A codec, whose codes must not move, and a net of convolutions, which would not be faster."""
    with pytest.raises(BundleError, match="is a codec"):
        quantise(write_tokenizer(tmp_path / "codec"), tmp_path / "int8")
    with pytest.raises(BundleError, match="of its weights in matrix products"):
        quantise("motor-imagery", tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


def test_a_bundle_is_not_written_over_itself(toy_folder: Path) -> None:
    """The float32 form stays."""
    with pytest.raises(ConfigError, match="is the bundle itself"):
        quantise(toy_folder, toy_folder)


def test_no_other_bundle_is_written_over(toy_rows: Bundle, toy_folder: Path, tmp_path: Path) -> None:
    """Nor the same one in float32, nor somebody's files; its own int8 form may be made again."""
    graph, work = toy_graph(), tmp_path / "work"
    other = write_bundle(tmp_path / "other", toy_manifest(graph) | {"name": "other"}, graph)
    same = shutil.copytree(toy_folder, tmp_path / "same")
    work.mkdir()
    (work / "notes.txt").write_text("mine")
    for folder, said in ((other, "holds bundle other"), (same, "in float32"), (work, "holds no bundle but")):
        with pytest.raises(ConfigError, match=said):
            quantise(toy_rows, folder)
    assert load(other).manifest.name == "other"
    assert load(same).manifest == load(toy_folder).manifest
    for _ in range(2):
        quantise(toy_rows, tmp_path / "int8")
    assert load(tmp_path / "int8").manifest.provenance["precision"] == "int8"


def test_without_onnx_it_says_what_to_install(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine runs without that package; rewriting a graph does not."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependency, match="pip install onnx"):
        quantise(toy_folder, tmp_path / "int8")


def test_a_recording_is_a_probe(toy_rows: Bundle, tmp_path: Path) -> None:
    """It is compared over as many hops as the recording has, and named in the provenance."""
    from toy_bundle import CHANNELS

    path = tmp_path / "me.npz"
    data = np.random.default_rng(0).normal(0, 20, (1605, 8)).astype(np.float32)
    np.savez(path, data=data.T, sfreq=160.0, ch_names=list(CHANNELS), units="uV")
    figures = quantise(toy_rows, tmp_path / "int8", probe=path)
    assert (figures["probe"], figures["hops"]) == ("me.npz", 160)
