"""Figures of live use, from decisions made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from made_played import CLASSES, made

from engine.decision import DecisionConfig
from offline.evaluate.decide import decide
from offline.evaluate.idle import idle_figures
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


def figures(spoken: dict[tuple[float, float], str]) -> dict[str, object]:
    return idle_figures([made(MARKERS, spoken)], CLASSES, "rest", SETTINGS)


def test_hits_wrong_sides_and_false_activations_are_told_apart() -> None:
    """A label's beginning under its cue is a hit, under the other one a wrong side, under rest false."""
    found = figures({(5.0, 7.0): "left_fist", (9.0, 10.0): "right_fist", (14.0, 15.0): "left_fist"})
    assert found["hits"] == round(1 / 3, 4)
    assert found["wrong_side"] == round(1 / 3, 4)
    assert found["false_activations_per_min"] == pytest.approx(7.5)  # one in eight seconds of rest
    assert found["median_time_to_decision_s"] == pytest.approx(1.6)  # 1.1 s and 2.1 s after their cues


def test_a_label_that_goes_on_is_counted_once() -> None:
    """A label held over from a cue into rest is no false activation: it began when it was asked for."""
    assert figures({(5.0, 10.0): "left_fist"})["false_activations_per_min"] == 0


def test_the_curve_repeats_the_decision_stage() -> None:
    """At the bundle's own threshold the curve gives the published figures; beyond any probability, none."""
    found = figures({(5.0, 7.0): "left_fist", (9.0, 10.0): "right_fist"})
    curve = {point["threshold"]: point for point in found["curve"]}
    assert [curve[0.6][key] for key in HITS] == [found[key] for key in HITS]
    assert curve[0.9]["hits"] == 0
    assert curve[0.9]["median_time_to_decision_s"] is None


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


def test_deciding_anew_forgets_behind_a_hole() -> None:
    """A dwell that a hole interrupts begins again behind it, as in the pipeline."""
    whole = made([], {(0.0, 20.0): "left_fist"}, duration_s=2.0)
    later = whole.times + np.where(whole.times > 0.45, 30.0, 0.0)
    torn = made([], {(0.0, 20.0): "left_fist"}, duration_s=2.0, times=later)
    slow = SETTINGS.model_copy(update={"dwell_s": 0.8})
    first = [int(np.argmax(decide(one, slow, CLASSES, "rest") >= 0)) for one in (whole, torn)]
    assert first == [7, 11]
