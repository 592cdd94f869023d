"""Every backend in `engine.backends` runs these, by existing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_bundle import KEEP, toy_graph, toy_manifest, weights, write_bundle

from engine.backends import Buffers
from engine.bundle import Bundle, load
from streamer.components import modules

KINDS = sorted(modules("engine.backends"))
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    graph = toy_graph()
    return load(write_bundle(tmp_path_factory.mktemp("backend"), toy_manifest(graph), graph))


def fresh(bundle: Bundle) -> Buffers:
    graph = bundle.manifest.graph
    return Buffers(
        np.zeros(graph.input.shape, dtype=np.float32),
        {s.input: np.zeros(s.shape, dtype=s.dtype) for s in graph.state},
        {t.name: np.zeros(t.shape, dtype=t.dtype) for t in graph.outputs},
        {s.output: np.zeros(s.shape, dtype=s.dtype) for s in graph.state},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_reference_on_values_and_state(kind: str, bundle: Bundle) -> None:
    """Twenty steps give what the same arithmetic gives in NumPy, outputs and final state."""
    rng = np.random.default_rng(0)
    expected = np.zeros(3)
    with modules("engine.backends")[kind].Config(kind=kind).open(bundle) as backend:
        buffers = fresh(bundle)
        step = backend.bind(buffers)
        for _ in range(20):
            buffers.input[:] = rng.normal(size=buffers.input.shape)
            expected = KEEP * expected + buffers.input[0].mean(axis=1, dtype=np.float64) @ weights()
            step()
            np.testing.assert_allclose(buffers.outputs["logits"][0, 0], expected, atol=TOLERANCE)
            buffers.state_in["state_0"][:] = buffers.state_out["state_0_out"]
        np.testing.assert_allclose(buffers.state_in["state_0"][0], expected, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_holds_no_state(kind: str, bundle: Bundle) -> None:
    """The same buffers give the same outputs, bit for bit, and the inputs are not written to."""
    with modules("engine.backends")[kind].Config(kind=kind).open(bundle) as backend:
        buffers = fresh(bundle)
        buffers.input[:] = 1.5
        buffers.state_in["state_0"][:] = 0.5
        step = backend.bind(buffers)
        step()
        first = buffers.outputs["logits"].copy()
        step()
        assert np.array_equal(buffers.outputs["logits"], first)
        assert (buffers.input == 1.5).all()
        assert (buffers.state_in["state_0"] == 0.5).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("input", np.zeros((1, 8, 11), dtype=np.float32), "'x'"),
        ("input", np.zeros((1, 8, 10)), "float64"),
        ("input", np.zeros((1, 10, 8), dtype=np.float32).transpose(0, 2, 1), "contiguous"),
        ("state_in", {}, "no buffer for 'state_0'"),
        ("outputs", {"logits": np.zeros((1, 3), dtype=np.float32)}, "'logits'"),
    ],
)
def test_wrong_buffers_are_rejected(kind: str, bundle: Bundle, field: str, value: object, said: str) -> None:
    """A buffer that is missing, misshapen, of another dtype or not contiguous is refused by name."""
    with (
        modules("engine.backends")[kind].Config(kind=kind).open(bundle) as backend,
        pytest.raises(ValueError, match=said),
    ):
        backend.bind(replace(fresh(bundle), **{field: value}))


@pytest.mark.parametrize("kind", KINDS)
def test_close_twice(kind: str, bundle: Bundle) -> None:
    """Closing a closed backend does nothing."""
    backend = modules("engine.backends")[kind].Config(kind=kind).open(bundle)
    backend.close()
    backend.close()
