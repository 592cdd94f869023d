"""BrainRVQ's backbone and tokenizer in every form, and the faults of the release that they must not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backbone_suite import chunked_is_whole, close, geometry_is_as_said, run, signal  # noqa: E402
from pydantic import ValidationError  # noqa: E402

from offline.blocks.electrodes import coordinates  # noqa: E402
from offline.blocks.patches import Scale, patches  # noqa: E402
from offline.export import check_parity, describe, step_graph  # noqa: E402
from offline.models import brainrvq, brainrvq_tokenizer  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

NAMES = ("C3", "Cz", "C4", "Pz", "elsewhere")
FORMS = [
    {"form": form, "latents": latents, "scale": scale}
    for form in ("causal", "window")
    for latents, scale in ((None, "fixed"), (None, "running"), (3, "fixed"))
]

EXPORTED = [FORMS[2], FORMS[1], FORMS[4]]  # the contract suite exports the plain form


def config(**changes: Any) -> brainrvq.Config:
    settings = brainrvq.SMALL.model_dump() | {"ch_names": NAMES, "scale_frames": 3} | changes
    return brainrvq.Config.model_validate(settings)


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: "-".join(map(str, form.values())))
def backbone(request: pytest.FixtureRequest) -> Any:
    """A small backbone of each form, one of its channels of unknown place."""
    torch.manual_seed(0)
    return config(**request.param).build().eval()


@pytest.mark.parametrize("cuts", [[1], [2, 3], [7, 1]])
def test_any_chunking_equals_one_call(backbone: Any, cuts: list[int]) -> None:
    """Streamed by any number of frames, past every context, latents and state are those of one call."""
    chunked_is_whole(backbone, cuts)


def test_geometry_and_causality_are_as_said(backbone: Any) -> None:
    """A frame depends on `left_context` samples before its hop, on none before those, and on no future."""
    geometry_is_as_said(backbone)
    latent = run(backbone, signal(backbone))[0]["latent"]
    assert latent.shape[2:] == (backbone.config.latents or len(NAMES), backbone.n_latent)


def test_rows_are_independent(backbone: Any) -> None:
    """What one stream sees does not touch another stream of the batch."""
    x = signal(backbone, batch=2)
    other = x.clone()
    other[1] *= 5.0
    a, b = run(backbone, x)[0]["latent"], run(backbone, other)[0]["latent"]
    assert close(a[0], b[0])
    assert not close(a[1], b[1])


@pytest.mark.parametrize("form", EXPORTED, ids=lambda form: "-".join(map(str, form.values())))
def test_the_exported_step_is_the_model(form: dict[str, Any]) -> None:
    """ONNX Runtime, stepped hop by hop, gives the latents and the final state."""
    model = config(**form).build().eval()
    graph, content = describe(model, model.n_chans), step_graph(model, model.n_chans)
    assert check_parity(model, content, graph, [signal(model).numpy()]) < 1e-5


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("form", ["causal", "window"])
def test_training_and_stream_see_the_same_net(form: str, frames: int) -> None:
    """The newest frame of a segment has the latent of the stream, also while the window fills."""
    model = config(form=form).build().eval()
    x = signal(model)[..., : frames * model.hop]
    with torch.inference_mode():
        whole = model.net.sequence(x, model.positions[None])
    assert close(run(model, x)[0]["latent"][:, -1], whole[:, -1])


def test_a_segment_longer_than_the_window_is_refused() -> None:
    """The published form has no meaning past its window, and the message says what to change."""
    model = config(form="window").build()
    with pytest.raises(ConfigError, match="crop_s"):
        model.net.sequence(torch.zeros(1, 5, 5 * model.hop), model.positions[None])


def test_editing_one_patch_leaves_the_others_alone() -> None:
    """Norms stay inside a patch: the release's GroupNorm lets patch 3 move the embedding of patch 0."""
    torch.manual_seed(0)
    net = config(scale="fixed").build().eval().net
    x = torch.randn(1, 6, 5, net.config.hop)
    changed = x.clone()
    changed[:, 3, 2] = 50.0
    places = net.electrodes(torch.from_numpy(coordinates(NAMES, "EEG")))[None]
    with torch.inference_mode():
        moved = (net.embed(changed, places) != net.embed(x, places)).any(dim=-1)[0]
    assert moved.nonzero().tolist() == [[3, 2]]


@pytest.mark.parametrize("form", ["causal", "window"])
def test_what_is_hidden_changes_nothing(form: str) -> None:
    """The content of a hidden patch reaches no latent, its own included."""
    torch.manual_seed(0)
    model = config(form=form).build().eval()
    x = torch.randn(2, 5, 4 * model.hop)
    mask = torch.zeros(2, 5, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[1, :, 1] = True
    changed = torch.where(mask.repeat_interleave(model.hop, dim=-1), 7.0, x)
    positions = model.positions.expand(2, -1, -1)
    with torch.inference_mode():
        a, b = (model.net.sequence(each, positions, mask) for each in (x, changed))
    assert torch.equal(a, b)


def test_hidden_patches_know_where_they_are() -> None:
    """Two electrodes hidden in the same frame are told apart, and so are two frames of one electrode."""
    torch.manual_seed(0)
    net = config(form="window").build().eval().net
    x = torch.randn(1, 5, 4 * net.config.hop)
    mask = torch.zeros(1, 5, 4, dtype=torch.bool)
    mask[0, :2] = True
    with torch.inference_mode():
        latent = net.sequence(x, torch.from_numpy(coordinates(NAMES, "EEG"))[None], mask)
    assert not torch.allclose(latent[0, 1, 0], latent[0, 1, 1], atol=1e-3)
    assert not torch.allclose(latent[0, 1, 0], latent[0, 2, 0], atol=1e-3)


def test_loudness_survives_the_norms() -> None:
    """A patch and the same patch ten times louder have different tokens; a norm alone would make them one."""
    torch.manual_seed(0)
    net = config().build().eval().net
    x = torch.randn(1, 1, 1, net.config.hop)
    with torch.inference_mode():
        assert (net.patch(x) - net.patch(10 * x)).abs().max() > 0.1


def test_a_running_scale_takes_the_gain_of_the_device_away() -> None:
    """With it, thirty times the gain gives the same scaled signal, within one step of 0.5 dB."""
    scale = Scale(8, "running", 1.0, 4)
    x = torch.randn(2, 3, 80)
    with torch.inference_mode():
        a, b = (scale(gain * x, scale.init_state(2, 3))[0] for gain in (1.0, 30.0))
    assert float((a / b).log10().abs().max()) * 20 < 0.51
    assert patches(a, 8).shape == (2, 10, 3, 8)


def test_the_published_sizes_are_the_defaults() -> None:
    """Twelve blocks 200 wide: 5.83 million weights in the release, within 1 % here."""
    total = sum(weight.numel() for weight in brainrvq.Config().build().parameters())
    assert abs(total / 5.83e6 - 1) < 0.01


def test_another_montage_shares_the_weights() -> None:
    """The same net serves other channels: where two montages share electrodes, so do their embeddings."""
    torch.manual_seed(0)
    model = config().build().eval()
    moved = model.with_channels(("Cz", "C3"), "EEG")
    assert moved.net is model.net
    assert moved.n_chans == moved.config.n_chans == 2
    assert not moved.training
    assert torch.equal(moved.positions, model.positions[[1, 0]])
    assert run(moved, torch.randn(1, 2, 16))[0]["latent"].shape == (1, 2, 2, 16)
    with pytest.raises(ValueError, match="coordinates"):
        moved.set_positions(np.zeros((3, 3), dtype=np.float32))


@pytest.fixture(scope="module", params=["causal", "window"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """A small tokenizer of each form."""
    torch.manual_seed(0)
    small = brainrvq_tokenizer.SMALL.model_copy(update={"encoder": config(form=request.param)})
    return small.build().eval()


def test_codes_stream_as_they_are_computed_at_once(tokenizer: Any) -> None:
    """Hop by hop, and through ONNX Runtime, the codes are the codes of one call, all of them."""
    x = signal(tokenizer)
    expected = run(tokenizer, x)[0]["codes"]
    state, parts = tokenizer.init_state(1), []
    for start in range(0, x.shape[-1], tokenizer.hop):
        outputs, state = run(tokenizer, x[..., start : start + tokenizer.hop], state)
        parts.append(outputs["codes"])
    assert torch.equal(torch.cat(parts, dim=1), expected)
    assert expected.dtype == torch.int64
    assert expected.shape[2:] == (len(NAMES), tokenizer.n_codebooks)
    assert int(expected.max()) < tokenizer.codebook_size
    graph, content = describe(tokenizer, tokenizer.n_chans), step_graph(tokenizer, tokenizer.n_chans)
    assert check_parity(tokenizer, content, graph, [x.numpy()]) < 1e-5


def test_the_two_domains_do_not_say_the_same(tokenizer: Any) -> None:
    """Each domain quantises a vector of its own."""
    with torch.inference_mode():
        made = tokenizer.net(signal(tokenizer)[..., : 4 * tokenizer.hop], tokenizer.positions[None])
    assert not torch.allclose(made.vectors["time"], made.vectors["frequency"], atol=1e-3)
    assert made.waveform.shape == made.target.shape
    assert made.cosine.shape == made.log_magnitude.shape


def test_heads_that_cannot_rotate_are_refused_in_the_settings() -> None:
    """Pairs are rotated, so each head is of even width: a recipe that says otherwise is told at once."""
    with pytest.raises(ValidationError, match="dim must be a multiple"):
        brainrvq.Config(dim=16, heads=3)
    with pytest.raises(ValidationError, match="dim must be a multiple"):
        brainrvq.Config(dim=6, heads=2)


def test_a_tokenizers_codes_are_per_electrode() -> None:
    """Merged electrodes have no codes of their own: such settings are refused, and said why."""
    with pytest.raises(ValidationError, match="per electrode"):
        brainrvq_tokenizer.Config(encoder=config(latents=2))
