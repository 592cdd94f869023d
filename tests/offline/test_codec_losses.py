"""Losses and metrics of codecs: one figure per row, and the figures they should be."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from offline.objectives import codec  # noqa: E402
from offline.objectives.codec import SpectralLoss  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

N_FFTS = (32, 64)
T = 512


def signal(rows: int = 3, seed: int = 0) -> Any:
    return torch.randn(rows, T, generator=torch.Generator().manual_seed(seed))


def figures(output: Any, target: Any) -> dict[str, Any]:
    return {
        "smooth_l1": codec.smooth_l1(output, target, 0.7),
        "spectral": codec.SpectralLoss(N_FFTS)(output, target),
        "pearson_r": codec.pearson_r(output, target),
        "si_sdr": codec.si_sdr(output, target),
        "lsd": codec.log_spectral_distance(output, target, 64),
    }


def test_each_row_has_its_own_figure() -> None:
    """The figure of a row is that of the row alone, whatever else is in the batch."""
    output, target = signal(seed=1), signal()
    together = figures(output, target)
    for row in range(len(target)):
        for name, value in figures(output[row : row + 1], target[row : row + 1]).items():
            assert together[name].shape == (3,)
            assert torch.allclose(together[name][row], value[0], atol=1e-6), name


def test_a_perfect_copy_is_perfect() -> None:
    """Nothing is lost, correlation is 1, and the distortion is far below the signal."""
    got = figures(signal(), signal())
    for name in ("smooth_l1", "spectral", "lsd"):
        assert not got[name].any()
    assert torch.allclose(got["pearson_r"], torch.ones(3))
    assert (got["si_sdr"] > 80).all()


def test_si_sdr_of_known_noise() -> None:
    """Noise at a tenth of the power is 10 dB down, at any scale of the output."""
    target, noise = signal(1) - signal(1).mean(), signal(1, seed=1)
    noise = noise - noise.mean()
    noise = noise - (noise * target).sum() / target.square().sum() * target
    noise = noise * target.norm() / noise.norm() * math.sqrt(0.1)
    for scale in (0.01, 1.0, 100.0):
        got = codec.si_sdr(scale * (target + noise), target)
        assert got.item() == pytest.approx(10.0, abs=1e-3)


def test_pearson_r_ignores_level_and_offset() -> None:
    """Correlation is that of NumPy, unchanged by gain and offset, and 0 for a flat line."""
    output, target = signal(seed=1) + signal(), signal()
    expected = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(output, target, strict=True)]
    assert codec.pearson_r(5 * output + 3, target).tolist() == pytest.approx(expected, abs=1e-5)
    assert codec.pearson_r(torch.ones(1, T), signal(1)).item() == pytest.approx(0.0, abs=1e-6)


def test_log_spectral_distance_of_a_gain() -> None:
    """Twice the amplitude is 6.02 dB away in every bin."""
    got = codec.log_spectral_distance(2 * signal(), signal(), 64)
    assert got.tolist() == pytest.approx([20 * math.log10(2)] * 3, abs=0.02)


def test_log_spectral_distance_ignores_the_stop_band() -> None:
    """What lies 40 dB below the signal's mean does not count: filters leave noise of any level there."""
    time = torch.arange(T) / 250
    target = torch.sin(2 * math.pi * 10 * time)[None]
    output = target + 1e-4 * signal(1)
    assert codec.log_spectral_distance(output, target, 64).item() < 0.5


def test_phase_is_circular() -> None:
    """A tone on either side of half a turn is as far from a tone as any other two of that angle."""
    time = torch.arange(T) / 250

    def tone(angle: float) -> Any:
        return torch.cos(2 * math.pi * 30.1 * time + angle)[None]

    loss = codec.SpectralLoss(N_FFTS)
    across, elsewhere = (loss(tone(a - 0.1), tone(a + 0.1)).item() for a in (math.pi, 1.0))
    assert across == pytest.approx(elsewhere, rel=0.02)
    assert loss(tone(0.0), tone(math.pi)).item() > 5 * across


def test_silence_has_gradients() -> None:
    """The phase of nothing has no gradient that is not a number, nor a huge one."""
    for level in (0.0, 1e-5):
        output = (level * signal(1, seed=1)).requires_grad_()
        codec.SpectralLoss(N_FFTS)(output, signal(1)).sum().backward()
        assert output.grad is not None
        assert output.grad.abs().max() < 0.1, level


def test_a_window_longer_than_the_signal_is_refused() -> None:
    """The message says which crop does not hold which window."""
    with pytest.raises(ConfigError, match=r"100 samples.*128"):
        SpectralLoss((32, 128))(torch.zeros(1, 100), torch.zeros(1, 100))
