"""Rates of people who were not recorded for the same time: each of them counts alike."""

from __future__ import annotations

import numpy as np
import pytest

from offline.rates import gamma_shape, upper_limit


@pytest.mark.parametrize("minutes", [(1.0, 9.0), (9.0, 1.0)])
def test_whoever_was_recorded_longer_counts_no_more(minutes: tuple[float, float]) -> None:
    """Half of a thousand people have none, half two a minute: the limit is about one, whoever was longer."""
    times = np.tile(minutes, 500)
    counts = times * np.tile([0.0, 2.0], 500)
    assert 1.0 <= upper_limit(counts[:, None], times, 0.8).item() < 1.2


@pytest.mark.parametrize("shape", [0.5, 2.0])
@pytest.mark.parametrize("minutes", [(2.0, 8.0), (8.0, 2.0), (80.0, 20.0)])
def test_how_people_differ_does_not_hang_on_who_was_recorded_longer(
    minutes: tuple[float, float], shape: float
) -> None:
    """The shape of a gamma distribution is found again where the rarer or the more frequent were longer."""
    rng = np.random.default_rng(0)
    rates = np.sort(rng.gamma(shape, size=20000))
    times = np.repeat(minutes, 10000)
    found = gamma_shape(rng.poisson(rates * times)[:, None] / times[:, None], times)
    assert found.item() == pytest.approx(shape, rel=0.1)
