"""What streams cost is only told of streams that decide as they would alone."""

from __future__ import annotations

import pytest

from engine.bench import many as bench_many
from engine.bench.many import fed, streams_per_core
from engine.bundle import Bundle, load
from streamer.errors import BundleError


def test_each_count_has_its_figures(toy_rows: Bundle) -> None:
    """One row for each count, all of them finite and of one accord."""
    rows = streams_per_core(toy_rows, (1, 20), seconds=1.0, settle_s=2.0)
    assert [row["streams"] for row in rows] == [1, 20]
    for row in rows:
        assert row["per_core"] == pytest.approx(row["streams"] / row["cpu_s_per_s_of_signal"], rel=0.05)
        assert row["step_ms"] > 0
        assert row["worst_difference"] < 1e-6


def test_streams_that_decide_otherwise_are_not_timed(
    toy_rows: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference beyond what the order of a sum explains is refused."""
    monkeypatch.setattr(bench_many, "bar", lambda backend: -1.0)
    with pytest.raises(BundleError, match="Stream 0 of 1 decides otherwise than alone"):
        streams_per_core(toy_rows, (1,), seconds=1.0, settle_s=2.0)


def test_a_bundle_of_one_row_is_refused(toy: Bundle) -> None:
    """In the words of the bundle itself, before anything is run."""
    with pytest.raises(BundleError, match="takes one stream at a time; 2 were asked of it"):
        streams_per_core(toy, (2,), seconds=1.0, settle_s=1.0)


def test_the_rest_of_a_montage_is_interpolated() -> None:
    """A bundle of 22 channels that asks for 8 is fed 8, and the report says both."""
    bundle = load("motor-imagery")
    (row,) = streams_per_core(bundle, (1,), seconds=1.0, settle_s=4.0)
    assert row["per_core"] > 0
    told = fed(bundle)
    assert (told["channels"], told["interpolated"]) == (8, 14)
    assert "8 channels at 250 Hz a stream; 14 more" in told["stream"]
    assert "acquisition not included" in told["stream"]


def test_streams_have_the_channels_that_the_bundle_cannot_do_without() -> None:
    """Where 8 are too few the streams have more."""
    bundle = load("workload")
    assert [row["streams"] for row in streams_per_core(bundle, (1, 2), seconds=1.0, settle_s=5.0)] == [1, 2]
    assert fed(bundle)["channels"] == bundle.manifest.input.min_present == 10
