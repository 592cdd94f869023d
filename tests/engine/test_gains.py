"""What others gained by a refit and what one's own trials say are put together, and decide."""

from __future__ import annotations

import numpy as np
import pytest

from engine.gains import LOSS, RISK, SPREAD, Expected, Gain, Told, expected, row_for

ALIKE = Gain(2, (6.0,) * 1000)


def test_two_sources_are_weighed_by_their_precisions() -> None:
    """Where all others are alike it is the posterior of two normals, nearer to the surer one."""
    both = expected(ALIKE, Told(0.0, 2.0))
    assert both.mean == pytest.approx(6.0 * 0.8, rel=1e-3)
    assert both.sds[0] == pytest.approx((1 / SPREAD**2 + 1 / 4) ** -0.5, rel=1e-3)


def test_without_own_trials_others_speak_alone() -> None:
    """The mean is theirs; that they are few makes it less sure."""
    few, many = Gain(2, (2.0, 6.0, 10.0)), Gain(2, (2.0, 6.0, 10.0) * 100)
    assert expected(few, None).mean == pytest.approx(6.0)
    assert expected(many, None).mean == pytest.approx(6.0)
    assert expected(few, None).loses > expected(many, None).loses
    assert few.spread == pytest.approx(4.0 * np.sqrt(4 / 3))
    assert Gain(2, (6.0, 6.0, 6.0)).spread == SPREAD


def test_it_is_the_posterior_of_the_mixture() -> None:
    """Mean and probability of a loss agree with draws of it, weighed by what own trials say of each."""
    others, own, rng = Gain(2, (-4.0, 1.0, 9.0)), Told(-3.0, 4.0), np.random.default_rng(0)
    n = 400_000
    base = rng.normal(others.mean, others.spread, n)
    known = np.array(others.points)[rng.integers(3, size=n)] + SPREAD * rng.standard_normal(n)
    drawn = np.where(rng.random(n) < 1 / 4, base, known)  # one of three, or none of them
    weight = np.exp(-0.5 * ((own.mean - drawn) / own.sd) ** 2)
    found = expected(others, own)
    assert sum(found.weights) == pytest.approx(1.0)
    assert found.mean == pytest.approx(np.average(drawn, weights=weight), abs=0.05)
    assert found.loses == pytest.approx(np.average(drawn < -LOSS, weights=weight), abs=0.005)


def test_who_gained_much_is_no_reason_to_fear_a_loss() -> None:
    """Three people who all gained, one of them much: a normal around them loses with 23 %."""
    found = expected(Gain(2, (0.83, 4.86, 14.68)), Told(0.0, 8.0))
    assert found.worth
    assert not expected(Gain(2, (0.83, 4.86, -14.68)), Told(0.0, 8.0)).worth


def test_own_trials_may_be_out_of_everybodys_reach() -> None:
    """However far, they count; nothing is divided by nought."""
    found = expected(Gain(2, (0.0, 0.5)), Told(500.0, 1.0))
    assert found.mean > 100
    assert np.isfinite(found.loses)


@pytest.mark.parametrize(
    ("mean", "sd", "worth"), [(5.0, 3.0, True), (1.1, 1.0, True), (0.9, 0.1, False), (2.0, 9.0, False)]
)
def test_a_head_must_gain_and_hardly_lose(mean: float, sd: float, worth: bool) -> None:
    """A gain that nobody would notice, or a likely loss, keeps the old head."""
    one = Expected((1.0,), (mean,), (sd,))
    assert one.worth is worth
    assert one.worth == (mean > LOSS and one.loses <= RISK)


def test_the_row_of_no_more_trials_counts() -> None:
    """Nothing is promised from more trials than there are."""
    table = (Gain(1, (1.0, 1.0)), Gain(4, (2.0, 2.0)))
    assert [row_for(table, trials) for trials in (0, 1, 3, 4, 99)] == [
        None, table[0], table[0], table[1], table[1],
    ]  # fmt: skip
    assert row_for((), 5) is None
