"""The sleep stager: what it looks at, what it is trained on, and what it says behind an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_files import write_epochs

torch = pytest.importorskip("torch")

from offline.blocks.log_bands import LogBands  # noqa: E402
from offline.blocks.running_norm import RunningNorm  # noqa: E402
from offline.data.sources import Folder, find  # noqa: E402
from offline.data.trials import Prepared  # noqa: E402
from offline.export_graph import describe, step_graph, stepped  # noqa: E402
from offline.models import sleep  # noqa: E402
from offline.train.batches import Plan  # noqa: E402
from offline.train.cuts.crops import Config as Crops  # noqa: E402

LOOK_S, EPOCH_S, SFREQ = 3, 6, 100  # of the small nights; kept, out of so long
STAGES = ("W", "N2", "REM")
NET = sleep.Config(
    n_classes=3, hop=EPOCH_S * SFREQ, look_s=LOOK_S, members=2, dim=8, edges=(0.4, 4.0, 8.0, 16.0)
)


@pytest.fixture(scope="module")
def net() -> sleep.Sleep:
    """A net whose frozen norms are not the identity."""
    torch.manual_seed(0)
    built = NET.build().eval()
    built.population.running_mean.uniform_(1, 5)
    built.population.running_var.uniform_(0.5, 2)
    return built


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one night of 30 epochs."""
    folder, rng = tmp_path_factory.mktemp("nights"), np.random.default_rng(0)
    data = rng.normal(0, 60, (30, LOOK_S * SFREQ)).astype(np.int16)
    labels = rng.integers(0, 3, 30).tolist()
    write_epochs(folder / "SC4001E0.npz", data, [EPOCH_S * i for i in range(30)], labels, STAGES)
    return folder


def read(nights: Path, **settings: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the samples (n_times,) and the breaks of the folder's only recording."""
    (subject,) = find([Folder(path=nights, subject=r"SC4(\d\d)", **settings)], [])
    ((_, opened),) = subject.openers()
    recording, _ = opened()
    return recording.data[:, 0], recording.breaks


def said(net: sleep.Sleep, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs for a signal (n_times,)."""
    with torch.inference_mode():
        outputs, _ = net(torch.from_numpy(np.ascontiguousarray(x))[None, None], net.init_state(1))
    return {name: value.numpy() for name, value in outputs.items()}


def test_a_folder_fills_the_holes_where_it_is_told_to(nights: Path) -> None:
    """`holes: repeat` gives one signal that begins each epoch with what the file has of it."""
    split, breaks = read(nights)
    whole, none = read(nights, holes="repeat")
    assert len(breaks) == 29
    assert none == ()
    np.testing.assert_array_equal(whole.reshape(30, -1)[:, : LOOK_S * SFREQ].ravel(), split)


def test_what_fills_the_holes_does_not_matter(net: sleep.Sleep, nights: Path) -> None:
    """The net says the same, bit for bit, whatever lies behind its look in each epoch."""
    whole, _ = read(nights, holes="repeat")
    other = whole.reshape(30, -1).copy()
    other[:, LOOK_S * SFREQ :] = np.random.default_rng(1).normal(0, 1e3, other[:, LOOK_S * SFREQ :].shape)
    for name, value in said(net, whole).items():
        np.testing.assert_array_equal(value, said(net, other.ravel())[name])


def test_every_sample_of_the_look_matters(net: sleep.Sleep, nights: Path) -> None:
    """A change of the first or last sample of a look changes what is said of its epoch, and none before."""
    whole, _ = read(nights, holes="repeat")
    before = said(net, whole)["logits"]
    for sample in (0, LOOK_S * SFREQ - 1):
        poked = whole.copy()
        poked[20 * EPOCH_S * SFREQ + sample] += 500
        changed = (said(net, poked)["logits"] != before).any(axis=(0, 2))
        assert changed[20]
        assert not changed[:20].any()


def test_the_exported_step_says_what_the_net_says(net: sleep.Sleep, nights: Path) -> None:
    """An epoch at a time through ONNX Runtime: the logits of one call over the night."""
    whole, _ = read(nights, holes="repeat")
    outputs, _ = stepped(step_graph(net, 1), describe(net, 1), whole[None, None])
    np.testing.assert_allclose(outputs["logits"], said(net, whole)["logits"], atol=2e-5)


def test_logits_are_linear_in_the_latent(net: sleep.Sleep, nights: Path) -> None:
    """A head that is refitted on the latents can say whatever the net's own says."""
    whole, _ = read(nights, holes="repeat")
    outputs = said(net, np.tile(whole, 4))
    latent = np.concatenate([outputs["latent"][0], np.ones((120, 1), np.float32)], axis=1)
    assert outputs["latent"].shape[-1] == net.n_latent
    weight = np.linalg.lstsq(latent, outputs["logits"][0], rcond=None)[0]
    np.testing.assert_allclose(latent @ weight, outputs["logits"][0], atol=1e-4)


@pytest.mark.parametrize("look_s", [2.0, 7.0])
def test_a_look_must_fit(look_s: float) -> None:
    """One shorter than two windows, or longer than an epoch, is refused."""
    with pytest.raises(ValueError, match="look_s"):
        NET.model_copy(update={"look_s": look_s}).build()


def test_a_tone_is_loud_in_its_band_alone() -> None:
    """10 Hz of 20 µV has its whole power, 200 µV², in the band around 10 Hz and next to none elsewhere."""
    bands = LogBands(1, SFREQ, 200, 50, (2.0, 8.0, 12.0, 30.0))
    tone = 20 * torch.sin(2 * torch.pi * 10 * torch.arange(500) / SFREQ)
    below, within, above = bands(tone[None, None])[0, :3].exp().tolist()
    assert within * 4 == pytest.approx(200, rel=0.05)  # density times width
    assert max(below, above) < 1e-3 * within


def test_a_band_without_a_frequency_is_refused() -> None:
    """Borders closer than the window resolves are told, with the distance that it does."""
    with pytest.raises(ValueError, match=r"0\.5 Hz apart"):
        LogBands(1, SFREQ, 200, 50, (2.1, 2.4, 8.0))


def test_a_running_norm_is_that_of_all_frames_so_far() -> None:
    """Mean and variance are those of the past frames, pulled towards 0 and 1 by so many more."""
    x = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0)) * 2 + 3
    norm = RunningNorm(3, prior=5.0)
    got, _ = norm(x, norm.init_state(2))
    past = torch.cat([torch.zeros(2, 5, 3), x], dim=1)
    mean = past.sum(dim=1) / 45
    spread = ((past - mean[:, None]).square().sum(dim=1) + 5) / 45  # the prior's own variance is 1
    torch.testing.assert_close(got[:, -1], (x[:, -1] - mean) / spread.sqrt())


def test_crops_on_hops_keep_epochs_and_labels_together() -> None:
    """Each hop of a crop is an epoch of the recording, under that epoch's label."""
    n, hop = 50, 8
    data = np.repeat(np.arange(n, dtype=np.float32), hop)[:, None]  # each epoch says which it is
    spans = tuple((hop * i, hop * (i + 1), i % 3) for i in range(n))
    plan = Plan(sfreq=2.0, hop=hop, n_classes=3, batch_size=16, epoch_steps=5)
    crops = Crops(length_s=40.0, on_hops=True, class_weights="none")
    drawn = crops.batches([Prepared("00", data, spans, 0.0)], plan)
    for x, hops in (drawn[i] for i in range(5)):
        epochs = x[:, 0].reshape(16, 10, hop)
        assert (epochs == epochs[..., :1]).all()
        assert torch.equal(epochs[..., 0].long() % 3, hops)
