"""Figures of live use, from decisions made by hand."""

from __future__ import annotations

from engine.bundle import Readout
from engine.decision import DecisionConfig
from offline.idle import idle_figures
from streamer.types import Decision, Marker

CLASSES = ("rest", "left_fist", "right_fist")
HOP_S = 0.1
READOUT = Readout(
    classes=CLASSES,
    idle="rest",
    decision=DecisionConfig(smoothing_s=0, threshold=0.6, release=0.4, dwell_s=0, refractory_s=0),
)
MARKERS = [
    Marker(0.0, "rest", 4.0),
    Marker(4.0, "left_fist", 4.0),
    Marker(8.0, "rest", 4.0),
    Marker(12.0, "right_fist", 4.0),
    Marker(16.0, "left_fist", 4.0),
]


def say(labels: dict[tuple[float, float], str]) -> list[Decision]:
    """Twenty seconds of decisions: the class of the span they fall into, else rest."""
    decisions = []
    for i in range(200):
        time = (i + 1) * HOP_S
        now = next((name for (a, b), name in labels.items() if a < time <= b), "rest")
        probabilities = tuple(0.8 if name == now else 0.1 for name in CLASSES)
        decisions.append(Decision(i * 16, time, probabilities, None if now == "rest" else now, 0.8, True))
    return decisions


def test_hits_wrong_sides_and_false_activations_are_told_apart() -> None:
    """A label's beginning under its cue is a hit, under the other one a wrong side, under rest false."""
    spoken = {(5.0, 7.0): "left_fist", (9.0, 10.0): "right_fist", (14.0, 15.0): "left_fist"}
    figures = idle_figures([(say(spoken), MARKERS)], READOUT, HOP_S)
    assert figures["hits"] == round(1 / 3, 4)
    assert figures["wrong_side"] == round(1 / 3, 4)
    assert figures["false_activations_per_min"] == 7.5  # one in eight seconds of rest
    assert figures["median_time_to_decision_s"] == 1.6  # 1.1 s and 2.1 s after their cues


def test_a_label_that_goes_on_is_counted_once() -> None:
    """A label held over from a cue into rest is no false activation: it began when it was asked for."""
    figures = idle_figures([(say({(5.0, 10.0): "left_fist"}), MARKERS)], READOUT, HOP_S)
    assert figures["false_activations_per_min"] == 0


def test_the_curve_repeats_the_decision_stage() -> None:
    """At the bundle's own threshold the curve gives the published figures; beyond any probability, none."""
    spoken = {(5.0, 7.0): "left_fist", (9.0, 10.0): "right_fist"}
    figures = idle_figures([(say(spoken), MARKERS)], READOUT, HOP_S)
    curve = {point["threshold"]: point for point in figures["curve"]}
    assert all(curve[0.6][key] == figures[key] for key in ("hits", "wrong_side", "false_activations_per_min"))
    assert curve[0.9]["hits"] == 0
    assert curve[0.9]["median_time_to_decision_s"] is None


def test_hops_are_scored_class_by_class() -> None:
    """Perfect decisions score 1, decisions that always say rest one third, however long rest is."""
    perfect = {(4.0, 8.0): "left_fist", (12.0, 16.0): "right_fist", (16.0, 20.0): "left_fist"}
    assert idle_figures([(say(perfect), MARKERS)], READOUT, HOP_S)["hop_balanced_accuracy"] == 1.0
    assert idle_figures([(say({}), MARKERS)], READOUT, HOP_S)["hop_balanced_accuracy"] == 0.3333
