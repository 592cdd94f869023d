"""A pretrained transformer's backbone, exported and made int8, gives the latents of its float32 form."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from engine.quantise import quantise  # noqa: E402
from offline.export import write  # noqa: E402
from offline.export_graph import export_step  # noqa: E402
from offline.models import brainrvq  # noqa: E402

NAMES = ("C3", "Cz", "C4", "Pz")


def test_a_backbone_with_random_weights_passes_the_gate(tmp_path: Path) -> None:
    """Its latents move by a few percent of their size at most, and its file is much smaller."""
    torch.manual_seed(0)
    settings = brainrvq.SMALL.model_dump() | {"ch_names": NAMES, "dim": 64, "layers": 4, "heads": 4}
    model = brainrvq.Config.model_validate(settings).build().eval()
    content, graph = export_step(model, len(NAMES))
    manifest = {
        "name": "backbone",
        "version": "1",
        "title": "a random backbone",
        "system": "brainrvq",
        "input": {"stype": "EEG", "sfreq": 200.0, "unit": "uV", "ch_names": NAMES},
        "graph": graph.model_dump(mode="json"),
        "features": {"latent": "latent"},
    }
    figures = quantise(write(manifest, content, tmp_path / "float32"), tmp_path / "int8")
    assert 0 < figures["error"]["latent"] < 0.05
    before, after = figures["bytes"]
    assert after < before / 2
