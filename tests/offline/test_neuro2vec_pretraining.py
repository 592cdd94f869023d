"""Masked prediction of spectra and waveforms: the way there and back, and what may not leak."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import write_run

torch = pytest.importorskip("torch")

from offline.blocks.electrodes import coordinates  # noqa: E402
from offline.models import neuro2vec as nets  # noqa: E402
from offline.objectives.spectrum import (  # noqa: E402
    Spectrum,
    laid_out,
    n_bins,
    phase_loss,
    polar,
    spectrum,
    waveform,
)
from offline.pretrain import recipe as pretrain_recipe  # noqa: E402
from offline.systems import Moment, Segments, neuro2vec  # noqa: E402
from offline.systems.neuro2vec import explained  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

AT = Moment(step=3, steps=10, seed=0)
CONFIGS = Path(__file__).parents[2] / "configs"
WINDOW: dict[str, Any] = {"model": {"form": "window", "context": 30}, "spectrum": "window"}
KINDS: dict[str, dict[str, Any]] = {"patch": {}, "window": WINDOW, "time": {"target": "time"}}


def segments(batch: int = 4, frames: int = 6) -> Segments:
    x = 40 * torch.randn(batch, 3, frames * 8, generator=torch.Generator().manual_seed(2))
    places = torch.from_numpy(coordinates(nets.SMALL.ch_names, "EEG")).expand(batch, -1, -1)
    return Segments(x, places, torch.arange(batch))


def row(batch: Segments, i: int) -> Segments:
    return Segments(batch.x[i : i + 1], batch.positions[i : i + 1], batch.keys[i : i + 1])


def system(model: dict[str, Any] | None = None, **changes: Any) -> Any:
    torch.manual_seed(1)
    settings = neuro2vec.SMALL.model_dump() | changes
    settings["model"] = nets.SMALL.model_dump() | (model or {})
    return neuro2vec.Config.model_validate(settings).build(200.0)


def trained(made: Any, batch: Segments, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(made.train().parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss, _ = made.loss(batch, AT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("n", [1, 2, 7, 8, 500])
def test_a_spectrum_is_inverted_exactly(n: int) -> None:
    """Even and odd lengths, silence and offsets: the inverse of a patch's spectrum is the patch."""
    x = torch.randn(3, n, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [50.0], [0.0]])
    x[0] += 20.0
    said = spectrum(x, taper=False)
    assert said.log_magnitude.shape == (3, n_bins(n))
    assert torch.allclose(waveform(said, n), x, rtol=0, atol=2e-4)
    assert torch.allclose(waveform(Spectrum(*said), n), torch.fft.irfft(torch.fft.rfft(x), n), atol=2e-4)


def test_real_bins_have_a_sign_and_no_sine() -> None:
    """Offset and Nyquist of an even length take their sign from the cosine; their sine moves nothing."""
    alternating = torch.tensor([1.0, -1.0] * 4)
    for x, bin_ in ((torch.ones(8), 0), (-torch.ones(8), 0), (alternating, -1), (-alternating, -1)):
        said = spectrum(x, taper=False)
        assert torch.sign(said.cosine[bin_]) == torch.sign(x[0])
        leaning = Spectrum(said.log_magnitude, said.cosine, said.sine.clone())
        leaning.sine[bin_] = 0.7
        assert torch.allclose(waveform(leaning, 8), x, atol=1e-5)


def test_what_a_head_says_is_a_point_on_the_circle() -> None:
    """The length of the pair (cosine, sine) changes neither the waveform nor the loss, also at length 0."""
    a, b, c = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0)).unbind(0)
    near, far = polar(a, b, c), polar(a, 100 * b, 100 * c)
    assert torch.allclose(waveform(near, 8), waveform(far, 8), atol=1e-4)
    nothing = torch.zeros(5, 5, requires_grad=True)
    waveform(polar(a, nothing, nothing), 8).sum().backward()
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


def test_phase_is_compared_on_the_circle() -> None:
    """+π and −π are one phase: going once round costs nothing, half-way round costs 2."""
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    said = spectrum(x, taper=False)
    angle = torch.atan2(said.sine, said.cosine)
    for turn, cost in ((0.0, 0.0), (2 * math.pi, 0.0), (math.pi, 2.0), (-math.pi, 2.0)):
        loss = phase_loss((angle + turn).cos(), (angle + turn).sin(), said)
        assert torch.allclose(loss, torch.full((4,), cost), atol=5e-3)


@pytest.mark.parametrize(("hop", "frames"), [(8, 6), (8, 1), (7, 5), (7, 4), (3, 3), (20, 25)])
def test_tokens_share_the_windows_bins_in_order(hop: int, frames: int) -> None:
    """Every bin of the window is said once, by tokens in order, and a window said right is inverted."""
    n, room = hop * frames, n_bins(hop)
    x = torch.randn(2, n, generator=torch.Generator().manual_seed(0))
    said = spectrum(x, taper=False)
    runs = np.array_split(np.arange(n_bins(n)), frames)
    assert max(len(run) for run in runs) <= room
    filled = [torch.full((2, frames, room), math.nan) for _ in said]
    for token, run in enumerate(runs):
        for part, whole in zip(filled, said, strict=True):
            part[:, token, : len(run)] = whole[:, run[0] : run[-1] + 1] if len(run) else part[:, token, :0]
    again = Spectrum(*(laid_out(part, n) for part in filled))
    assert torch.allclose(waveform(again, n), x, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(kind: str) -> None:
    """In forty steps on one batch the loss falls by a quarter, every weight taking part."""
    made = system(**KINDS[kind])
    losses = trained(made, segments(), 40)
    assert losses[-1] < 0.75 * losses[0]
    unused = {name for name, p in made.named_parameters() if p.grad is None}
    assert not unused


@pytest.mark.parametrize("kind", KINDS)
def test_a_batchs_loss_is_the_mean_of_its_rows(kind: str) -> None:
    """Split over processes, rows give the same loss: nothing is averaged over the batch before."""
    changes = {"mask": {"kind": "importance", "ratio": 0.5}}  # hides as many as it likes
    made, batch = system(**(KINDS[kind] | changes)).eval(), segments(frames=30)  # opened patches differ
    with torch.inference_mode():
        whole, _ = made.loss(batch, AT)
        alone = torch.stack([made.loss(row(batch, i), AT)[0] for i in range(4)])
    assert torch.allclose(whole, alone.mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hidden_is_not_in_what_is_said(kind: str) -> None:
    """Editing the hidden patches changes targets and no prediction."""
    made, batch = system(**KINDS[kind]).eval(), segments()
    mask = made._mask(batch, 0.0)
    edited = batch._replace(x=torch.where(mask.repeat_interleave(8, dim=-1), 90.0, batch.x))
    with torch.inference_mode():
        a, b = (made._guess(each, mask) for each in (batch, edited))
    assert torch.equal(a.waveform, b.waveform)
    assert not torch.equal(a.target, b.target)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_is_no_fault(kind: str) -> None:
    """On a segment of zeros loss, gradients and figures are finite."""
    made = system(**KINDS[kind]).train()
    batch = segments()._replace(x=torch.zeros(4, 3, 48))
    loss, _ = made.loss(batch, AT)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)
    made.begin_validation()
    with torch.inference_mode():
        made.validate(batch)
    assert all(math.isfinite(value) for value in made.end_validation().values())


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_leaves_spectra_alone(kind: str) -> None:
    """Under bfloat16 the loss is float32 and near that of float32: transforms have no short form."""
    made, batch = system(**KINDS[kind]).eval(), segments()
    with torch.inference_mode():
        exact, _ = made.loss(batch, AT)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            short, _ = made.loss(batch, AT)
    assert short.dtype == torch.float32
    assert float(short) == pytest.approx(float(exact), rel=0.05)


@pytest.mark.parametrize("ratio", [0.1, 0.6])
def test_the_mask_ratio_is_kept_and_logged(ratio: float) -> None:
    """The share of hidden patches is what the settings say."""
    made = system(mask={"kind": "random", "ratio": ratio})
    _, logs = made.loss(segments(frames=20), AT)
    assert float(logs["mask_ratio"]) == pytest.approx(ratio, abs=0.01)


def test_only_hidden_patches_count_unless_asked() -> None:
    """A prediction wrong in a visible patch costs nothing; with `visible` it does."""
    batch = segments()
    for visible in (0.0, 1.0):
        made = system(visible=visible).eval()
        mask = made._mask(batch, 0.0)
        with torch.inference_mode():
            guess = made._guess(batch, mask)
            seen = ~mask.transpose(1, 2)[..., None]
            wrong = guess._replace(log_magnitude=guess.log_magnitude + 5.0 * seen)
            same = torch.equal(made._terms(guess, mask)[0], made._terms(wrong, mask)[0])
        assert same == (visible == 0.0)


def test_loud_electrodes_do_not_decide() -> None:
    """With one electrode a hundred times louder, an equally poor prediction of it costs the same."""
    made = system().eval()
    target = torch.randn(2, 6, 3, 8)
    mask = torch.ones(2, 3, 6, dtype=torch.bool)
    gain = torch.tensor([1.0, 100.0, 1.0])[:, None]
    loud = neuro2vec.Guess(gain * target * 0.5, gain * target)
    with torch.inference_mode():
        _, terms = made._terms(neuro2vec.Guess(target * 0.5, target), mask)
        _, louder = made._terms(loud, mask)
    assert torch.allclose(terms["time"], torch.full((2,), 0.25), atol=1e-4)
    assert torch.allclose(louder["time"], terms["time"], atol=1e-4)


def test_explained_is_a_share_of_the_hidden_power() -> None:
    """Right is 1, silence 0, the opposite −3; what is visible does not count."""
    target = torch.randn(2, 6, 3, 8)
    hidden = torch.rand(2, 6, 3) < 0.5
    for gain, share in ((1.0, 1.0), (0.0, 0.0), (-1.0, -3.0)):
        made = torch.where(hidden[..., None], gain * target, 99.0)
        assert torch.allclose(explained(made, target, hidden), torch.full((2,), share), atol=1e-4)


def test_figures_stand_beside_straight_lines() -> None:
    """Where lines bridge a slow wave well, the figures say so; the net's own are there in the same units."""
    made = system(mask={"kind": "random", "ratio": 0.1}).eval()
    time = torch.arange(160) / 200.0
    batch = segments(frames=20)._replace(x=(40 * torch.sin(2 * math.pi * 2 * time)).expand(4, 3, -1))
    made.begin_validation()
    with torch.inference_mode():
        made.validate(batch)
    figures = made.end_validation()
    assert 0.7 < figures["interpolated"] < 0.999
    assert figures["explained"] < figures["interpolated"]
    assert {"loss", "time", "magnitude", "phase", "log_spectral_db", "mask_ratio"} <= set(figures)


def test_looking_does_not_teach() -> None:
    """Validation changes no weight and starts from nothing every time."""
    made, batch = system().eval(), segments()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    figures = []
    for each in (batch, batch._replace(x=3 * batch.x), batch):
        made.begin_validation()
        with torch.inference_mode():
            made.validate(each)
        figures.append(made.end_validation())
    assert figures[0] == figures[2] != figures[1]
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "card": {"name": "n", "version": "1", "title": "t"},
        "system": {"kind": "neuro2vec"} | changes,
        "data": {"shards": ["s"], "validate": ["a"], "crop_s": 1.0},
        "optim": {"steps": 1},
        "steps_per_epoch": 1,
        "output": "runs/n",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spectrum": "window"}, "causal"),
        ({"spectrum": "window", "target": "time", "model": {"form": "window"}}, "target"),
        ({"spectrum": "window", "visible": 1.0, "model": {"form": "window"}}, "visible"),
        ({"weights": {"magnitude": 0, "phase": 0, "time": 0}}, "nothing to learn"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], words: str) -> None:
    """A causal net cannot say the spectrum of a window, and so on: the message says what to take instead."""
    with pytest.raises(ConfigError, match=words):
        pretrain_recipe.parse(recipe(**changes))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("pretrain_neuro2vec*.yaml")), ids=lambda p: p.stem)
def test_recipes_build(path: Path) -> None:
    """Every recipe of this kind loads, and its backbone is what it exports."""
    built = pretrain_recipe.load(path).system.build(200.0)
    assert set(built.parts()) == {"backbone"}


def test_the_backbone_is_exported_from_a_run(tmp_path: Path) -> None:
    """`bcitrain export --part backbone` writes a bundle whose steps are the net's, at another montage too."""
    from offline.export_part import export_part

    settings = neuro2vec.SMALL.model_dump(mode="json")
    settings["model"] |= {"layers": 1, "mix": "none"}
    run = write_run(tmp_path / "run", settings, sfreq=200.0, ch_names=nets.SMALL.ch_names)
    bundle = export_part(run, "backbone", tmp_path / "bundle", ch_names=("Pz", "C4"))
    assert tuple(bundle.manifest.input.ch_names) == ("Pz", "C4")
    assert bundle.manifest.system == "neuro2vec"
