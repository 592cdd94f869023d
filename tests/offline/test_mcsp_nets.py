"""Properties of MCSP's branches: cross-spectra of known signals, and encoders of any set of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from offline.blocks.cross_spectrum import FLOOR, CrossSpectrum, correlation  # noqa: E402
from offline.blocks.graph import GraphEncoder, standardised  # noqa: E402
from offline.export import check_parity, describe, step_graph  # noqa: E402
from offline.models import mcsp, mcsp_branch  # noqa: E402
from offline.models.mcsp_branch import DOMAINS, BranchConfig  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

SFREQ = 200.0
SMALL = mcsp.SMALL.branch.model_copy(update={"nodes": {"toy5": 5}})
FMRI = mcsp_branch.FMRI.model_copy(update={"nodes": {"toy5": 5}, "dim": 16, "filters": 4, "width": 8})


def noise(*shape: int, seed: int = 0, size: float = 10.0) -> Any:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spectrum(connectivity: Any = "imaginary", bands: Any = ((8, 13), (20, 30))) -> CrossSpectrum:
    return CrossSpectrum(bands, SFREQ, hop=40, window=200, forget_s=2.0, connectivity=connectivity)


def edges(x: Any, **settings: Any) -> Any:
    """What is known at the last hop, (E, N, N)."""
    model = spectrum(**settings)
    return model(x, model.init_state(len(x), x.shape[1]))[0].edges[0, -1]


@pytest.fixture(scope="module")
def branch() -> Any:
    torch.manual_seed(0)
    return SMALL.build().eval()


def embedded(branch: Any, views: Any, places: Any) -> Any:
    with torch.inference_mode():
        return torch.cat([branch.encode(domain, views[domain], places) for domain in DOMAINS], dim=-1)


@pytest.mark.parametrize("lag", [0.0, 0.4, 1.2, -1.2])
def test_coherence_of_a_lagged_rhythm_is_the_sine_of_its_lag(lag: float) -> None:
    """Two sines a phase apart have imaginary coherence |sin| of it, and correlation the cosine."""
    phase = 2 * np.pi * 10 * torch.arange(1600) / SFREQ
    x = torch.stack([phase.sin(), (phase - lag).sin()])[None]
    assert edges(x)[0, 0, 1] == pytest.approx(abs(np.sin(lag)), abs=2e-3)
    assert edges(x, connectivity="correlation")[0, 0, 1] == pytest.approx(np.cos(lag), abs=2e-3)


def test_what_conducts_without_delay_has_no_imaginary_coherence() -> None:
    """Sources that two electrodes see at once correlate them, and leave imaginary coherence at its floor."""
    source, own = noise(1, 1, 8000), noise(1, 2, 8000, seed=1)
    mixed = torch.cat([source, 0.8 * source], dim=1)
    assert edges(mixed).max() < 1e-5
    assert edges(mixed, connectivity="correlation")[:, 0, 1].min() > 0.99
    both = mixed + 0.3 * own
    assert edges(both).max() < 0.15 < 0.8 < edges(both, connectivity="correlation")[:, 0, 1].min()


def test_edges_are_symmetric_within_one_and_empty_on_the_diagonal() -> None:
    """Connectivity is symmetric, at most 1 in size, and 0 from a node to itself."""
    for connectivity in ("imaginary", "correlation"):
        found = edges(noise(1, 6, 2000), connectivity=connectivity)
        assert torch.equal(found, found.transpose(1, 2))
        assert not found.diagonal(dim1=1, dim2=2).any()
        assert found.abs().max() <= 1


def test_power_of_white_noise_is_its_variance() -> None:
    """The remembered spectrum of white noise of size 10 is flat, at 100."""
    model = spectrum(bands=((1, 99),))
    known, _ = model(noise(1, 16, 20000), model.init_state(1, 16))
    power = (10 ** known.power[0, -1]).mean(dim=0)  # (K,)
    assert power.mean() == pytest.approx(100, rel=0.05)
    assert power.std() < 20


def test_memory_forgets_with_its_time_constant() -> None:
    """After a rhythm ends, its power falls by e in every `forget_s`."""
    model = spectrum()
    time = torch.arange(2000) / SFREQ
    x = torch.where(time < 5, (2 * np.pi * 10 * time).sin(), torch.zeros(()))[None, None]
    power = 10 ** model(x, model.init_state(1, 1))[0].power[0, :, 0, 2].double()
    sums = power * (1 - model.mean.keep ** torch.arange(1, len(power) + 1))  # the means, times their weights
    assert sums[32] / sums[42] == pytest.approx(np.exp(1), rel=0.01)  # 2 s apart, the window past the end


def test_an_offset_has_no_power() -> None:
    """A constant, once it fills the window, leaves silence at every frequency, the lowest included."""
    model = spectrum(bands=((1, 4),))
    newest = model(torch.full((1, 1, 400), 100.0), model.init_state(1, 1))[0].newest
    assert newest[0, 4:].max() < np.log10(2 * FLOOR)
    assert newest[0, 0].min() > 0


def test_a_band_without_a_frequency_is_refused() -> None:
    """A band between two frequencies of the window is an error that names both."""
    with pytest.raises(ConfigError, match=r"13\.2-13\.8 Hz"):
        spectrum(bands=((13.2, 13.8),))


@pytest.mark.parametrize("connectivity", ["imaginary", "correlation"])
def test_silence_the_first_hop_and_a_flat_channel_are_finite(connectivity: Any) -> None:
    """Latents are finite from the first hop on, in silence, with flat channels, and with equal ones."""
    torch.manual_seed(0)
    config = mcsp.SMALL.model_copy(
        update={"branch": mcsp.SMALL.branch.model_copy(update={"connectivity": connectivity})}
    )
    net = config.build().eval()
    x = noise(1, net.n_chans, 10 * net.hop)
    flat = torch.cat([torch.full_like(x[:, :3], 50.0), x[:, 3:]], dim=1)
    for signal in (x[..., : net.hop], torch.zeros_like(x), flat, x[:, :1].expand_as(x), 1e4 * x):
        with torch.inference_mode():
            latent = net(signal, net.init_state(1))[0]["latent"]
        assert latent.isfinite().all()
        assert latent.abs().max() < 100


@pytest.mark.parametrize("connectivity", ["imaginary", "correlation"])
def test_views_are_what_the_stream_knows_at_its_last_frame(connectivity: Any) -> None:
    """Embeddings of the views of a recording equal the newest latent of the stream that ran through it."""
    torch.manual_seed(0)
    chosen = mcsp.SMALL.branch.model_copy(update={"connectivity": connectivity})
    net = mcsp.SMALL.model_copy(update={"branch": chosen}).build().eval()
    x = noise(2, net.n_chans, 30 * net.hop)
    with torch.inference_mode():
        latent = net(x, net.init_state(2))[0]["latent"][:, -1]
        places = net.branch.places(net.positions[None])
    assert torch.allclose(embedded(net.branch, net.branch.views_of_signal(x), places), latent, atol=2e-6)


def test_samples_that_fill_no_hop_are_left_out_at_the_start(branch: Any) -> None:
    """Views end at the newest sample, whatever the length; less than a hop is refused."""
    x = noise(1, 5, 100)
    whole, cut = branch.views_of_signal(x), branch.views_of_signal(x[..., 4:])
    assert all(torch.equal(whole[domain], cut[domain]) for domain in DOMAINS)
    with pytest.raises(ConfigError, match="shorter than the branch's hop"):
        branch.views_of_signal(x[..., :3])


def test_order_of_nodes_does_not_matter(branch: Any) -> None:
    """Nodes permuted together with their places give the same embeddings; alone, they do not."""
    x, positions = noise(2, 7, 400), noise(2, 7, 3, seed=1, size=1.0)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    places, moved = branch.places(positions), branch.places(positions[:, order])
    views, permuted = branch.views_of_signal(x), branch.views_of_signal(x[:, order])
    assert torch.allclose(embedded(branch, views, places), embedded(branch, permuted, moved), atol=2e-6)
    for domain in DOMAINS:
        same, other = (branch.encode(domain, permuted[domain], at) for at in (moved, places))
        assert not torch.allclose(same, other, atol=1e-3), domain


def test_atlases_have_places_of_their_own_and_unknown_ones_are_refused(branch: Any) -> None:
    """A named atlas has one place per region; a name that is not known, without coordinates, is an error."""
    assert branch.places(None, "toy5").shape == (1, 5, SMALL.dim)
    with pytest.raises(ConfigError, match="toy5"):
        branch.places(None, "aal116")


def test_an_electrode_of_unknown_place_has_one(branch: Any) -> None:
    """Coordinates of NaN give finite embeddings."""
    views = branch.views_of_signal(noise(1, 4, 200))
    positions = noise(1, 4, 3, size=1.0)
    positions[0, 1] = float("nan")
    assert embedded(branch, views, branch.places(positions)).isfinite().all()


def test_connectomes_are_embedded_by_the_same_encoders(branch: Any) -> None:
    """Edges alone give a spatial and, in several bands, a spectral view; other bands are refused."""
    known = noise(3, 2, 5, 5).abs()
    views = branch.views_of_edges((known + known.mT) * (1 - torch.eye(5)))
    places = branch.places(None, "toy5")
    for domain in ("spatial", "spectral"):
        found = branch.encode(domain, views[domain], places)
        assert found.shape == (3, SMALL.dim)
        assert found.isfinite().all()
    assert "temporal" not in views
    with pytest.raises(ConfigError, match="3 bands"):
        branch.views_of_edges(known[:, :1].expand(-1, 3, -1, -1))


def test_measure_of_the_edges_does_not_matter_to_their_pattern() -> None:
    """Edges of another size and offset are the same edges once standardised; those that are 0 stay it."""
    raw = noise(2, 3, 8, 8, size=0.1)
    raw = (raw + raw.mT) * (1 - torch.eye(8))
    first, levels = standardised(raw)
    scaled = (4 * raw + 2) * (1 - torch.eye(8))
    second, others = standardised(scaled)
    assert torch.allclose(first, second, atol=1e-3)
    assert not torch.allclose(levels, others, atol=0.1)
    dropped = raw.clone()
    dropped[..., :2, :] = dropped[..., :, :2] = 0
    kept = standardised(dropped)[0]
    assert not kept[..., :2, :].any()
    assert torch.allclose(kept[..., 2:, 2:], standardised(raw[..., 2:, 2:])[0], atol=1e-5)


def test_a_pair_of_regions_can_be_read() -> None:
    """Trained on 40 people, the encoder tells those it never saw by the one edge in which they differ."""
    torch.manual_seed(0)
    table, encoder = torch.nn.Embedding(10, 16), GraphEncoder(16, 1, layers=1)
    read = torch.nn.Linear(16, 1)
    found, label = noise(60, 1, 10, 10, size=1.0), torch.arange(60) % 2
    found[:, 0, 2, 7] = 6.0 * label - 3.0
    found = found.triu(1) + found.triu(1).mT
    optimiser = torch.optim.AdamW([*table.parameters(), *encoder.parameters(), *read.parameters()], lr=1e-2)

    def score(rows: Any) -> Any:
        return read(encoder(rows, table.weight[None]))[:, 0]

    for _ in range(80):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(score(found[:40]), label[:40].float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert ((score(found[40:]) > 0) == label[40:]).float().mean() >= 0.8


def test_series_of_regions_are_correlated_over_the_whole_run() -> None:
    """With `edges: full` the spatial view is Pearson's correlation, 0 where a region is flat."""
    torch.manual_seed(0)
    branch = FMRI.build().eval()
    x = noise(2, 5, 120, size=1.0)
    x[:, 1] += x[:, 0]
    x[1, 4] = 3.0
    views = branch.views_of_signal(x)
    wanted = np.corrcoef(x[0].numpy()) - np.eye(5)
    assert np.allclose(views["spatial"][0, 0], wanted, atol=1e-5)
    assert not views["spatial"][1, 0, 4].any()
    assert embedded(branch, views, branch.places(None, "toy5")).isfinite().all()
    assert set(branch.views_of_edges(correlation(x))) == {"spatial"}
    assert len(branch.frequencies) == views["spectral"].shape[-1]


def test_what_does_not_stream_is_no_step() -> None:
    """Edges over a whole segment are refused for the exported step; so are strides that miss the hop."""
    with pytest.raises(ValueError, match="do not stream"):
        mcsp.Config(branch=FMRI)
    with pytest.raises(ValueError, match="must be the hop"):
        BranchConfig(strides=(5, 7))


def test_every_encoder_learns_from_its_view(branch: Any) -> None:
    """Gradients reach every weight that belongs to the views of signals in a table of regions."""
    places = branch.places(None, "toy5")
    views = branch.views_of_signal(noise(3, 5, 400))
    sum(branch.encode(domain, views[domain], places).square().sum() for domain in DOMAINS).backward()
    idle = {name for name, p in branch.named_parameters() if p.grad is None or not p.grad.any()}
    branch.zero_grad(set_to_none=True)
    assert {name.split(".")[0] for name in idle} <= {"electrodes", "spectral"}
    assert {name for name in idle if name.startswith("spectral")} == {
        "spectral.strengths.weight",
        "spectral.strengths.bias",
    }


@pytest.mark.parametrize("connectivity", ["imaginary", "correlation"])
def test_the_step_at_another_montage_exports(connectivity: Any) -> None:
    """The same weights at three electrodes, one of them unheard of, export and step like the model."""
    torch.manual_seed(0)
    chosen = mcsp.SMALL.branch.model_copy(update={"connectivity": connectivity})
    net = mcsp.SMALL.model_copy(update={"branch": chosen}).build().eval()
    moved = net.with_channels(("C3", "C4", "EXT7"), "EEG")
    assert moved.n_chans == 3
    assert moved.branch is net.branch
    assert not moved.training
    signal = noise(1, 3, 30 * moved.hop).numpy().astype(np.float32)
    assert check_parity(moved, step_graph(moved, 3), describe(moved, 3), [signal]) < 1e-5
