"""Histograms tell the truth within their bin width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.telemetry import Histogram, Telemetry
from streamer.types import Decision


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=300), st.sampled_from([50, 95, 99, 99.9]))
def test_percentiles_are_those_of_the_data(values: list[float], q: float) -> None:
    """Every percentile is the data's own, at most one bin (2.4 %) above it."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = float(np.percentile(values, q, method="inverted_cdf"))
    assert exact * 0.999 <= histogram.percentile(q) <= exact * 1.025
    assert histogram.max_ms == max(values)


def test_empty_has_no_percentiles() -> None:
    """Nothing counted is null, not zero."""
    assert set(Histogram().summary().values()) == {None}


@pytest.mark.parametrize("ms", [-5.0, 0.0, 1e9])
def test_out_of_range_is_counted(ms: float) -> None:
    """A stamp from the future or an endless delay lands in the end bins."""
    histogram = Histogram()
    histogram.add(ms)
    assert histogram.n == 1


def test_missed_deadlines_and_stamps_from_the_future_are_counted() -> None:
    """Later than a hop is late; stamped well after it left is early; in between is neither."""
    telemetry = Telemetry(hop_s=0.1)
    decision = Decision(9, 10.0, (0.5, 0.5), None, 0.5, True)
    for now in (10.05, 10.2, 9.995, 9.9):
        telemetry.emitted(decision, now)
    assert (telemetry.decisions, telemetry.late, telemetry.early) == (4, 1, 1)
