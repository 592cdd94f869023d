"""One answer per cued trial, from what had been put out by then."""

from __future__ import annotations

from dataclasses import replace

from engine.answers import Answer
from engine.demo import score
from engine.scoring import accuracy, answer_trials, balanced_accuracy
from streamer.types import Decision, Marker

CLASSES = ("rest", "left", "right")


def stream(until_s: float, says: dict[tuple[float, float], str], valid: bool = True) -> list[Decision]:
    """Ten decisions a second that favour ``says[(from, to)]`` in that stretch, and rest elsewhere."""
    decisions = []
    for i in range(int(until_s * 10)):
        time = (i + 1) / 10
        word = next((w for (a, b), w in says.items() if a < time <= b), "rest")
        p = tuple(0.8 if name == word else 0.1 for name in CLASSES)
        decisions.append(Decision(i, time, p, None, 0.8, valid))
    return decisions


def answers(decisions: list[Decision], *cues: tuple[float, str]) -> list[str | None]:
    markers = [Marker(time, label) for time, label in cues]
    return [t.answer for t in answer_trials(decisions, markers, CLASSES, among=("left", "right"))]


def test_the_answer_is_what_was_said_in_time() -> None:
    """Evidence within (0.5, 3] s after the cue answers; evidence after 3 s changes nothing."""
    said = {(1.0, 4.0): "left", (4.0, 9.0): "right"}
    assert answers(stream(10, said), (1.0, "left")) == ["left"]
    assert answers(stream(10, said), (4.0, "right")) == ["right"]


def test_the_last_decision_may_answer_alone() -> None:
    """Where a bundle answers so: the mean would still be what was said before."""
    decisions = stream(10, {(1.0, 3.5): "left", (3.5, 9.0): "right"})
    mean, last = (
        answer_trials(decisions, [Marker(1.0, "right")], CLASSES, among=("left", "right"), last=last)
        for last in (False, True)
    )
    assert [trial.answer for trial in (*mean, *last)] == ["left", "right"]


def test_one_command_beside_doing_nothing_is_all_there_is_to_answer() -> None:
    """There is nothing to be surer than: the margin is none."""
    (trial,) = answer_trials(stream(5, {}), [Marker(1.0, "left")], CLASSES, among=("left",))
    assert (trial.answer, trial.margin) == ("left", 0.0)


def test_trials_cut_by_the_end_are_left_out() -> None:
    """A cue without three seconds after it is no trial."""
    assert answers(stream(5, {(0.0, 5.0): "left"}), (1.0, "left"), (2.5, "right")) == ["left"]


def test_no_valid_decision_is_no_answer_and_wrong() -> None:
    """Rejected all the way is a wrong trial, not a missing one."""
    markers = [Marker(1.0, "left")]
    trials = answer_trials(stream(5, {}, valid=False), markers, CLASSES, among=("left", "right"))
    assert [t.answer for t in trials] == [None]
    assert accuracy(trials) == 0


def test_balanced_accuracy_weighs_classes_alike() -> None:
    """Three lefts right and one right wrong: 75 % plain, 50 % balanced."""
    decisions = stream(40, {(0.0, 40.0): "left"})
    markers = [Marker(float(t), "left") for t in (1, 6, 11)] + [Marker(20.0, "right")]
    trials = answer_trials(decisions, markers, CLASSES, among=("left", "right"))
    assert accuracy(trials) == 0.75
    assert balanced_accuracy(trials) == 0.5


def test_other_markers_are_ignored() -> None:
    """Rest cues and notes are no trials, and no trials have no accuracy."""
    assert answers(stream(9, {}), (1.0, "rest"), (2.0, "note")) == []
    assert accuracy([]) is None
    assert balanced_accuracy([]) is None


def test_the_demo_takes_for_idle_what_the_bundle_does() -> None:
    """Whatever it is called, it is no answer to a cue; without an idle class all classes are."""
    said = [replace(one, probabilities=(0.5, 0.4, 0.1)) for one in stream(6, {})]
    cues, answer = [Marker(1.0, "left")], Answer(at_s=3.0)
    for name in ("rest", "nothing"):
        figures = score(said, cues, (name, "left", "right"), answer, name)
        assert figures["trials"][0]["answer"] == "left"
    assert score(said, cues, ("rest", "left", "right"), answer, None)["trials"][0]["answer"] == "rest"
