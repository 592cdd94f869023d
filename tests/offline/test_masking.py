"""Masks and spectra: what is hidden, how much of it, and how phase is compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from offline.objectives import masking  # noqa: E402
from offline.objectives.masking import importance, importance_mask, mask  # noqa: E402
from offline.objectives.spectrum import magnitude_loss, n_bins, phase_loss, spectrum  # noqa: E402
from offline.systems import Segments  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

HOP, SFREQ = 40, 200.0


def segments(batch: int = 3, n_chans: int = 6, frames: int = 30, first_key: int = 0) -> Segments:
    rng = np.random.default_rng(first_key)
    x = torch.from_numpy(rng.standard_normal((batch, n_chans, frames * HOP), dtype=np.float32))
    keys = torch.arange(first_key, first_key + batch)
    return Segments(x, torch.zeros(batch, n_chans, 3), keys)


def tone(hertz: float, n: int, amplitude: float = 1.0) -> Any:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(n) / SFREQ + 0.3)


@pytest.mark.parametrize("kind", ["random", "block", "importance"])
def test_a_row_is_masked_alike_in_any_company(kind: Any) -> None:
    """Masks come from the row's own key: alone, in a batch or in another place of it, they are the same."""
    config = masking.Config(kind=kind)
    batch = segments()
    whole = mask(config, batch, HOP, SFREQ, "EEG", 0.5)
    alone = mask(config, Segments(*(part[1:2] for part in batch[:3])), HOP, SFREQ, "EEG", 0.5)
    assert whole.shape == (3, 6, 30)
    assert torch.equal(whole[1:2], alone)
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("kind", ["random", "block"])
def test_random_and_block_masks_hide_what_they_say(kind: Any) -> None:
    """The share is exact where nothing is opened again."""
    hidden = mask(masking.Config(kind=kind, ratio=0.4), segments(), HOP, SFREQ, "EEG", 0.0)
    assert torch.equal(hidden.sum(dim=(1, 2)), torch.full((3,), 72))


def test_the_effective_ratio_of_importance_is_below_the_nominal() -> None:
    """Opened patches and broken runs count: about .44 of nominal .5, as measured on the release."""
    shares = [
        float(mask(masking.Config(), segments(4, first_key=k), HOP, SFREQ, "EEG", 1.0).float().mean())
        for k in range(0, 40, 4)
    ]
    assert 0.40 < np.mean(shares) < 0.455


def test_runs_are_no_longer_than_they_may_be() -> None:
    """However the scores lie, a channel never hides more than five patches in a row."""
    scores = np.zeros((2, 40))
    scores[0] = 1.0  # all of one channel is important
    hidden = importance_mask(
        masking.Config(temperature=0.05, punch=0.0), scores, 1.0, np.random.default_rng(0)
    )
    runs = "".join("x" if h else "." for h in hidden[0]).split(".")
    assert max(map(len, runs)) == 5


def test_the_curriculum_follows_importance_more_and_more() -> None:
    """The share of important patches among the hidden grows with the training."""
    scores = np.linspace(0, 1, 200).reshape(4, 50)

    def mean(progress: float) -> float:
        config = masking.Config(longest_run=50)
        weight = config.start + config.rise * progress
        drawn = [importance_mask(config, scores, weight, np.random.default_rng(k)) for k in range(20)]
        return float(np.mean([scores[hidden].mean() for hidden in drawn]))

    assert 0.5 < mean(0.0) < mean(0.5) < mean(1.0)


def test_importance_of_eeg_is_that_of_the_release() -> None:
    """A burst of alpha before slow drift, and muscle last, among patches of one second."""
    rng, n = np.random.default_rng(0), 200
    noise = [0.1 * rng.standard_normal(n) for _ in range(3)]
    muscle = sum(tone(f, n) for f in (60, 75, 90))
    patches = np.stack([tone(10, n), tone(0.8, n, 3.0), muscle]) + np.stack(noise)
    alpha, drift, emg = importance(torch.tensor(patches.reshape(1, 3, n)), n, SFREQ, "EEG").flatten().tolist()
    assert alpha > drift
    assert alpha > emg


def test_muscle_is_not_noise_in_an_emg() -> None:
    """By the bands of EEG a patch of 60 to 90 Hz comes last; by those of EMG before slow movement."""
    rng, n = np.random.default_rng(0), 200
    muscle = sum(tone(f, n) for f in (60, 75, 90)) + 0.1 * rng.standard_normal(n)
    moved = tone(4, n, 3.0) + 0.1 * rng.standard_normal(n)
    beta = tone(15, n) + 0.1 * rng.standard_normal(n)
    x = torch.tensor(np.stack([muscle, moved, beta]).reshape(1, 3, n))
    as_eeg, as_emg = (importance(x, n, SFREQ, stype).flatten() for stype in ("EEG", "EMG"))
    assert as_eeg.argmin() == 0, "the published bands rank muscle lowest"
    assert as_emg[0] > as_emg[1]
    assert as_emg.argmin() != 0


def test_importance_does_not_depend_on_other_rows_or_on_units() -> None:
    """Scores are spread within a row, and a gain changes none of them."""
    x = segments().x
    expected = importance(x, HOP, SFREQ, "EEG")
    louder = torch.cat([x[:1], 50 * x[1:]])
    assert torch.allclose(importance(louder, HOP, SFREQ, "EEG"), expected, atol=1e-4)
    assert expected.min() >= 0
    assert expected.max() <= 1


def test_phase_is_circular() -> None:
    """Angles of +π and -π are one: the loss between them is 0, where a squared difference is largest."""
    x = torch.randn(5, HOP, generator=torch.Generator().manual_seed(0))
    target = spectrum(x)
    angle = torch.atan2(target.sine, target.cosine)
    around = angle + 2 * math.pi * torch.randint(-2, 3, angle.shape)
    assert torch.allclose(
        phase_loss(around.cos(), around.sin(), target),
        phase_loss(angle.cos(), angle.sin(), target),
        atol=1e-4,
    )
    assert float(phase_loss(angle.cos(), angle.sin(), target).max()) < 0.02
    assert float(phase_loss(-angle.cos(), -angle.sin(), target).min()) > 1.9


def test_phase_of_silent_bins_weighs_nothing() -> None:
    """The phase of a bin counts by its magnitude: turning those far from a tone costs next to nothing."""
    target = spectrum(torch.tensor(tone(50.0, HOP)[None]).float())
    far = torch.ones_like(target.sine)
    far[:, 8:13] = 0  # 50 Hz is bin 10
    near = 1 - far
    wrong_far, wrong_near = 1 - 2 * far, 1 - 2 * near
    assert float(phase_loss(target.cosine * wrong_far, target.sine * wrong_far, target)) < 0.05
    assert float(phase_loss(target.cosine * wrong_near, target.sine * wrong_near, target)) > 1.9


def test_the_half_spectrum_says_it_all() -> None:
    """The bins are those of a real signal, no more; their magnitude is right and silence is finite."""
    x = torch.randn(2000, HOP, generator=torch.Generator().manual_seed(0))
    target = spectrum(x)
    assert target.log_magnitude.shape == (2000, n_bins(HOP))
    power = target.log_magnitude[:, 3:-3].exp().square().mean()
    assert abs(float(power) - 1.0) < 0.05
    assert torch.isfinite(spectrum(torch.zeros(1, HOP)).log_magnitude).all()
    assert float(magnitude_loss(target.log_magnitude, target).abs().max()) == 0.0


def test_some_patch_is_hidden_and_some_is_not() -> None:
    """However few patches there are and however many are opened again; one alone is refused."""
    config = masking.Config(punch=0.9)
    hidden = mask(config, segments(n_chans=1, frames=2), HOP, SFREQ, "EEG", 0.5)
    assert torch.equal(hidden.sum(dim=(1, 2)), torch.ones(3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="nothing to hide"):
        mask(config, segments(n_chans=1, frames=1), HOP, SFREQ, "EEG", 0.5)


def test_importance_of_patches_without_curvature_is_refused() -> None:
    """Two samples have no second difference: the scores would be no numbers."""
    with pytest.raises(ConfigError, match="curvature"):
        importance(segments().x, 2, SFREQ, "EEG")
