"""Channels as places: coordinates, their embedding, merging and spreading."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from offline.blocks.electrodes import ElectrodeEmbedding, Merge, Spread, coordinates  # noqa: E402


@pytest.fixture
def embedding() -> Any:
    """A fresh embedding, 16 wide."""
    torch.manual_seed(0)
    return ElectrodeEmbedding(16).eval()


def embed(embedding: Any, names: list[str]) -> Any:
    with torch.inference_mode():
        return embedding(torch.from_numpy(coordinates(names, "EEG")))


def test_eeg_names_and_aliases_lie_on_the_head() -> None:
    """Names of the 10-05 system give unit vectors, right is x, and an alias is the same place."""
    places = coordinates(["C4", "EEG Fp1-Ref", "Fp1", "T3", "T7"], "EEG")
    assert places.dtype == np.float32
    assert np.allclose(np.linalg.norm(places, axis=1), 1.0, atol=1e-5)
    assert places[0, 0] > 0.5
    assert np.array_equal(places[1], places[2])
    assert np.array_equal(places[3], places[4])


def test_unknown_and_bipolar_names_do_not_become_an_electrode(embedding: Any) -> None:
    """A derivation is not its first electrode, and a name never heard of is no electrode at all."""
    names = ["Fp1", "Fp1-F7", "T1-Weird", "AUX", "Fp1-F3"]
    places = coordinates(names, "EEG")
    assert np.isnan(places[1:]).all()
    vectors = embed(embedding, names)
    assert all(torch.equal(vector, embedding.unknown) for vector in vectors[1:])
    assert not torch.allclose(vectors[0], embedding.unknown, atol=1e-2)


def test_a_montage_of_any_size_has_a_vector_of_its_own_per_electrode(embedding: Any) -> None:
    """More channels than any table holds: 300 places give 300 different finite vectors."""
    rng = np.random.default_rng(0)
    places = rng.standard_normal((300, 3))
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    with torch.inference_mode():
        vectors = embedding(torch.from_numpy(places.astype(np.float32)))
    assert torch.isfinite(vectors).all()
    assert len({tuple(vector.tolist()) for vector in vectors}) == 300


def test_neighbours_are_alike_and_the_far_side_is_not(embedding: Any) -> None:
    """The embedding is a smooth function of the place."""
    c3, c5, o2 = embed(embedding, ["C3", "C5", "O2"])
    assert (c3 - c5).norm() < (c3 - o2).norm()


def test_gradients_survive_unknown_places(embedding: Any) -> None:
    """A NaN among the coordinates does not reach the weights."""
    embedding(torch.from_numpy(coordinates(["Cz", "nowhere"], "EEG"))).sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in embedding.parameters())


def test_an_armband_is_a_ring() -> None:
    """EMG channels lie evenly round the limb in their order: the last is the neighbour of the first."""
    ring = coordinates([f"EMG{i}" for i in range(1, 9)], "EMG")
    steps = np.linalg.norm(ring - np.roll(ring, 1, axis=0), axis=1)
    assert np.allclose(steps, steps[0], atol=1e-6)
    assert np.allclose(ring[:, 2], 0)


def test_merging_takes_any_montage_in_any_order() -> None:
    """Five electrodes or nine give as many latents; their order does not matter; spreading turns back."""
    torch.manual_seed(0)
    merge, spread = Merge(16, 2, 4).eval(), Spread(16, 2).eval()
    h = torch.randn(2, 3, 9, 16)
    with torch.inference_mode():
        merged = merge(h)
        assert merged.shape == merge(h[:, :, :5]).shape == (2, 3, 4, 16)
        assert torch.allclose(merge(h.flip(2)), merged, atol=1e-6)
        assert spread(merged, torch.randn(2, 9, 16)).shape == h.shape
        assert torch.allclose(merge(h[:, 1:2]), merged[:, 1:2], atol=1e-6)  # frames stay apart
