from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from stepping import apply, chunk_of, eeg

from streamer.dsp._rows import rows_times
from streamer.dsp.align import Config
from streamer.errors import StreamMismatch

SFREQ, N = 100.0, 6
INFO = eeg(*"abcdef", sfreq=SFREQ)
MIX = np.random.default_rng(0).standard_normal((N, N)) * 10


def brain(seconds: float, mix: np.ndarray = MIX, seed: int = 1) -> np.ndarray:
    """Return mixed white sources, (n_times, n_chans)."""
    return np.random.default_rng(seed).standard_normal((round(seconds * SFREQ), N)) @ mix.T


def inverse_root(cov: np.ndarray) -> np.ndarray:
    """Return the symmetric inverse square root."""
    values, vectors = np.linalg.eigh(cov)
    return (vectors / np.sqrt(values)) @ vectors.T


@pytest.mark.parametrize("n_chans", [8, 22, 64])
def test_product_of_rows_does_not_depend_on_their_number(n_chans: int) -> None:
    """The spatial product of all steps gives each row the same double, alone or among others."""
    rng = np.random.default_rng(0)
    x, matrix = rng.standard_normal((300, n_chans)), rng.standard_normal((n_chans, n_chans))
    whole = rows_times(x, matrix)
    np.testing.assert_allclose(whole, x @ matrix, atol=1e-12)
    for n in (1, 3, 25):
        np.testing.assert_array_equal(rows_times(x[:n], matrix), whole[:n])


def test_equals_euclidean_alignment_of_the_past() -> None:
    """A block is multiplied by the inverse root of the mean covariance of the blocks before it."""
    x = brain(5).astype(np.float32)
    out = apply(Config(forget_s=None, shrinkage=0.0, clip=1e9), x, INFO).data
    past = x[:400].astype(float)
    wanted = x[400:] @ inverse_root(past.T @ past / 400)
    np.testing.assert_allclose(out[400:], wanted, atol=1e-4)


def test_whitens() -> None:
    """Once it has seen a minute, the covariance of what follows is near the identity."""
    out = apply(Config(shrinkage=0.0), brain(120), INFO).data[6000:]
    np.testing.assert_allclose(np.cov(out.T), np.eye(N), atol=0.15)


def test_first_block_has_unit_power() -> None:
    """Before there is a past, samples are divided by the root mean square so far."""
    x = brain(1).astype(np.float32)
    out = apply(Config(), x, INFO).data
    rms = np.sqrt(np.cumsum(np.square(x.astype(float)).mean(axis=1)) / np.arange(1, 101))
    np.testing.assert_allclose(out, x / rms[:, None], rtol=1e-5)


def test_prior_whitens_from_the_first_sample() -> None:
    """With a population covariance the first block is whitened by it."""
    cov = MIX @ MIX.T
    out = apply(Config(prior=tuple(map(tuple, cov)), shrinkage=0.0), brain(0.5), INFO).data
    np.testing.assert_allclose(out, brain(0.5).astype(np.float32) @ inverse_root(cov), atol=1e-3)


def test_prior_gives_way_to_the_person() -> None:
    """The data outweigh the prior after its ``prior_s``."""
    prior = tuple(map(tuple, 1e4 * np.eye(N)))
    power = [
        np.square(apply(Config(prior=prior, prior_s=s, clip=1e9), brain(30), INFO).data[2000:]).mean()
        for s in (1.0, 1000.0)
    ]
    assert power[0] > 5 * power[1]


def test_rows_that_are_not_valid_do_not_count() -> None:
    """Repaired rows, however large, leave the whitening as it is."""
    x = brain(4)
    bad = np.zeros(400, dtype=bool)
    bad[130:160] = True
    steps = [Config().build(INFO) for _ in range(2)]
    for step, value in zip(steps, (0.0, 1e6), strict=True):
        chunk = chunk_of(np.where(bad[:, None], value, x), INFO)
        step(replace(chunk, valid=~bad))
    np.testing.assert_array_equal(steps[0].whitening, steps[1].whitening)


def test_one_artefact_does_not_take_over() -> None:
    """A block of a thousand times the amplitude weighs as ``clip`` blocks, not as a million."""
    x = brain(32)
    artefact = x.copy()
    artefact[3000:3100] *= 1000
    quiet, hit = (apply(Config(), data, INFO).data[3100:] for data in (x, artefact))
    assert 0.8 < hit.std() / quiet.std() < 1.0


def test_a_lasting_change_gets_through() -> None:
    """When the amplifier's gain rises tenfold for good, the output is back at unit power in two minutes."""
    x = brain(300)
    x[6000:] *= 10
    assert apply(Config(), x, INFO).data[18000:].std() == pytest.approx(1, abs=0.2)


def test_singular_covariance_is_bounded() -> None:
    """After an average reference nothing blows up, by shrinkage or without."""
    x = brain(20) - brain(20).mean(axis=1, keepdims=True)
    for shrinkage in (0.0, 0.05):
        assert np.abs(apply(Config(shrinkage=shrinkage), x, INFO).data).max() < 20


def test_silence_stays_silent() -> None:
    """Zeros come out as zeros, and what follows them is aligned."""
    x = np.concatenate([np.zeros((500, N)), brain(90)])
    out = apply(Config(), x, INFO).data
    assert not out[:500].any()
    assert out[8000:].std() == pytest.approx(1, abs=0.2)


def test_prior_of_another_montage_is_refused() -> None:
    """A prior for other channels is refused with both numbers."""
    with pytest.raises(StreamMismatch, match=r"2 channels.*brings 6"):
        Config(prior=((1.0, 0.0), (0.0, 1.0))).build(INFO)


@pytest.mark.parametrize("prior", [((1.0, 0.0),), ((1.0, 2.0), (0.0, 1.0)), ((0.0,),)])
def test_prior_that_is_no_covariance_is_refused(prior: tuple[tuple[float, ...], ...]) -> None:
    """A matrix that is not square, symmetric and positive is an error of the configuration."""
    with pytest.raises(ValidationError):
        Config(prior=prior)
