"""What others gained by a refit and what one's own trials say are put together, and decide."""

from __future__ import annotations

import numpy as np
import pytest

from engine.gains import LOSS, RISK, Expected, Gain, expected, row_for

MANY = Gain(2, 6.0, 3.0, 1.0, 1_000_000)


def test_two_sources_are_weighed_by_their_precisions() -> None:
    """The posterior of two normals: between the two, nearer to the surer one, and surer than either."""
    both = expected(MANY, Expected(0.0, 6.0))
    assert both.mean == pytest.approx(6.0 * 0.8, rel=1e-4)
    assert both.sd == pytest.approx((1 / 9 + 1 / 36) ** -0.5, rel=1e-4)


def test_without_own_trials_others_speak_alone() -> None:
    """Nobody's own trials leave the mean of the others; that the others are few makes it less sure."""
    alone, few = expected(MANY, None), expected(Gain(2, 6.0, 3.0, 1.0, 3), None)
    assert alone.mean == few.mean == 6.0
    assert few.sd == pytest.approx(3.0 * np.sqrt(4 / 3))
    assert few.sd > alone.sd
    assert expected(Gain(2, 6.0, 0.0, 6.0, 3), None).sd == 1.0


def test_the_probability_of_a_loss_is_that_of_the_normal() -> None:
    """It agrees with draws."""
    one = Expected(1.5, 2.0)
    drawn = np.random.default_rng(0).normal(one.mean, one.sd, 200_000) < -LOSS
    assert one.loses == pytest.approx(drawn.mean(), abs=0.005)


@pytest.mark.parametrize(
    ("mean", "sd", "worth"), [(5.0, 3.0, True), (0.5, 1.0, True), (-0.1, 0.1, False), (2.0, 9.0, False)]
)
def test_a_head_must_gain_and_hardly_lose(mean: float, sd: float, worth: bool) -> None:
    """A loss that is to be expected, or that is likely, keeps the old head."""
    one = Expected(mean, sd)
    assert one.worth is worth
    assert one.worth == (mean > 0 and one.loses <= RISK)


def test_the_row_of_no_more_trials_counts() -> None:
    """Nothing is promised from more trials than there are."""
    table = (Gain(1, 1.0, 1.0, 0.0, 4), Gain(4, 2.0, 1.0, 0.0, 4))
    assert [row_for(table, trials) for trials in (0, 1, 3, 4, 99)] == [
        None, table[0], table[0], table[1], table[1],
    ]  # fmt: skip
    assert row_for((), 5) is None
