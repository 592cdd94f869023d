"""Labels start, hold and end as configured, and never on a bad signal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decision import Decider, DecisionConfig
from engine.framer import Frame
from streamer.types import Decision

CLASSES = ("rest", "left", "right")
REST, LEFT, RIGHT = [6.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 6.0]
SHARP = DecisionConfig(smoothing_s=0, threshold=0.8, release=0.5, dwell_s=0.3, refractory_s=0.4)


def decide(rows: list[list[float]], config: DecisionConfig = SHARP, **frame: object) -> list[Decision]:
    """Step a fresh decider through logits, ten hops a second."""
    decider = Decider(config, CLASSES, "rest", 1.0, 0.1)
    given = {"invalid": 0.0, "warm": True, **frame}
    return [
        decider.step(np.array(row, dtype=np.float32), Frame(i, i / 10, **given))  # type: ignore[arg-type]
        for i, row in enumerate(rows)
    ]


def labels(rows: list[list[float]], **kwargs: object) -> list[str | None]:
    return [decision.label for decision in decide(rows, **kwargs)]  # type: ignore[arg-type]


def test_dwell_delays_the_label() -> None:
    """With a dwell of three hops the label comes with the third, and two hops alone give none."""
    assert labels([LEFT] * 4) == [None, None, "left", "left"]
    assert labels([LEFT] * 2 + [REST] * 3) == [None] * 5


def test_hysteresis_holds_between_release_and_threshold() -> None:
    """A probability between the two keeps a label but does not start one."""
    between = [0.0, float(np.log(4.0)), 0.0]  # p = 2/3
    assert labels([between] * 6) == [None] * 6
    assert labels([LEFT] * 3 + [between] * 3)[3:] == ["left"] * 3


def test_refractory_period_is_silent() -> None:
    """After a label ends, four hops of another class count for nothing; then its dwell begins."""
    rows = [LEFT] * 3 + [RIGHT] * 8
    assert labels(rows) == [None, None, "left"] + [None] * 6 + ["right"] * 2


def test_idle_is_never_a_label() -> None:
    """The idle class may win for ever without being decided for."""
    assert labels([REST] * 10) == [None] * 10


def test_bad_signal_rejects_and_ends() -> None:
    """A frame with too many invalid samples, or before warm-up, is invalid and carries no label."""
    for frame in ({"invalid": 0.2}, {"warm": False}):
        for decision in decide([LEFT] * 6, **frame):
            assert decision.label is None
            assert not decision.valid


def test_non_finite_logits_reject_and_leave_no_trace() -> None:
    """NaN from the model is an invalid decision, and what follows is as if it had not been."""
    decisions = decide([[np.nan, 0.0, 0.0]] + [LEFT] * 3)
    assert not decisions[0].valid
    assert [d.label for d in decisions[1:]] == [None, None, "left"]
    assert all(np.isfinite(d.probabilities).all() for d in decisions)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), max_size=30))
def test_probabilities_are_probabilities(rows: list[list[float]]) -> None:
    """Whatever the logits, probabilities are in [0, 1], sum to one, and the confidence is the largest."""
    for decision in decide(rows, config=DecisionConfig()):
        assert sum(decision.probabilities) == pytest.approx(1)
        assert min(decision.probabilities) >= 0
        assert decision.confidence == max(decision.probabilities)


def test_smoothing_is_exponential() -> None:
    """After one time constant a step in the probabilities has gone 1 - 1/e of its way."""
    config = DecisionConfig(smoothing_s=1.0)
    start, *rest = decide([REST] + [LEFT] * 10, config=config)
    target = np.exp(6) / (np.exp(6) + 2)
    expected = target + (start.probabilities[1] - target) * np.exp(-1)
    assert rest[-1].probabilities[1] == pytest.approx(expected)


def test_a_release_above_the_threshold_ends_at_the_threshold() -> None:
    """Hysteresis never stands the wrong way round, and a threshold is moved there and back without loss."""
    logits = [REST, LEFT, LEFT, REST, REST, LEFT, REST]
    high, alike = DecisionConfig(threshold=0.5, release=0.6), DecisionConfig(threshold=0.5, release=0.5)
    assert decide(logits, config=high) == decide(logits, config=alike)
    assert high.at(0.9).at(0.5) == high
    assert high.at(0.9).ends_below == 0.6


def test_rejected_evidence_leaves_no_trace() -> None:
    """However long a bad signal said "left", the first good hops decide as those of a fresh start."""
    config = DecisionConfig(smoothing_s=2.0, threshold=0.6, release=0.4, dwell_s=0.0, refractory_s=0.0)
    decider = Decider(config, CLASSES, "rest", 1.0, 0.1)
    for i in range(60):
        decider.step(np.array(LEFT, dtype=np.float32), Frame(i, i / 10, 1.0, True))
    after = [
        decider.step(np.array(REST, dtype=np.float32), Frame(i, i / 10, 0.0, True)) for i in range(60, 64)
    ]
    fresh = decide([REST] * 4, config=config)
    assert [d.probabilities for d in after] == [d.probabilities for d in fresh]
    assert [d.label for d in after] == [None] * 4


def test_bad_signal_says_nothing() -> None:
    """While the signal is bad all classes are alike."""
    for decision in decide([LEFT] * 3, invalid=1.0):
        assert decision.probabilities == pytest.approx((1 / 3,) * 3)


@pytest.mark.parametrize(
    ("allowed", "invalid", "valid"), [(0.0, 0.0, True), (0.1, 0.1, True), (0.0, 0.01, False)]
)
def test_as_much_bad_signal_as_is_allowed_is_decided_on(allowed: float, invalid: float, valid: bool) -> None:
    """Where none is allowed a clean signal is decided on all the same."""
    config = SHARP.model_copy(update={"max_invalid": allowed})
    made = decide([LEFT] * 4, config=config, invalid=invalid)
    assert {decision.valid for decision in made} == {valid}
    assert made[-1].label == ("left" if valid else None)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_logits_are_divided_by_the_temperature(temperature: float) -> None:
    """Logits so many times as large decide, bit for bit, as they do without one."""
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    plain, scaled = (Decider(DecisionConfig(), CLASSES, "rest", t, 0.1) for t in (1.0, temperature))
    for i, row in enumerate(rows):
        frame = Frame(i, i / 10, 0.0, warm=True)
        assert scaled.step(np.float32(temperature) * row, frame) == plain.step(row, frame)


def test_a_dwell_does_not_go_on_behind_bad_signal() -> None:
    """What spoke for a class before counts for nothing: its dwell begins anew."""
    said = labels([LEFT] * 2 + [[np.nan, 0.0, 0.0]] + [LEFT] * 3)
    assert said == [None] * 5 + ["left"]
