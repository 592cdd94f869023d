"""The sequential test: what makes evidence grow, when a label begins, and what does not matter to either."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from toy_bundle import CHANNELS, SFREQ

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle
from engine.decision import Decider, EvidenceConfig
from engine.framer import Frame
from engine.pipeline import Pipeline
from streamer.types import Decision, StreamInfo, make_chunk

CLASSES = ("rest", "left", "right")
PLAIN = EvidenceConfig(
    bound=2.0, release=0.5, margin=0.0, independent_s=0.5, leak_s=2.0, refractory_s=0.0, smoothing_s=0.0
)
Rows = list[list[float]]


def decide(
    rows: Rows, config: EvidenceConfig = PLAIN, hop_s: float = 0.1, classes: tuple[str, ...] = CLASSES
) -> list[Decision]:
    """Step a fresh decider through logits."""
    idle = "rest" if "rest" in classes else None
    decider = Decider(config, classes, idle, 1.0, hop_s)
    return [step(decider, i, row) for i, row in enumerate(rows)]


def step(decider: Decider, i: int, row: list[float], invalid: float = 0.0) -> Decision:
    return decider.step(np.array(row, dtype=np.float32), Frame(i, i / 10, invalid, True))


def labels(*args: object, **kwargs: object) -> list[str | None]:
    return [one.label for one in decide(*args, **kwargs)]  # type: ignore[arg-type]


def drawn(seed: int, n: int = 400, n_classes: int = 3) -> Rows:
    """Logits that wander, and now and then speak for one class."""
    rng = np.random.default_rng(seed)
    wander = np.cumsum(rng.normal(scale=0.3, size=(n, n_classes)), axis=0)
    rows: Rows = (wander - wander.mean(axis=0)).tolist()
    return rows


@pytest.mark.parametrize("idle_prior", [0.2, 1 / 3, 0.6])
def test_what_says_nothing_is_no_evidence(idle_prior: float) -> None:
    """Probabilities that are just the prior never make a label, however low the bound."""
    others = (1 - idle_prior) / 2
    row = np.log([idle_prior, others, others]).tolist()
    config = EvidenceConfig(**PLAIN.model_dump() | {"idle_prior": idle_prior, "bound": 1e-4, "release": 0})
    decided = decide([row] * 2000, config)
    assert [one.label for one in decided] == [None] * 2000
    assert decided[-1].confidence < 0.01  # single precision of the logits, not evidence


@pytest.mark.parametrize("idle_prior", [0.2, 1 / 3, 0.6])
def test_evidence_is_what_exceeds_the_prior(idle_prior: float) -> None:
    """What is left to the other classes they share: half a nat more than the share of one is half a nat."""
    share = math.log((1 - idle_prior) / 2)
    update = {"idle_prior": idle_prior, "leak_s": 0.0, "independent_s": 0.1}
    config = EvidenceConfig(**PLAIN.model_dump() | update)
    last = decide([[math.log(idle_prior), share + 0.5, share]], config)[-1]
    assert last.confidence * config.bound == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("leak_s", [0.0, 0.5, 3.0])
def test_the_rate_of_hops_does_not_matter(leak_s: float) -> None:
    """The same log-odds over time at 8 and at 16 hops a second decide within one hop of each other."""
    config = EvidenceConfig(**PLAIN.model_dump() | {"leak_s": leak_s, "release": 0.3, "bound": 0.8})
    slow = [[0.0, 1.5 * math.sin(i / 7), -1.0] for i in range(160)]
    fast = list(itertools.chain.from_iterable((row, row) for row in slow))
    begun_slow = [(i + 1) / 8 for i, one in enumerate(begins(labels(slow, config, 1 / 8))) if one]
    begun_fast = [(i + 1) / 16 for i, one in enumerate(begins(labels(fast, config, 1 / 16))) if one]
    assert len(begun_slow) == len(begun_fast) > 2
    assert np.allclose(begun_slow, begun_fast, atol=1 / 8)


@pytest.mark.parametrize("leak_s", [0.0, 0.2, 2.0])
def test_the_sum_after_a_second_is_the_same_whatever_the_hop(leak_s: float) -> None:
    """A ratio of 1 nat that stays adds up, as it fades, to what it does where hops are without end."""
    config = EvidenceConfig(**PLAIN.model_dump() | {"leak_s": leak_s, "bound": 8.0})
    expected = (leak_s * (1 - math.exp(-1 / leak_s)) if leak_s else 1.0) / config.independent_s
    for hops in (2, 5, 40):
        last = decide([[0.0, 1.0, 0.0]] * hops, config, 1 / hops)[-1]
        assert last.confidence * config.bound == pytest.approx(expected)


def begins(said: list[str | None]) -> list[bool]:
    return [now is not None and now != last for now, last in zip(said, [None, *said], strict=False)]


def test_evidence_of_overlapping_hops_counts_once() -> None:
    """A ratio of 1 nat for one independent time is 1 nat, though eight hops have said it."""
    config = EvidenceConfig(**PLAIN.model_dump() | {"independent_s": 0.8, "leak_s": 0.0})
    last = decide([[0.0, 1.0, 0.0]] * 8, config)[-1]
    assert last.confidence * config.bound == pytest.approx(1.0)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), low=st.floats(0.5, 3), more=st.floats(0, 3))
def test_a_higher_bound_never_activates_more_often(seed: int, low: float, more: float) -> None:
    """With one class that may be the label, raising the bound takes activations away and adds none."""
    rows = drawn(seed, n_classes=2)
    counts = [
        sum(begins(labels(rows, PLAIN.at(bound), classes=("rest", "left")))) for bound in (low, low + more)
    ]
    assert counts[1] <= counts[0]


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 1599), max_size=20, unique=True))
def test_chunks_do_not_matter(toy: Bundle, cuts: list[int]) -> None:
    """However the samples arrive, every field of every decision is the same."""
    assert through(toy, sorted(cuts)) == through(toy, [])


def through(bundle: Bundle, cuts: list[int]) -> list[Decision]:
    """Run ten seconds of noise through a pipeline, cut there."""
    n, names = 1600, CHANNELS
    info = StreamInfo("toy", "toy", "EEG", SFREQ, names, ("eeg",) * len(names), "uV")
    noise = np.random.default_rng(5).normal(size=(n, len(names))).astype(np.float32) * 20
    edges = [0, *cuts, n]
    with OnnxRuntime().open(bundle) as backend:
        pipeline = Pipeline(bundle, backend, info, decision=PLAIN.at(0.5))
        return [
            one
            for start, stop in itertools.pairwise(edges)
            for one in pipeline.process(make_chunk(noise[start:stop], start, np.arange(start, stop) / SFREQ))
        ]


def test_reset_is_a_fresh_start() -> None:
    """After a reset the same signal is decided as by a new decider, to the bit."""
    decider = Decider(PLAIN, CLASSES, "rest", 1.0, 0.1)
    for i, row in enumerate([*drawn(1), *[[0.0, 3.0, 0.0]] * 20]):  # with much evidence at the end
        step(decider, i, row)
    decider.reset()
    again = [step(decider, i, row) for i, row in enumerate(drawn(2))]
    assert again == decide(drawn(2))
    assert any(one.label for one in again)


def test_bad_signal_stops_and_forgets() -> None:
    """One bad hop ends the label, and what had spoken for it before counts no more."""
    decider = Decider(PLAIN, CLASSES, "rest", 1.0, 0.1)
    before = [step(decider, i, [0.0, 3.0, 0.0]) for i in range(20)]
    bad = step(decider, 20, [0.0, 3.0, 0.0], invalid=0.5)
    after = [step(decider, i, [0.0, 3.0, 0.0]) for i in range(21, 41)]
    assert before[-1].label == "left"
    assert (bad.label, bad.valid, bad.confidence) == (None, False, 0.0)
    assert [one.label for one in after] == [one.label for one in before]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_never_fire(value: float) -> None:
    """Neither do they leave a trace in what follows."""
    decider = Decider(PLAIN, CLASSES, "rest", 1.0, 0.1)
    bad = [step(decider, i, [0.0, value, 0.0]) for i in range(50)]
    assert not any(one.valid or one.label for one in bad)
    assert [step(decider, i, row).label for i, row in enumerate(drawn(3))] == labels(drawn(3))


def test_a_class_must_lead_the_next_one() -> None:
    """Where two classes have the same evidence none is decided for; a lead of the margin decides."""
    config = EvidenceConfig(**PLAIN.model_dump() | {"margin": 0.5})
    assert set(labels([[0.0, 3.0, 3.0]] * 30, config)) == {None}
    assert labels([[0.0, 3.0, 2.0]] * 30, config)[-1] == "left"


def test_one_wild_hop_decides_nothing() -> None:
    """A hop's ratio is clipped, so a single one of any size stays below a bound of some hops."""
    assert labels([[0.0, 1e6, 0.0]]) == [None]


def test_a_label_is_held_until_its_evidence_is_gone() -> None:
    """It stays while the evidence lies between release and bound, and ends below release."""
    rows = [[0.0, 3.0, 0.0]] * 10 + [[0.0, 0.0, 0.0]] * 100
    said = labels(rows)
    last = max(i for i, one in enumerate(said) if one)
    peak = decide(rows[:10])[-1]
    assert peak.label == "left"
    assert 20 < last < 60  # a leak of 2 s takes it from some 3 nats to 0.5


def test_without_idle_the_next_class_is_the_rival() -> None:
    """Two classes alike are no evidence; the one that leads is decided for, by its lead over the next."""
    classes = ("calm", "busy", "asleep")
    assert set(labels([[1.0, 1.0, 1.0]] * 50, classes=classes)) == {None}
    assert set(labels([[3.0, 3.0, -9.0]] * 50, classes=classes)) == {None}
    assert labels([[0.0, 2.0, -9.0]] * 50, classes=classes)[-1] == "busy"
    config = EvidenceConfig(**PLAIN.model_dump() | {"idle_prior": 0.1, "leak_s": 0.0, "independent_s": 0.1})
    for first in (
        2.0,
        -9.0,
    ):  # which class the others are does not matter, nor a prior of an idle that is not
        last = decide([[0.5, 1.0, -9.0], [first, first + 1.0, -9.0]], config, classes=classes)[-1]
        assert last.confidence * config.bound == pytest.approx(1.5)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), max_size=30))
def test_confidence_is_a_share(rows: Rows) -> None:
    """Whatever the logits, it lies in 0..1, is 1 where a label begins, and probabilities sum to 1."""
    decided = decide(rows, PLAIN.at(0.5))
    starts = begins([one.label for one in decided])
    for one, began in zip(decided, starts, strict=True):
        assert 0 <= one.confidence <= 1
        assert one.confidence == 1 or not began
        assert sum(one.probabilities) == pytest.approx(1)


def test_confidence_is_the_share_of_the_bound_that_is_there() -> None:
    """Half of the bound is one half, however low the bound; nothing is 0, and 1 where a bound of 0 is met."""
    config = EvidenceConfig(**PLAIN.model_dump() | {"independent_s": 0.1, "leak_s": 0.0})
    assert decide([[0.0, 1.0, 0.5]], config)[-1].confidence == pytest.approx(0.5)
    assert decide([[0.0, -1.0, -1.0]], config)[-1].confidence == 0
    assert decide([[0.0, 1.0, 0.5]], config.at(0.0))[-1].confidence == 1


def test_bounds_out_of_order_are_refused() -> None:
    """A bound that evidence cannot reach is an error."""
    EvidenceConfig(**PLAIN.model_dump() | {"bound": 2.0, "ceiling": 2.0})  # alike is in order
    with pytest.raises(ValidationError, match="must not exceed"):
        EvidenceConfig(**PLAIN.model_dump() | {"ceiling": 1.0})


def test_a_release_above_the_bound_ends_at_the_bound() -> None:
    """A label that may begin may go on, and a bound is moved there and back without loss."""
    rows, high = drawn(3), PLAIN.model_copy(update={"release": 3.0})
    assert decide(rows, high) == decide(rows, PLAIN.model_copy(update={"release": 2.0}))
    assert high.at(4.0).at(2.0) == high
    assert high.at(4.0).ends_below == 3.0
