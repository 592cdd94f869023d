"""How long a marker lasts that does not say it itself, and what is learned from it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.answers import LatentLog, answer_of
from engine.calibrate_stream import Ask, Hearing, trials_of
from engine.lasting import endless, lasting
from streamer.types import Decision, Marker

CLASSES = ("rest", "fist", "open")
HOP_S = 0.1
TOLD = {"task": {"classes": CLASSES, "protocol": {"kind": "windows", "from_s": 0.3, "window_s": 0.5}}}


def durations(markers: list[Marker], idle: str | None = "rest", trial_s: float | None = None) -> list[float]:
    return [round(one.duration, 6) for one in lasting(markers, CLASSES, idle, 20.0, trial_s=trial_s)]


def test_the_next_marker_ends_a_trial_only_where_it_says_that_it_is_over() -> None:
    """Idle ends a command; another one does not, nor a word that may be one, nor nothing at all."""
    said = [Marker(1.0, "fist"), Marker(3.0, "rest"), Marker(6.0, "open"), Marker(8.0, "rest")]
    assert durations(said) == [2.0, 3.0, 2.0, 12.0]
    assert durations([Marker(1.0, "fist"), Marker(3.0, "palm"), Marker(6.0, "rest")]) == [0.0, 0.0, 14.0]
    assert durations([Marker(1.0, "fist"), Marker(5.0, "open"), Marker(9.0, "rest")]) == [0.0, 4.0, 11.0]
    assert durations([Marker(1.0, "fist"), Marker(5.0, "fist")]) == [0.0, 0.0]


def test_what_says_how_long_it_lasts_is_left_alone() -> None:
    """Whatever follows, and whatever length is said of the others."""
    said = [Marker(1.0, "fist", 1.5), Marker(5.0, "open"), Marker(6.0, "rest", 0.5)]
    assert durations(said) == [1.5, 1.0, 0.5]
    assert durations(said, trial_s=0.7) == [1.5, 0.7, 0.5]


def test_a_length_that_is_said_reaches_no_further_than_the_next_marker() -> None:
    """Of classes alone: other words stay points."""
    said = [Marker(1.0, "fist"), Marker(2.0, "open"), Marker(9.0, "beep")]
    assert durations(said, trial_s=3.0) == [1.0, 3.0, 0.0]


def test_without_idle_each_class_is_one_state_after_another() -> None:
    """Stages of sleep follow each other; the last one lasts to the end of the signal."""
    assert durations([Marker(0.0, "fist"), Marker(4.0, "open")], idle=None) == [4.0, 16.0]


def test_markers_at_one_time_do_not_end_each_other() -> None:
    """What comes later does: a program may send two words at once."""
    assert durations([Marker(1.0, "fist"), Marker(1.0, "beep"), Marker(2.0, "rest")]) == [1.0, 0.0, 18.0]
    assert durations([Marker(1.0, "fist"), Marker(1.0, "open"), Marker(2.0, "rest")]) == [1.0, 1.0, 18.0]


def test_words_of_no_class_do_not_cut_what_is_said_to_last() -> None:
    """A beep within a trial whose length is said is no end of it."""
    said = [Marker(1.0, "fist"), Marker(1.2, "beep"), Marker(1.0, "beep"), Marker(9.0, "open")]
    assert durations(said, trial_s=3.0) == [3.0, 0.0, 0.0, 3.0]


def test_the_order_in_which_markers_come_does_not_matter() -> None:
    """LSL delivers late ones late."""
    said = [Marker(1.0, "fist"), Marker(3.0, "rest"), Marker(6.0, "open"), Marker(8.0, "rest")]
    assert lasting(said[::-1], CLASSES, "rest", 20.0) == lasting(said, CLASSES, "rest", 20.0)


def test_only_commands_without_an_end_are_endless() -> None:
    said = [Marker(1.0, "fist"), Marker(2.0, "open", 1.0), Marker(3.0, "rest"), Marker(4.0, "beep")]
    assert endless(said, CLASSES, "rest") == [said[0]]


def bundle() -> Any:
    return SimpleNamespace(
        readout=SimpleNamespace(classes=CLASSES, idle="rest"), manifest=SimpleNamespace(provenance=TOLD)
    )


def heard(markers: list[Marker], trial_s: float | None = None) -> Any:
    """Return the trials of a log whose one latent is the time."""
    log = LatentLog("latent")
    for k in range(1, 201):
        log.observe(None, {"latent": np.array([[k * HOP_S]], dtype=np.float32)})  # type: ignore[arg-type]
        log.write(Decision(k, k * HOP_S, (1.0,), None, 1.0, True))
    return trials_of(bundle(), log, markers, Ask(trial_s=trial_s))


def test_a_pause_that_nobody_marked_is_not_learned_as_the_gesture_before_it() -> None:
    """Two gestures of a second with pauses of two: none is learned from, unless somebody says how long."""
    points = [Marker(1.0 + 3.0 * k, ("fist", "open")[k % 2]) for k in range(4)]
    unsaid = heard(points)
    assert (unsaid.trials, unsaid.endless, len(unsaid.examples)) == ({}, 4, 0)
    said = heard(points, trial_s=1.0)
    assert (said.trials, said.endless) == ({"fist": 2, "open": 2}, 0)
    since = said.examples.latents.ravel() - np.repeat([1.0, 4.0, 7.0, 10.0], 1)
    assert (since > 0.3).all()
    assert (since <= 1.0).all()


def test_words_of_no_class_change_nothing_of_what_is_learned() -> None:
    """Feedback in the middle of a trial: its length is said, or its duration is."""
    for points, trial_s in (
        ([Marker(1.0, "fist"), Marker(6.0, "open")], 2.0),
        ([Marker(1.0, "fist", 2.0)], None),
    ):
        beeps = [Marker(one.time + 0.5, "beep") for one in points]
        plain, beeped = heard(points, trial_s), heard([*points, *beeps], trial_s)
        np.testing.assert_array_equal(plain.examples.latents, beeped.examples.latents)
        assert (plain.trials, beeped.short) == (beeped.trials, 0)


def test_what_holds_no_window_is_counted() -> None:
    """Trials of .7 s from .3 s on hold no window of .5 s."""
    short = heard([Marker(1.0, "fist", 0.7), Marker(4.0, "open", 0.9)])
    assert (short.trials, short.short, short.endless) == ({"open": 1}, 1, 0)


def test_trials_are_counted_again_no_more_than_once_a_second() -> None:
    """However long the last of them goes on: to count goes through all that was heard."""
    hearing = object.__new__(Hearing)
    hearing._bundle, hearing._ask, hearing._answer = bundle(), Ask(trials=2), answer_of(TOLD)
    hearing._ended, hearing._counted_at = [], -np.inf
    points = [Marker(1.0, "fist"), Marker(3.0, "rest")]
    counted = [
        now
        for now in (np.arange(1, 400) * HOP_S).tolist()
        if hearing._more_ended(lasting(points, CLASSES, "rest", now), now, 2)
    ]
    assert counted[0] == pytest.approx(3.8)  # as soon as the second one holds a window
    assert np.diff(counted).min() == pytest.approx(1.0)
    assert counted[-1] > 38


def test_points_with_marked_ends_teach_what_durations_teach() -> None:
    """A marker of rest where the gesture ends is as good as its duration."""
    lasting_ones = [Marker(1.0, "fist", 2.0), Marker(3.0, "rest", 3.0), Marker(6.0, "open", 2.0)]
    points = [Marker(1.0, "fist"), Marker(3.0, "rest"), Marker(6.0, "open"), Marker(8.0, "rest")]
    whole = [*lasting_ones, Marker(8.0, "rest", 12.0)]
    np.testing.assert_array_equal(heard(points).examples.latents, heard(whole).examples.latents)
