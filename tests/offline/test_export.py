"""Export: what is written is what was trained, or nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from engine.bundle import load  # noqa: E402
from offline import export_graph as exporting  # noqa: E402
from offline.export import describe, export, load_model, real_probe, step_graph  # noqa: E402
from streamer.errors import BundleError, ConfigError  # noqa: E402


class Forgetful(torch.nn.Module):
    """Gives back the state it was given: what a model does whose author forgot to carry it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.hop = model, model.hop
        self.left_context, self.delay = model.left_context, model.delay

    def init_state(self, batch: int) -> Any:
        return self.model.init_state(batch)

    def forward(self, x: Any, state: Any) -> Any:
        outputs, _ = self.model(x, state)
        return outputs, torch.utils._pytree.tree_map(lambda leaf: leaf + 0.0, state)


def test_the_bundle_carries_the_contract(tiny_run: Any, tiny_bundle: Any) -> None:
    """The bundle that was written reads back with the recipe's channels, DSP with its prior, and hashes."""
    manifest = load(tiny_bundle.folder).manifest
    assert manifest.input.ch_names == tiny_run.recipe.ch_names
    assert manifest.input.dsp == tiny_run.dsp
    assert manifest.readout.temperature == tiny_run.temperature
    assert manifest.graph.left_context == load_model(tiny_run).left_context
    assert manifest.provenance["fingerprints"] == json.loads(json.dumps(tiny_run.fingerprints))
    assert set(manifest.files) == {"step.onnx", "MODEL_CARD.md"}


def test_nothing_of_this_machine_is_in_the_bundle(tiny_bundle: Any, tmp_path: Path) -> None:
    """Neither the graph nor the manifest names a folder of the machine that exported."""
    for name in ("step.onnx", "bundle.json"):
        content = (tiny_bundle.folder / name).read_bytes()
        assert str(Path(exporting.__file__).parent).encode() not in content
        assert str(tmp_path.parent).encode() not in content


def test_a_model_that_does_not_carry_its_state_is_refused(tiny_run: Any) -> None:
    """Export refuses a graph whose stepped outputs are not the model's, and says by how much."""
    model = load_model(tiny_run)
    broken = Forgetful(model).eval()
    content, graph = step_graph(broken, 9), describe(broken, 9)
    with pytest.raises(BundleError, match="Export refused: logits"):
        exporting.check_parity(model, content, graph, [exporting.noise(model, 9)])


def test_a_refused_export_writes_nothing(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When parity fails, no bundle is left behind."""
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(BundleError, match="refused"):
        export(tiny_run, tmp_path / "bundle", probe=real_probe(tiny_run))
    assert not (tmp_path / "bundle").exists()


def test_weights_that_do_not_fit_are_refused(tiny_run: Any, tmp_path: Path) -> None:
    """Missing weights are a ConfigError, not a traceback."""
    recipe = tiny_run.recipe.model_copy(update={"output": tmp_path})
    with pytest.raises(ConfigError, match="cannot be used"):
        load_model(tiny_run.model_copy(update={"recipe": recipe}))
