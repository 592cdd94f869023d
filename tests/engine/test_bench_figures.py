"""Figures of the bench: what is counted, compared and left out."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import numpy as np
import pytest
from made_turns import JOB, made, without_kept
from scipy import signal

from engine.bench.consumers._windows import Windows
from engine.bench.figures import TOLERANCE, beyond, difference, figures, ratios, summary
from engine.bench.job import CHUNK, STREAMS, Job, expected, noise, own, pushed
from engine.bench.meter import Meter, rss_mb
from engine.bench.reference import windows
from streamer.errors import ConfigError

STREAM = JOB.stream


def meter(job: Job = JOB, clock: Any = lambda: 0.0) -> Meter:
    ticks, looks = count(), count(1)
    return Meter(
        job,
        10.0,
        lambda: None,
        clock=clock,
        cpu=lambda: 0.0,
        wall=lambda: next(ticks) / 2,
        memory=lambda: float(next(looks)),
    )


def test_latency_is_from_the_push_of_the_newest_sample() -> None:
    """A window that ends within a chunk is as late as that chunk's push says, whatever stamps say."""
    turn = made(3.0)
    assert {int(end) % CHUNK for end in turn.told.ends} == {0, 5}
    assert turn.latency_ms == pytest.approx(np.full(20, 3.0))


def test_lost_samples_leave_no_latency() -> None:
    """A consumer's count of samples is wrong once one is missing, so no figure rests on it."""
    found = figures([made(3.0, lost=4), made(1.0)])
    assert found["lost"] == 4
    assert found["n"] == 20
    assert found["latency_ms"]["max"] == pytest.approx(1.0)


def test_figures_pool_the_turns() -> None:
    """Percentiles are over all answers, the spread over turns; later than a hop is a missed hop."""
    late = np.ones(20)
    late[3] = 100.5
    found = figures([made(late, cpu=0.02), made(2.0, cpu=0.04)])
    assert found["p50_rounds"] == [1.0, 2.0]
    assert found["latency_ms"]["max"] == 100.5
    assert found["missed"] == 1
    assert found["n"] == 40
    assert found["cpu_percent"] == 3.0
    assert found["growth_mb"] == 1.5
    assert found["rss_mb"] == 101.5
    assert found["startup_s"] == {"ready": 1.5, "first": 3.5}


def test_an_outlet_that_was_late_is_told() -> None:
    """A push behind its schedule is the bench's fault and shows as such."""
    turn = made()
    turn.pushes[40:] += 0.25
    assert figures([made(), turn])["outlet_late_ms"] == pytest.approx(250)


def test_percentiles_are_latencies_that_were_seen() -> None:
    """No percentile lies between two answers or beyond the largest."""
    ms = np.arange(1.0, 1001.0)
    found = summary(np.random.default_rng(0).permutation(ms))
    assert found == {"p50": 501, "p95": 951, "p99": 991, "p99.9": 1000, "max": 1000}
    assert set(summary(np.zeros(0)).values()) == {None}


def test_ratios_are_against_the_floor_and_mne_lsl() -> None:
    """Each base divides everybody else; the floor is nobody's multiple, what is missing is left out."""
    found = {
        name: figures([made(ms, cpu=cpu)])
        for name, ms, cpu in (("floor", 2.0, 0.01), ("bcistream", 3.0, 0.02))
    }
    assert ratios(found) == {"floor": {"bcistream": {"p50": 1.5, "p99": 1.5, "cpu": 2.0}}}
    found["mne-lsl"] = figures([made(6.0, cpu=0.08)])
    assert ratios(found)["mne-lsl"] == {"bcistream": {"p50": 0.5, "p99": 0.5, "cpu": 0.25}}
    found["bcistream"] = figures([made(lost=1, cpu=0.02)])
    assert ratios(found)["floor"]["bcistream"] == {"cpu": 2.0}


def test_what_the_engine_adds_is_beyond_floor_and_step() -> None:
    """Floor and step are subtracted from each backend's median."""
    found = {"floor": figures([made(1.0)]), "bcistream (a)": figures([made(2.5, step_ms={"p50": 0.7})])}
    assert beyond(found) == {"bcistream (a)": pytest.approx(0.8)}
    assert beyond({"bcistream": found["bcistream (a)"]}) == {}


def test_wrong_values_are_seen() -> None:
    """The right windows are the reference's; a sample off, another shape or none at all is not."""
    right = windows(STREAM)
    assert difference(made(), right) == 0
    assert difference(made(shift=1), right) > 100 * TOLERANCE
    assert math.isinf(difference(without_kept(made()), right))
    assert math.isinf(difference(made(), lambda ends: [np.zeros((1, 8)) for _ in ends]))


def test_a_zero_phase_filter_is_not_the_reference() -> None:
    """Filtering both ways, which looks better and cannot be had live, is told apart."""
    end = JOB.samples
    both = signal.sosfiltfilt(STREAM.sos, pushed(STREAM, 0, end), axis=0)[end - STREAM.window :]
    (right,) = expected(STREAM, [end])
    assert np.abs(both - right).max() / right.std() > 100 * TOLERANCE


def test_pushed_is_what_the_outlet_pushes() -> None:
    """Samples by number are those of the pushes, again and again."""
    data = noise(STREAM.n_chans)
    whole = np.concatenate([data[i % len(data)] for i in range(200)])
    assert np.array_equal(pushed(STREAM, 3, 1999), whole[3:1999])


@pytest.mark.parametrize("sizes", [(10,), (1, 9, 3), (700,), (25,)], ids=str)
def test_windows_are_the_newest_rows_at_every_hop(sizes: tuple[int, ...]) -> None:
    """Whatever the chunks, a window is handed on at each multiple of the hop, and holds the last 2 s."""
    rows = pushed(STREAM, 0, 1600)
    seen = []

    class Listening(Meter):
        def answer(self, end: int, value: Any) -> None:
            seen.append(end)
            assert np.array_equal(value, rows[end - STREAM.window : end])

    made_windows = Windows(Listening(JOB, 0.0, lambda: None, clock=lambda: 0.0))
    start = 0
    while start < len(rows):
        n = sizes[start % len(sizes)]
        made_windows.add(rows[start : start + n])
        start += n
    assert seen == list(range(500, 1601, STREAM.hop))


def test_the_meter_counts_after_settling() -> None:
    """What comes before is the first answer and nothing more; the first and the last counted are kept."""
    times = iter(range(1000))
    one = meter(clock=lambda: float(next(times)))
    one.ready()
    for end in range(STREAM.window, JOB.samples + 1, STREAM.hop):
        one.answer(end, np.array([end]))
    told = one.told(0, why="x")
    assert told.ends[0] == JOB.settled + STREAM.hop
    assert told.ends[-1] == JOB.samples
    assert np.array_equal(np.diff(told.times), np.ones(19))
    assert told.kept[0] == (JOB.settled + STREAM.hop, np.array([JOB.settled + STREAM.hop]))
    assert told.kept[-1][0] == JOB.samples
    assert told.ready_s == -10.0
    assert told.first_s == -9.5
    assert told.wall_s == 19 * 0.5
    assert told.rss_mb == (1.0, 2.0)  # asked twice: what is kept at the end is not growth
    assert told.extra == {"why": "x"}


def test_more_answers_than_expected_are_no_error() -> None:
    """A consumer that answers too often is not waited on by a full table."""
    one = meter()
    for _ in range(1000):
        one.answer(JOB.samples, np.zeros(1))
    assert 20 <= len(one.told(0).ends) < 100


def test_memory_is_in_megabytes() -> None:
    """A process with NumPy holds some ten to some thousand MB."""
    held = rss_mb()
    assert held is None or 10 < held < 10_000


def test_a_rate_too_low_for_the_filter_is_refused() -> None:
    """Notch and band lie below half the rate."""
    with pytest.raises(ConfigError, match="at least 128 Hz"):
        own(8, 100.0)
    assert own(3, 128.0).sos.shape[1] == 6
    assert STREAMS["emg-16-2k"].band != STREAMS["eeg-8"].band
