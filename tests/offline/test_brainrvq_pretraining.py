"""Training of the tokenizer and masked pretraining on its codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from offline.blocks.electrodes import coordinates  # noqa: E402
from offline.models import brainrvq as nets  # noqa: E402
from offline.objectives import masking  # noqa: E402
from offline.systems import Moment, Segments, brainrvq, brainrvq_tokenizer  # noqa: E402
from offline.systems.brainrvq import Heads, Teacher  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

NAMES = ("C3", "Cz", "C4")
AT = Moment(step=3, steps=10, seed=0)
MODEL = nets.SMALL.model_copy(update={"ch_names": NAMES})


def segments(batch: int = 4, frames: int = 6) -> Segments:
    x = 40 * torch.randn(batch, 3, frames * MODEL.hop, generator=torch.Generator().manual_seed(2))
    places = torch.from_numpy(coordinates(NAMES, "EEG")).expand(batch, -1, -1)
    return Segments(x, places, torch.arange(batch))


def row(batch: Segments, i: int) -> Segments:
    return Segments(*(part[i : i + 1] for part in batch[:3]))


@pytest.fixture
def tokenizer() -> Any:
    """A tokenizer under training."""
    torch.manual_seed(0)
    model = brainrvq_tokenizer.SMALL.model.model_copy(update={"encoder": MODEL})
    return brainrvq_tokenizer.Config(model=model).build(200.0)


def system(tokenizer: Any, **changes: Any) -> Any:
    torch.manual_seed(1)
    settings = {"tokenizer": Path("none"), "model": MODEL, "codebook_size": 16} | changes
    return brainrvq.BrainRVQ(brainrvq.Config(**settings), 200.0, Teacher(tokenizer.net))


def test_the_tokenizer_learns(tokenizer: Any) -> None:
    """In forty steps on one batch the loss falls by a quarter, and every weight has a part in it."""
    batch = segments()
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        loss, logs = tokenizer.train().loss(batch, Moment(step, 40, 0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.75 * losses[0]
    assert all(p.grad is not None for p in tokenizer.parameters() if p.requires_grad)
    assert 1.0 > logs["residual_time_1"] > logs["residual_time_2"] > logs["residual_time_3"]
    assert 1.0 > logs["residual_frequency_1"] > logs["residual_frequency_2"]


def test_looking_does_not_teach(tokenizer: Any) -> None:
    """Validation changes nothing: not the codebooks, and not the counts of their use in training."""
    tokenizer.train().loss(segments(), AT)
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    tokenizer.eval().begin_validation()
    with torch.inference_mode():
        tokenizer.validate(segments())
    figures = tokenizer.end_validation()
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())
    assert {"loss", "waveform_share", "used_time_1", "perplexity_frequency_3"} <= set(figures)
    assert 0 < figures["used_time_1"] <= 1


@pytest.mark.parametrize("kind", ["tokenizer", "backbone"])
def test_a_batchs_loss_is_the_mean_of_its_rows(tokenizer: Any, kind: str) -> None:
    """Split over processes, rows give the same loss: nothing is averaged over the batch before."""
    made = tokenizer.eval() if kind == "tokenizer" else system(tokenizer).eval()
    batch = segments(frames=30)  # long enough for rows with different numbers of hidden patches
    with torch.inference_mode():
        whole, _ = made.loss(batch, AT)
        alone = torch.stack([made.loss(row(batch, i), AT)[0] for i in range(4)])
    assert torch.allclose(whole, alone.mean(), atol=1e-5)


def test_the_backbone_learns(tokenizer: Any) -> None:
    """On one batch the loss falls below that of guessing, every weight taking part."""
    made = system(tokenizer).train()
    batch = segments()
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    first = None
    for _ in range(60):
        loss, _ = made.loss(batch, AT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first = float(loss.detach()) if first is None else first
    assert float(loss.detach()) < 0.5 * first
    assert all(p.grad is not None for p in made.parameters() if p.requires_grad)


def test_the_tokenizer_is_frozen_and_no_part_of_the_weights(tokenizer: Any) -> None:
    """The backbone's weights hold none of the tokenizer's, which no step changes."""
    made = system(tokenizer).train()
    before = [p.clone() for p in tokenizer.parameters()]
    made.loss(segments(), AT)[0].backward()
    assert all(
        torch.equal(a, b) and b.grad is None for a, b in zip(before, tokenizer.parameters(), strict=True)
    )
    assert not tokenizer.net.training
    assert not any("quantiser" in name for name in made.state_dict())


def test_levels_are_told_the_levels_below() -> None:
    """Level 2 depends on the true code 1; untaught, on the likeliest; with no hierarchy, on none."""
    torch.manual_seed(0)
    heads, flat = Heads(8, 3, 16, hierarchy=True).eval(), Heads(8, 3, 16, hierarchy=False).eval()
    h, codes = torch.randn(5, 8), torch.randint(16, (5, 3))
    other = codes.clone()
    other[:, 0] = (other[:, 0] + 1) % 16
    with torch.inference_mode():
        taught, retaught = heads(h, codes), heads(h, other)
        assert torch.equal(taught[0], retaught[0])
        assert not torch.allclose(taught[1], retaught[1], atol=1e-3)
        assert not torch.allclose(taught[2], retaught[2], atol=1e-3)
        likeliest = torch.stack([taught[0].argmax(-1), codes[:, 1], codes[:, 2]], dim=-1)
        assert torch.equal(heads(h)[1], heads(h, likeliest)[1])
        for a, b in zip(flat(h, codes), flat(h, other), strict=True):
            assert torch.equal(a, b)


def test_the_logged_ratio_is_the_share_that_is_hidden(tokenizer: Any) -> None:
    """Not the nominal ratio: what opened patches and broken runs leave."""
    made, batch = system(tokenizer).eval(), segments(frames=30)
    _, logs = made.loss(batch, AT)
    mask = masking.mask(made.config.mask, batch, MODEL.hop, 200.0, "EEG", AT.progress)
    assert float(logs["mask_ratio"]) == pytest.approx(float(mask.float().mean()))
    assert float(logs["mask_ratio"]) < made.config.mask.ratio - 0.03


@pytest.mark.parametrize("domains", ["time", "frequency"])
def test_one_domain_alone_leaves_the_other_out(tokenizer: Any, domains: Any) -> None:
    """The ablation has no heads, losses or figures of the other domain."""
    made = system(tokenizer, domains=domains)
    _, logs = made.loss(segments(), AT)
    assert {name for name in logs if name.startswith("loss_")} == {f"loss_{domains}_{i}" for i in (1, 2, 3)}
    assert all(domains in name for name, _ in made.heads.named_children())


def test_the_complement_makes_every_patch_a_target(tokenizer: Any) -> None:
    """With it the loss is the mean over a mask and its complement."""
    made, batch = system(tokenizer).eval(), segments()
    both = system(tokenizer, complement=True).eval()
    both.load_state_dict(made.state_dict())
    mask = masking.mask(made.config.mask, batch, MODEL.hop, 200.0, "EEG", AT.progress)
    codes = Teacher(tokenizer.net).codes(batch.x, batch.positions)
    with torch.inference_mode():
        expected = (made._terms(batch, mask, codes)[0] + made._terms(batch, ~mask, codes)[0]).mean() / 2
        assert torch.allclose(both.loss(batch, AT)[0], expected, atol=1e-5)


def test_the_last_block_can_be_asked_about_what_is_visible(tokenizer: Any) -> None:
    """With a weight on them, the codes of visible patches are part of the loss and not of the figures."""
    made, batch = system(tokenizer).eval(), segments()
    both = system(tokenizer, visible=0.5).eval()
    both.load_state_dict(made.state_dict())
    with torch.inference_mode():
        (a, terms), (b, same) = made.loss(batch, AT), both.loss(batch, AT)
    assert b > a
    assert all(torch.equal(terms[name], same[name]) for name in terms)


def test_validation_names_its_baselines(tokenizer: Any) -> None:
    """Accuracies come with those of the commonest code and of straight lines over what is hidden."""
    made = system(tokenizer, model=MODEL.model_copy(update={"latents": 2})).eval()
    made.begin_validation()
    with torch.inference_mode():
        made.validate(segments())
        made.validate(segments())
    figures = made.end_validation()
    for level in (1, 2, 3):
        for name in ("loss", "accuracy", "interpolated", "frequent"):
            assert f"{name}_time_{level}" in figures
        assert 1 / 16 <= figures[f"frequent_time_{level}"] <= 1
    assert {"loss", "mask_ratio"} <= set(figures)


def test_straight_lines_bridge_what_is_hidden() -> None:
    """From the last sample before to the first after; level at the ends; what is visible stays."""
    x = torch.arange(12.0).square()[None, None]
    mask = torch.tensor([[[False, True, False, True]]])
    got = masking.bridged(x, mask)[0, 0]
    assert torch.equal(got[[0, 1, 2, 6, 7, 8]], x[0, 0, [0, 1, 2, 6, 7, 8]])
    assert torch.allclose(got[3:6], torch.tensor([4 + 8.0, 4 + 16.0, 4 + 24.0]))
    assert torch.equal(got[9:], torch.full((3,), 64.0))
    assert torch.equal(masking.bridged(x, ~mask)[0, 0, :3], torch.full((3,), 9.0))


def test_a_tokenizer_that_does_not_fit_is_refused(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder must hold a tokenizer of the recipe's hop, levels, codes and rate: the message has both."""
    monkeypatch.setattr("offline.runs.load_system", lambda folder: tokenizer)
    wrong = brainrvq.Config(tokenizer=Path("runs/t"), model=MODEL, codebook_size=32).build(200.0)
    with pytest.raises(ConfigError, match=r"16.*32"):
        wrong.loss(segments(), AT)
    monkeypatch.setattr("offline.runs.load_system", lambda folder: wrong)
    with pytest.raises(ConfigError, match="not the run folder"):
        wrong.loss(segments(), AT)
    monkeypatch.setattr("offline.runs.load_system", lambda folder: tokenizer)
    settings = brainrvq.Config(tokenizer=Path("runs/t"), model=MODEL, codebook_size=16)
    with pytest.raises(ConfigError, match="EEG at 200 Hz, this is EEG at 250 Hz"):
        settings.build(250.0).loss(segments(), AT)
    with pytest.raises(ConfigError, match="level_weights"):
        brainrvq.Config(tokenizer=Path("runs/t"), levels=2).build(200.0)


def test_the_parts_are_models_at_the_configured_montage(tokenizer: Any) -> None:
    """Tokenizer and backbone, in eval mode, sharing the weights of the system."""
    parts = tokenizer.train().parts() | {"pretrained": system(tokenizer).train().parts()["backbone"]}
    assert set(parts) == {"tokenizer", "backbone", "pretrained"}
    for part in parts.values():
        assert not part.training
        assert (part.n_chans, part.hop, part.delay) == (3, MODEL.hop, 0)
        outputs, _ = part(torch.zeros(1, 3, 2 * part.hop), part.init_state(1))
        assert outputs["latent"].shape == (1, 2, 3, MODEL.dim)
