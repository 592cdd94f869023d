"""neuro2vec's encoder: both forms stream, stay causal where they must, and keep what power says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from backbone_suite import chunked_is_whole, close, geometry_is_as_said, run, signal  # noqa: E402
from pydantic import ValidationError  # noqa: E402

from offline.blocks.electrodes import coordinates  # noqa: E402
from offline.blocks.tower import WINDOWS  # noqa: E402
from offline.cost import count_mmac, of_recipe  # noqa: E402
from offline.export import check_parity, describe, step_graph  # noqa: E402
from offline.models import neuro2vec  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

RECIPE = Path(__file__).parents[2] / "configs" / "pretrain_neuro2vec_eeg_small.yaml"
NAMES = ("C3", "Cz", "C4", "elsewhere")
FORMS = [
    {"form": form, "mix": mix, "scale": scale}
    for form in ("causal", "window")
    for mix, scale in (("none", "fixed"), ("alternate", "fixed"), ("alternate", "running"))
]


def config(**changes: Any) -> neuro2vec.Config:
    settings = neuro2vec.SMALL.model_dump() | {"ch_names": NAMES, "scale_frames": 3} | changes
    return neuro2vec.Config.model_validate(settings)


def built(**changes: Any) -> Any:
    torch.manual_seed(0)
    return config(**changes).build().eval()


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: "-".join(form.values()))
def backbone(request: pytest.FixtureRequest) -> Any:
    """A small encoder of each form, one of its channels of unknown place."""
    return built(**request.param)


@pytest.mark.parametrize("cuts", [[1], [2, 3], [WINDOWS + 3, 1]])
def test_any_chunking_equals_one_call(backbone: Any, cuts: list[int]) -> None:
    """Streamed by any number of frames, past every context, latents and state are those of one call."""
    chunked_is_whole(backbone, cuts)


def test_geometry_and_causality_are_as_said(backbone: Any) -> None:
    """A frame depends on `left_context` samples before its hop, on none before those, and on no future."""
    geometry_is_as_said(backbone)
    latent = run(backbone, signal(backbone))[0]["latent"]
    assert latent.shape[2:] == (len(NAMES), backbone.n_latent)


def test_electrodes_see_each_other_only_when_mixed(backbone: Any) -> None:
    """Editing one electrode moves the latents of the others with `mix: alternate`, and not without."""
    x = signal(backbone)
    changed = x.clone()
    changed[:, 1] *= -2.0
    a, b = run(backbone, x)[0]["latent"], run(backbone, changed)[0]["latent"]
    assert not close(a[:, :, 1], b[:, :, 1])
    alone = torch.equal(a[:, :, [0, 2, 3]], b[:, :, [0, 2, 3]])
    assert alone == (backbone.config.mix == "none")


def test_the_exported_step_is_the_model() -> None:
    """Exported alike is what the contract suite leaves out: time blocks alone, and a scale with a state."""
    model = built(mix="none", scale="running", layers=1)
    graph, content = describe(model, model.n_chans), step_graph(model, model.n_chans)
    assert check_parity(model, content, graph, [signal(model).numpy()]) < 1e-5


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("form", ["causal", "window"])
def test_training_and_stream_see_the_same_net(form: str, frames: int) -> None:
    """The newest frame of a segment has the latent of the stream, also while the window fills."""
    model = built(form=form)
    x = signal(model)[..., : frames * model.hop]
    with torch.inference_mode():
        whole = model.net.sequence(x, model.positions[None])
    assert close(run(model, x)[0]["latent"][:, -1], whole[:, -1])


def test_a_window_looks_both_ways() -> None:
    """In a segment the first frame of the published form depends on the last, of the causal it does not."""
    for form, moves in (("window", True), ("causal", False)):
        model = built(form=form)
        x = signal(model)[..., : 4 * model.hop]
        changed = x.clone()
        changed[..., 3 * model.hop :] = 9.0
        with torch.inference_mode():
            a, b = (model.net.sequence(each, model.positions[None])[:, 0] for each in (x, changed))
        assert torch.equal(a, b) != moves


def test_a_segment_longer_than_the_window_is_refused() -> None:
    """The published form has no meaning past its window, and the message says what to change."""
    model = built(form="window")
    with pytest.raises(ConfigError, match="crop_s"):
        model.net.sequence(torch.zeros(1, 4, 5 * model.hop), model.positions[None])


@pytest.mark.parametrize("form", ["causal", "window"])
def test_what_is_hidden_changes_nothing(form: str) -> None:
    """The content of a hidden patch reaches no latent, its own included."""
    model = built(form=form)
    x = torch.randn(2, 4, 4 * model.hop)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[1, :, 1] = True
    changed = torch.where(mask.repeat_interleave(model.hop, dim=-1), 7.0, x)
    positions = model.positions.expand(2, -1, -1)
    with torch.inference_mode():
        a, b = (model.net.sequence(each, positions, mask) for each in (x, changed))
    assert torch.equal(a, b)


def test_power_is_told_at_any_loudness() -> None:
    """Twice the amplitude moves the latents as much at 10 µV as at 1,000 µV: the norms do not swallow it."""
    model = built(mix="none")
    x = torch.randn(1, 4, 8 * model.hop, generator=torch.Generator().manual_seed(3))
    moved = []
    for level in (10.0, 1000.0):
        a, b = (run(model, gain * level * x)[0]["latent"] for gain in (1.0, 2.0))
        moved.append(float((a - b).norm()))
    assert moved[1] > 0.3 * moved[0] > 0


def test_the_published_sizes_are_the_defaults() -> None:
    """Four blocks of 128: 0.796 million weights in the unofficial classifier, of which 0.4 % differ here."""
    net = neuro2vec.Config().build().net
    total = sum(weight.numel() for weight in (*net.tower.parameters(), *net.patch.parameters()))
    assert abs(total / 0.796e6 - 1) < 0.01


def test_another_montage_shares_the_weights() -> None:
    """The same net serves other channels, and where two montages share electrodes, so do their places."""
    model = built()
    moved = model.with_channels(("Cz", "C3"), "EEG")
    assert moved.net is model.net
    assert isinstance(moved.config, neuro2vec.Config)
    assert moved.n_chans == moved.config.n_chans == 2
    assert torch.equal(moved.positions, torch.from_numpy(coordinates(("Cz", "C3"), "EEG")))
    assert run(moved, torch.randn(1, 2, 16))[0]["latent"].shape == (1, 2, 2, 16)


def test_a_step_costs_less_than_the_published_window() -> None:
    """The cost report finds both forms in a recipe of this kind, and the causal step is the cheaper."""
    causal, window = of_recipe(RECIPE)
    assert (causal.config.form, window.config.form) == ("causal", "window")
    assert count_mmac(causal, causal.hop) < 0.1 * count_mmac(window, window.hop)


def test_heads_that_cannot_rotate_are_refused_in_the_settings() -> None:
    """Pairs are rotated, so each head is of even width: a recipe that says otherwise is told at once."""
    with pytest.raises(ValidationError, match="dim must be a multiple"):
        neuro2vec.Config(dim=16, heads=3)
