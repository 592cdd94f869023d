"""Augmented views: drawn from a row's key alone, and what each rate does."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from offline.objectives.views import Config, Draw, augmented  # noqa: E402

KEYS = torch.arange(100, 106)
NONE = {"edge_drop": 0, "node_drop": 0, "crop": 1, "jitter": 0, "scaling": 0, "time_mask": 0}
NONE |= {"band_drop": 0, "tilt": 0, "noise": 0}
RNG = torch.Generator().manual_seed(0)
HALF = torch.rand(6, 3, 12, 12, generator=RNG).triu(1)
VIEWS = {
    "spatial": HALF + HALF.mT,
    "temporal": torch.randn(6, 4, 200, generator=RNG),
    "spectral": torch.randn(6, 4, 25, generator=RNG),
}


@pytest.mark.parametrize("domain", VIEWS)
def test_what_is_drawn_for_a_row_is_its_own(domain: str) -> None:
    """A row is augmented alike alone and in a batch, otherwise in another stream or under another key."""
    view, config = VIEWS[domain], Config()
    whole = augmented(config, domain, view, KEYS, 1, hop=10)
    alone = augmented(config, domain, view[2:3], KEYS[2:3], 1, hop=10)
    assert torch.equal(whole[2:3], alone)
    assert not torch.equal(whole, augmented(config, domain, view, KEYS, 2, hop=10))
    assert not torch.equal(whole, augmented(config, domain, view, KEYS + 1, 1, hop=10))


@pytest.mark.parametrize("domain", VIEWS)
def test_at_rates_of_zero_nothing_changes(domain: str) -> None:
    """With every rate at 0 a view is as it was."""
    same = augmented(Config.model_validate(NONE), domain, VIEWS[domain], KEYS, 1)
    torch.testing.assert_close(same, VIEWS[domain])


def test_numbers_are_even_and_independent() -> None:
    """Uniform numbers fill (0, 1) evenly, normal ones have SD 1; neighbours in place or key do not agree."""
    draw = Draw(torch.arange(200), 1)
    u, n = draw.uniform(1000), draw.normal(1000)
    assert u.min() > 0
    assert u.max() < 1
    counts = torch.histc(u, 10) / u.numel()
    torch.testing.assert_close(counts, torch.full((10,), 0.1), atol=2e-3, rtol=0)
    assert n.mean().abs() < 0.01
    assert n.std() == pytest.approx(1, abs=0.01)
    assert n.isfinite().all()
    for a, b in ((n[:, 1:], n[:, :-1]), (n[1:], n[:-1])):
        assert (a * b).mean().abs() < 0.01


def test_dropped_edges_and_nodes_keep_graphs_symmetric() -> None:
    """Edges fall in both directions and all bands at once, at the rate; nodes with all of theirs."""
    edges = torch.ones(40, 2, 30, 30)
    keys = torch.arange(40)
    thin = augmented(Config.model_validate(NONE | {"edge_drop": 0.3}), "spatial", edges, keys, 1)
    assert torch.equal(thin, thin.mT)
    assert torch.equal(thin[:, 0], thin[:, 1])
    off = ~torch.eye(30, dtype=torch.bool)
    assert float(1 - thin[..., off].mean()) == pytest.approx(0.3, abs=0.02)
    gone = augmented(Config.model_validate(NONE | {"node_drop": 0.3}), "spatial", edges, keys, 1)
    there = gone[:, 0].amax(dim=-1)
    assert torch.equal(gone[:, 0][..., off], (there[:, :, None] * there[:, None, :])[..., off])
    assert float(1 - there.mean()) == pytest.approx(0.3, abs=0.05)


def test_a_crop_is_a_piece_of_whole_hops() -> None:
    """Of 205 samples 0.5 leaves 100 in a row, hops of 10, at places that vary; the mask is one stretch."""
    x = torch.arange(205.0).expand(6, 4, -1) + 1
    cut = augmented(Config.model_validate(NONE | {"crop": 0.5}), "temporal", x, KEYS, 1, hop=10)
    assert cut.shape == (6, 4, 100)
    assert (cut.diff(dim=-1) == 1).all()
    assert len(set(cut[:, 0, 0].tolist())) > 3
    hole = augmented(Config.model_validate(NONE | {"time_mask": 0.2}), "temporal", x, KEYS, 1)
    assert ((hole == 0).sum(dim=-1) == 41).all()
    assert (hole[:, 0] == 0).diff(dim=-1).sum(dim=-1).max() <= 2


def test_a_dropped_band_is_flat() -> None:
    """A fifth of the frequencies, in one stretch, has the node's mean; the others stay."""
    view = VIEWS["spectral"]
    flat = augmented(Config.model_validate(NONE | {"band_drop": 0.2}), "spectral", view, KEYS, 1)
    changed = flat != view
    assert (changed.sum(dim=-1) == 5).all()
    means = view.mean(dim=-1, keepdim=True).expand_as(view)
    torch.testing.assert_close(flat[changed], means[changed])
