"""A net on whole windows takes any number of streams, a row each; no braindecode, whose nets it is for."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from engine.manifest import FREE_ROWS  # noqa: E402
from offline.export_graph import check_parity, export_step, probes  # noqa: E402
from offline.models.windowed import SMALL  # noqa: E402


def normalised(_: Any) -> Any:
    """Return a net with a norm over groups, as CBraMod has: the shape behind it follows from its input's."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv1d(SMALL.n_chans, 4, 16, stride=8), torch.nn.GroupNorm(2, 4), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(28, SMALL.n_classes))


def test_rows_are_free_and_shapes_known_whatever_the_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph's rows are free, and once settled the runtime knows the shape of every output."""
    monkeypatch.setattr("offline.braindecode_nets.build", normalised)
    model = SMALL.build().eval()
    content, graph = export_step(model, SMALL.n_chans)
    assert graph.rows == "free"
    check_parity(model, content, graph, probes(model, SMALL.n_chans, graph))
    for rows in (1, 3):
        options = ort.SessionOptions()
        options.add_free_dimension_override_by_name(FREE_ROWS, rows)
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = {node.name: tuple(node.shape) for node in session.get_outputs()}
        assert found["logits"] == (rows, 1, SMALL.n_classes)
        assert all(isinstance(size, int) for shape in found.values() for size in shape)
