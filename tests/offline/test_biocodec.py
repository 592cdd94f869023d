"""BioCodec: sizes, causality, memory, scale, both ends together, and the bugs of the authors' release."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from offline.blocks import quantize  # noqa: E402
from offline.export_graph import check_parity, describe, step_graph  # noqa: E402
from offline.models import biocodec  # noqa: E402
from offline.models.biocodec import BioCodec  # noqa: E402
from offline.systems import Moment, Segments  # noqa: E402
from offline.systems.biocodec import Codec, Config  # noqa: E402

MEMORIES = ("none", "gated", "lstm")
SFREQ = 250.0
SMALL = biocodec.SMALL


def small(**changes: Any) -> Any:
    return Config(model=SMALL.model_copy(update=changes), n_ffts=(32,), waveform_weight=1.0)


def signal(rows: int = 4, frames: int = 40, seed: int = 0) -> Any:
    """Noise with the falling spectrum of an EEG, (rows, 1, T), microvolts."""
    noise = np.random.default_rng(seed).standard_normal((rows, 1, frames * SMALL.hop))
    return torch.tensor(lfilter([1.0], [1.0, -0.9], noise), dtype=torch.float32)


def segments(x: Any) -> Segments:
    return Segments(x, torch.full((*x.shape[:2], 3), torch.nan), torch.arange(len(x)))


def learn(system: Codec, steps: int) -> list[float]:
    """Train for some steps; return the losses."""
    optimiser = torch.optim.Adam(system.parameters(), lr=1e-2)
    system.train()
    losses = []
    for step in range(steps):
        loss, _ = system.loss(segments(signal(8, seed=step)), Moment(step, steps, 0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module", params=MEMORIES)
def started(request: pytest.FixtureRequest) -> Any:
    """A codec whose codes lie on its latents: those start there with the first step of training."""
    torch.manual_seed(0)
    system = small(memory=request.param).build(SFREQ).train()
    system.loss(segments(signal(16, seed=1)), Moment(0, 1, 0))
    return system.eval()


@pytest.mark.parametrize(("strides", "sfreq", "n_params", "frame_rate", "bit_rate"), [
    ((2, 2, 3), 250.0, 3.15e6, 20.8, 1000), ((2, 3, 3), 1000.0, 3.19e6, 55.6, 2667),
])  # fmt: skip
def test_published_sizes(
    strides: tuple[int, ...], sfreq: float, n_params: float, frame_rate: float, bit_rate: float
) -> None:
    """With the defaults the nets are as large, as fast and as terse as the published ones."""
    system = Config(model=biocodec.Config(strides=strides)).build(sfreq)
    assert sum(p.numel() for p in system.parameters()) == pytest.approx(n_params, rel=0.01)
    assert sfreq / system.model.hop == pytest.approx(frame_rate, abs=0.05)
    assert system.bit_rate == pytest.approx(bit_rate, rel=1e-3)


def test_training_lowers_the_loss() -> None:
    """A few steps on one kind of signal are enough to see it."""
    torch.manual_seed(0)
    losses = learn(small(memory="none").build(SFREQ), 30)
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])


def test_the_first_frame_sees_no_future(started: Codec) -> None:
    """Nothing after the first hop changes its frame; behind reflected padding, as released, it would."""
    x = signal(1)
    changed = x.clone()
    changed[..., started.model.hop :] += 50.0
    with torch.inference_mode():
        outputs = [started.model(each, started.model.init_state(1))[0] for each in (x, changed)]
        conv = started.model.parts()["backbone"].encoder[0]
        released = [F.conv1d(F.pad(each, (conv.left, 0), "reflect"), conv.weight) for each in (x, changed)]
    for name, value in outputs[0].items():
        assert torch.equal(value[:, 0], outputs[1][name][:, 0]), name
    later = signal(1)
    later[..., 1 : conv.left + 1] += 50.0
    with torch.inference_mode():
        released[1] = F.conv1d(F.pad(later, (conv.left, 0), "reflect"), conv.weight)
    assert not torch.equal(released[0][..., 0], released[1][..., 0])


def test_memory_goes_on_across_calls() -> None:
    """Two calls are one call; started afresh for each, as in the released segments, they are not."""
    torch.manual_seed(0)
    model = small(memory="lstm").build(SFREQ).model.eval()
    x = signal(1)
    half = x.shape[-1] // 2
    with torch.inference_mode():
        expected = model(x, model.init_state(1))[0]["latent"][:, -10:]
        _, state = model(x[..., :half], model.init_state(1))
        carried = model(x[..., half:], state)[0]["latent"][:, -10:]
        scale, (*convs, memory, last) = state
        afresh = (scale, (*convs, tuple(torch.zeros_like(part) for part in memory), last))
        segmented = model(x[..., half:], afresh)[0]["latent"][:, -10:]
    assert torch.allclose(carried, expected, atol=1e-6)
    assert not torch.allclose(segmented, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 10.0, 100.0])
def test_codes_do_not_depend_on_the_scale(started: Codec, scale: float) -> None:
    """A device with another gain gives the same codes, and the signal comes back at its own level."""
    model, x = started.model, signal()
    with torch.inference_mode():
        plain, scaled = (model(each, model.init_state(len(x)))[0] for each in (x, scale * x))
        signals = [model.decode(each["codes"], each["gain"])[0] for each in (plain, scaled)]
    assert (plain["codes"] != scaled["codes"]).float().mean() < 1e-3  # a tie may fall to the other side
    assert torch.allclose(scaled["latent"], plain["latent"], atol=1e-3)
    assert (scaled["gain"] - plain["gain"] == round(40 * np.log10(scale))).all()
    assert torch.allclose(signals[1], scale * signals[0], rtol=1e-3, atol=1e-3 * scale)


def test_the_far_end_gives_the_reconstruction(started: Codec) -> None:
    """Tokenizer and decoder parts, stepped frame by frame, give what training calls the reconstruction."""
    model, x = started.model, signal(2)
    parts = model.parts()
    with torch.inference_mode():
        whole = model.reconstruct(x)
        gain = model.tokenizer.backbone.scale.gain_of(whole.gain)
        expected = whole.output.reshape(*gain.shape, model.hop) * gain[..., None]
        near, far, frames = parts["tokenizer"].init_state(2), parts["decoder"].init_state(2), []
        for hop in x.split(model.hop, dim=-1):
            tokens, near = parts["tokenizer"](hop, near)
            sent = torch.cat([tokens["codes"], tokens["gain"][..., None]], dim=-1).transpose(1, 2)
            decoded, far = parts["decoder"](sent.float(), far)
            frames.append(decoded["signal"])
    assert torch.allclose(torch.cat(frames, dim=1), expected, atol=1e-4)


def test_parts_export_with_several_rows(started: Codec) -> None:
    """ONNX Runtime, stepped over one row or three, gives every code and the final state of each part."""
    parts = started.model.parts()
    if started.config.model.memory != "lstm":
        parts = {"tokenizer": parts["tokenizer"]}  # the others have nothing that it, or the LSTM's, has not
    x = signal(3, parts["tokenizer"].left_context // SMALL.hop + 10)
    with torch.inference_mode():
        tokens, _ = started.model(x, started.model.init_state(3))
    assert len(torch.unique(tokens["codes"])) > 10, "codes that never change prove nothing"
    sent = torch.cat([tokens["codes"], tokens["gain"][..., None]], dim=-1).transpose(1, 2).float()
    for name, part in parts.items():
        given = (sent if name == "decoder" else x).numpy()
        graph, content = describe(part, part.n_chans), step_graph(part, part.n_chans)
        assert check_parity(part, content, graph, [given[:1], given]) < 1e-5, name


def test_the_context_is_true_without_memory() -> None:
    """The latent depends on `left_context` samples before its hop and on none before those."""
    torch.manual_seed(0)
    part = small(memory="none").build(SFREQ).parts()["backbone"]
    x = signal(1, part.left_context // part.hop + 2)
    first = x.shape[-1] - part.hop - part.left_context
    for sample, seen in ((first - 1, False), (first, True)):
        poked = x.clone()
        poked[..., sample] += 1e3
        with torch.inference_mode():
            a, b = (part(each, part.init_state(1))[0]["latent"][:, -1] for each in (x, poked))
        assert torch.equal(a, b) is not seen


def test_the_decoders_context_is_true() -> None:
    """A frame of signal depends on `left_context` frames of codes before it and on none before those."""
    torch.manual_seed(0)
    part = small(memory="none").build(SFREQ).parts()["decoder"]
    frames = part.left_context + 5
    x = torch.randint(0, SMALL.quantiser.size, (1, part.n_chans, frames)).float()
    for back, seen in ((part.left_context + 1, False), (part.left_context, True)):
        poked = x.clone()
        poked[:, :-1, frames - 1 - back] = (poked[:, :-1, frames - 1 - back] + 7) % SMALL.quantiser.size
        with torch.inference_mode():
            a, b = (part(each, part.init_state(1))[0]["signal"][:, -1] for each in (x, poked))
        assert torch.equal(a, b) is not seen


def test_every_level_pulls_at_the_encoder() -> None:
    """Each level's commitment has a gradient in the encoder; with a straight-through residual, none but one.

    In the release a level's residual is its input minus its own straight-through output, whose gradient is
    that of the input: the difference has none, and nothing behind the first level reaches the encoder.
    """
    gradients, released = [], []
    for levels in (1, 2, 3):
        torch.manual_seed(0)
        quantiser = quantize.Config(codebooks=levels, size=8, commitment=float(levels))
        model = small(memory="none", quantiser=quantiser).build(SFREQ).model.eval()
        weight = model.tokenizer.backbone.encoder[0].parametrizations.weight.original1
        result = model.reconstruct(signal())
        gradients.append(torch.autograd.grad(result.commitment.sum(), weight)[0])
        released.append(torch.autograd.grad(_released_commitment(model, signal()), weight)[0])
    for before, after in itertools.pairwise(gradients):
        assert not torch.allclose(before, after, rtol=1e-3)
    assert torch.allclose(released[0], released[2])


def _released_commitment(model: BioCodec, x: Any) -> Any:
    """The sum over levels of the commitment, the residual passed on straight through."""
    analysis, _ = model.tokenizer.backbone.analyse(x, model.init_state(len(x)))
    residual, total = model.tokenizer.to_code(analysis.latent), torch.zeros(())
    for level in range(model.tokenizer.n_codebooks):
        book = model.tokenizer.rvq.levels[level]
        chosen = book.vectors(book.nearest(residual.detach()))
        total = total + (residual - chosen).square().mean()
        residual = residual - (residual + (chosen - residual).detach())
    return total


def test_commitment_counts_once(started: Codec) -> None:
    """The loss is its three terms, each once, and the commitment comes weighted from the quantiser."""
    x = signal()
    with torch.inference_mode():
        result = started.model.reconstruct(x)
        terms = started._terms(result)
        z = started.model.tokenizer.to_code(
            started.model.tokenizer.backbone.analyse(x, started.model.init_state(len(x)))[0].latent
        )
        left = [z - started.model.tokenizer.rvq.decode(result.codes[..., :k]) for k in (1, 2, 3)]
    committed = 0.25 * torch.stack(left).square().mean(dim=(0, 2, 3))
    assert torch.allclose(terms["commitment"], committed, rtol=1e-4)
    assert torch.allclose(terms["loss"] - terms["waveform"] - terms["spectral"], committed, atol=1e-6)


def test_validation_reports_fidelity_and_use(started: Codec) -> None:
    """Figures over two batches are those over all rows, and the codes of every level are counted."""
    x = signal(6)
    found = []
    for batches in ([x[:4], x[4:]], [x]):
        started.begin_validation()
        with torch.inference_mode():
            for batch in batches:
                started.validate(segments(batch))
        found.append(started.end_validation())
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert {"loss", "pearson_r", "si_sdr", "lsd", "use_3", "perplexity_3", "bit_rate"} <= set(found[0])
    assert 0 < found[0]["use_1"] <= 1
    assert found[0]["bit_rate"] == pytest.approx(3 * 5 * SFREQ / SMALL.hop)


def test_channels_are_rows() -> None:
    """Two channels teach what two rows teach."""
    torch.manual_seed(0)
    system = small(memory="none").model_copy(update={"flip": 0.0}).build(SFREQ).eval()
    x = signal(4)
    with torch.inference_mode():
        rows, channels = (
            system.loss(segments(each), Moment(0, 1, 0))[1] for each in (x, x.reshape(2, 2, -1))
        )
    assert all(torch.allclose(rows[name], channels[name], rtol=1e-5) for name in rows)


def test_what_is_drawn_for_a_row_is_its_own() -> None:
    """Which rows are turned upside down does not depend on the batch around them, and some are."""
    torch.manual_seed(0)
    system = small(memory="none").build(SFREQ).eval()
    batch = segments(signal(8))
    with torch.inference_mode():
        together = system.loss(batch, Moment(0, 1, 0))[0]
        alone = [system.loss(Segments(*(part[i : i + 1] for part in batch[:3])), Moment(0, 1, 0))[0]
                 for i in range(8)]  # fmt: skip
        system.config = system.config.model_copy(update={"flip": 0.0})
        never = system.loss(batch, Moment(0, 1, 0))[0]
    assert torch.allclose(together, torch.stack(alone).mean(), rtol=1e-6)
    assert not torch.allclose(together, never, rtol=1e-6)


def test_a_code_wider_than_the_latent_is_refused() -> None:
    """A projection that adds dimensions before the quantiser is a mistake in the settings."""
    with pytest.raises(ValueError, match="code_dim must be at most latent"):
        biocodec.Config(latent=8, code_dim=16)
