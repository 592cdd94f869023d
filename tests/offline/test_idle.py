"""Figures of live use, from decisions made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_played import CLASSES, HOP_S, made

from engine.decision import DecisionConfig, DecisionSettings, EvidenceConfig
from offline.activations import asked_for_nothing
from offline.evaluate.decide import decide
from offline.evaluate.idle import idle_figures
from offline.evaluate.played import ARRAYS, Played
from offline.evaluate.protocol import Live, Trials
from offline.evaluate.scores import score
from offline.redecide import redecide
from streamer.types import Marker

SETTINGS = DecisionConfig(smoothing_s=0, threshold=0.6, release=0.4, dwell_s=0, refractory_s=0)
MARKERS = [
    Marker(0.0, "rest", 4.0),
    Marker(4.0, "left_fist", 4.0),
    Marker(8.0, "rest", 4.0),
    Marker(12.0, "right_fist", 4.0),
    Marker(16.0, "left_fist", 4.0),
]
HITS = ("hits", "wrong_side", "false_activations_per_min", "median_time_to_decision_s")


def figures(spoken: dict[tuple[float, float], str]) -> dict[str, Any]:
    return idle_figures([made(MARKERS, spoken)], CLASSES, "rest", SETTINGS)


def test_hits_wrong_sides_and_false_activations_are_told_apart() -> None:
    """A label's beginning under its cue is a hit, under the other one a wrong side, under rest false."""
    found = figures({(5.0, 7.0): "left_fist", (9.0, 10.0): "right_fist", (14.0, 15.0): "left_fist"})
    assert found["hits"] == round(1 / 3, 4)
    assert found["wrong_side"] == round(1 / 3, 4)
    assert found["false_activations_per_min"] == pytest.approx(8.5714)  # one in twice 3.5 s of rest
    assert found["median_time_to_decision_s"] == pytest.approx(1.6)  # 1.1 s and 2.1 s after their cues


def test_a_label_that_goes_on_is_counted_once() -> None:
    """A label held over from a cue into rest is no false activation: it began when it was asked for."""
    assert figures({(5.0, 10.0): "left_fist"})["false_activations_per_min"] == 0


def test_a_label_that_stays_on_through_rest_is_told_by_its_time() -> None:
    """Held for half of the rest it began once or never; the share of the time it was on says what it did."""
    resting = [Marker(0.0, "left_fist", 4.0), Marker(4.0, "rest", 8.5)]
    held = made(resting, {(1.0, 8.5): "left_fist"}, duration_s=12.5)
    found = idle_figures([held], CLASSES, "rest", SETTINGS)
    assert found["false_activations_per_min"] == 0
    assert found["falsely_on"] == pytest.approx(0.5)
    off = idle_figures([made(resting, {(1.0, 4.0): "left_fist"}, duration_s=12.5)], CLASSES, "rest", SETTINGS)
    assert off["falsely_on"] == 0
    people = [replace(held, subject="S1"), replace(held, subject="S2", labels=np.full(len(held), -1))]
    assert idle_figures(people, CLASSES, "rest", SETTINGS)["falsely_on"] == pytest.approx(0.25)


def test_behind_a_command_of_unknown_length_nothing_is_idle() -> None:
    """Nobody knows when it was over: a label there is no answer, and not false either."""
    points = [Marker(2.0, "left_fist"), Marker(8.0, "right_fist", 2.0), Marker(10.0, "rest", 5.5)]
    one = made(points, {(3.0, 4.0): "left_fist", (5.0, 6.0): "right_fist"}, duration_s=15.5)
    quiet = one.times[asked_for_nothing(one, CLASSES, "rest")]
    assert quiet.min() == pytest.approx(0.1)
    assert not ((quiet > 2.0) & (quiet < 10.5)).any()
    found = idle_figures([one], CLASSES, "rest", SETTINGS)
    assert (found["hits"], found["false_activations_per_min"]) == (0.0, 0.0)
    beeped = replace(one, markers=(*one.markers, Marker(2.2, "beep")))
    np.testing.assert_array_equal(one.times[asked_for_nothing(beeped, CLASSES, "rest")], quiet)
    last = made([Marker(2.0, "left_fist")], {}, duration_s=15.5)
    before = last.times[asked_for_nothing(last, CLASSES, "rest", Live(early_s=1.0, clear_s=0.0))]
    np.testing.assert_allclose(before, np.arange(1, 11) / 10)


def test_the_curve_repeats_the_decision_stage() -> None:
    """At the bundle's own threshold the curve gives the published figures; beyond any probability, none."""
    found = figures({(5.0, 7.0): "left_fist", (9.0, 10.0): "right_fist"})
    curve = {point["threshold"]: point for point in found["curve"]}
    assert [curve[0.6][key] for key in HITS] == [found[key] for key in HITS]
    assert curve[0.9]["hits"] == 0
    assert curve[0.9]["median_time_to_decision_s"] is None


def test_the_curve_is_what_the_decision_stage_gives() -> None:
    """At each bound, of either kind of decision, the figures are those of deciding hop by hop."""
    rng = np.random.default_rng(3)
    some = [drawn_of(made(MARKERS), rng, name) for name in "ABCD"]
    evidence = EvidenceConfig(independent_s=0.4, leak_s=1.0, refractory_s=0.3)
    for settings, bounds in ((SETTINGS, (0.4, 0.5, 0.7)), (evidence, (0.1, 0.5, 1.0))):
        curve = idle_figures(some, CLASSES, "rest", settings, bounds=bounds)["curve"]
        for row, bound in zip(curve, bounds, strict=True):
            one_by_one = [
                replace(one, labels=decide(one, settings.at(bound), CLASSES, "rest")) for one in some
            ]
            alone = idle_figures(one_by_one, CLASSES, "rest", settings, bounds=bounds)
            assert [row[key] for key in HITS] == [alone[key] for key in HITS]
        assert curve[0]["hits"] > 0
        assert curve[0]["false_activations_per_min"] > 0


def drawn_of(played: Played, rng: np.random.Generator, name: str) -> Played:
    """The same recording, somebody else's, with wandering log-probabilities."""
    wander = np.cumsum(rng.normal(scale=0.8, size=played.log_probs.shape), axis=0)
    wander -= wander.mean(axis=0)
    logs = wander - np.log(np.exp(wander).sum(axis=1, keepdims=True))
    return replace(played, subject=name, log_probs=logs.astype(np.float32))


def test_rates_are_averaged_over_people() -> None:
    """Who was recorded three times as long counts no more than anybody else."""
    fires = {(1.0, 2.0): "left_fist", (3.0, 3.5): "left_fist"}
    short = replace(made([Marker(0.0, "rest", 4.0)], fires, duration_s=4.0), subject="A")
    long = replace(made([Marker(0.0, "rest", 12.0)], {}, duration_s=12.0), subject="B")
    twice = replace(short, name="again", labels=np.full_like(short.labels, -1))
    both = idle_figures([short, twice, long], CLASSES, "rest", SETTINGS)
    assert both["false_activations_per_min"] == pytest.approx(60 / 3.5 / 2, abs=1e-3)
    found = idle_figures([short, long], CLASSES, "rest", SETTINGS)
    assert found["per_subject"]["A"]["false_activations_per_min"] == pytest.approx(2 / 3.5 * 60, abs=1e-3)
    assert found["false_activations_per_min"] == pytest.approx(60 / 3.5, abs=1e-3)


def test_the_better_half_are_those_hit_most() -> None:
    """Of three people the two who are hit more often, with their own false activations and delays."""
    hit, late = {(5.0, 7.0): "left_fist"}, {(6.0, 7.0): "left_fist", (14.0, 15.0): "right_fist"}
    never = {(1.0, 2.0): "left_fist", (9.0, 10.0): "left_fist"}
    said = {"A": hit, "B": never, "C": late}
    people = [replace(made(MARKERS, spoken), subject=name) for name, spoken in said.items()]
    found = idle_figures(people, CLASSES, "rest", SETTINGS)
    alone = idle_figures([people[0], people[2]], CLASSES, "rest", SETTINGS)
    assert found["hits_better_half"] == alone["hits"] == 0.5
    assert found["false_better_half"] == alone["false_activations_per_min"] == 0
    assert found["median_s_better_half"] == alone["median_time_to_decision_s"]
    assert found["false_activations_per_min"] > 0
    own = next(row for row in found["curve"] if row["threshold"] == 0.6)
    assert own["hits_better_half"] == found["hits_better_half"]


def test_without_a_command_there_is_no_better_half() -> None:
    """Rest alone has false activations and nothing that could be hit."""
    resting = made([Marker(0.0, "rest", 4.0)], {(1.0, 2.0): "left_fist"}, duration_s=4.0)
    found = idle_figures([resting], CLASSES, "rest", SETTINGS)
    assert found["hits_better_half"] is None
    assert found["false_activations_per_min"] > 0


@pytest.mark.parametrize(
    ("markers", "unknown"),
    [
        ([Marker(0.0, "left_fist", 10.0), Marker(10.0, "right_fist", 30.0)], "false_activations_per_min"),
        ([Marker(0.0, "rest", 8.0)], "hits"),
    ],
)
def test_what_there_was_nothing_to_count_of_is_no_figure(markers: list[Marker], unknown: str) -> None:
    """Without rest no rate, without commands no hits, and no warning."""
    found = idle_figures([made(markers, {(1.0, 2.0): "left_fist"})], CLASSES, "rest", SETTINGS)
    assert found[unknown] is None
    assert {found[name] for name in ("hits", "false_activations_per_min")} != {None}


def test_what_counts_is_the_protocols() -> None:
    """A label a little before its marker is a hit where that is allowed, and false otherwise."""
    early = made([Marker(0.0, "rest", 4.0), Marker(4.0, "left_fist", 4.0)], {(3.5, 6.0): "left_fist"})
    strict = idle_figures([early], CLASSES, "rest", SETTINGS)
    kind = idle_figures([early], CLASSES, "rest", SETTINGS, live=Live(early_s=0.6))
    assert (strict["hits"], kind["hits"]) == (0, 1)
    assert strict["false_activations_per_min"] > 0
    assert kind["false_activations_per_min"] == 0
    assert kind["median_time_to_decision_s"] < 0
    scored = score([early], CLASSES, "rest", Trials(live=Live(early_s=0.6)), decision=SETTINGS)
    assert scored.idle == kind


def test_the_curve_is_drawn_at_the_bounds_that_it_is_given() -> None:
    """Given bounds, each has its row, in rising order."""
    found = idle_figures([made(MARKERS)], CLASSES, "rest", SETTINGS, bounds=(0.7, 0.3))
    assert [point["threshold"] for point in found["curve"]] == [0.3, 0.7]


def test_hops_are_scored_class_by_class() -> None:
    """Perfect decisions score 1, decisions that always say rest one third, and know nothing by nMCC."""
    perfect = figures({(4.0, 8.0): "left_fist", (12.0, 16.0): "right_fist", (16.0, 20.0): "left_fist"})
    assert (perfect["hop_balanced_accuracy"], perfect["nmcc"]) == (1.0, 1.0)
    silent = figures({})
    assert (silent["hop_balanced_accuracy"], silent["nmcc"]) == (0.3333, 0.5)


@pytest.mark.parametrize("settings", [SETTINGS, DecisionConfig(), EvidenceConfig(bound=0.5)])
def test_a_recording_of_fewer_than_two_hops_is_decided(settings: DecisionSettings) -> None:
    """Its hop, if any, gets the label of the same hop with others behind it; stamps are not asked for."""
    whole = made([], {(0.0, 20.0): "left_fist"}, duration_s=2.0, every_s=HOP_S, sure=0.99)
    labels = decide(whole, settings, CLASSES, "rest")
    assert (labels >= 0).any()
    for n in (0, 1):
        short = first_hops(whole, n)
        np.testing.assert_array_equal(decide(short, settings, CLASSES, "rest"), labels[:n])
        assert len(decide(replace(short, every_s=0.0), settings, CLASSES, "rest")) == n
    assert redecide([first_hops(whole, 1)], settings, [0.5], CLASSES, "rest")[0].shape == (1, 1)


def first_hops(whole: Played, n: int) -> Played:
    """The same recording, ended half a hop behind its first hops."""
    arrays = {name: getattr(whole, name)[:n] for name in ARRAYS}
    return replace(whole, **arrays, duration_s=(n + 0.5) * HOP_S)


def test_deciding_anew_forgets_behind_a_hole() -> None:
    """A dwell that a hole interrupts begins again behind it, as in the pipeline."""
    whole = made([], {(0.0, 20.0): "left_fist"}, duration_s=2.0)
    later = whole.times + np.where(whole.times > 0.45, 30.0, 0.0)
    torn = made([], {(0.0, 20.0): "left_fist"}, duration_s=2.0, times=later)
    slow = SETTINGS.model_copy(update={"dwell_s": 0.8})
    first = [int(np.argmax(decide(one, slow, CLASSES, "rest") >= 0)) for one in (whole, torn)]
    assert first == [7, 11]


def test_bad_signal_is_no_time_without_a_false_activation() -> None:
    """Where nothing can be said nothing can be false: a rate is per minute of good signal."""
    resting, fires = [Marker(0.0, "rest", 10.5)], {(9.0, 10.0): "left_fist"}
    good = made(resting, fires, duration_s=10.5)  # settled after half a second
    half = replace(good, valid=good.times > 5.5)
    rates = [
        idle_figures([one], CLASSES, "rest", SETTINGS)["false_activations_per_min"] for one in (good, half)
    ]
    assert rates == [pytest.approx(6, abs=1e-3), pytest.approx(12, abs=1e-3)]
    none = asked_for_nothing(replace(good, valid=np.zeros(len(good), dtype=bool)), CLASSES, "rest")
    assert not none.any()
