"""Answers and figures, against what is computed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_played import CLASSES, made
from scipy.stats import wilcoxon as scipy_wilcoxon
from toy_bundle import toy_graph, toy_manifest, write_bundle

from engine.bundle import load
from offline.evaluate.answers import answering, answers
from offline.evaluate.compare import compare, holm, paired, wilcoxon
from offline.evaluate.figures import (
    agreement,
    areas,
    bits_per_minute,
    calibration_error,
    coverage_risk,
    normalised_mcc,
    reliability,
)
from offline.evaluate.protocol import Trials, Windows
from offline.evaluate.recordings import task_of
from offline.evaluate.run import Evaluation
from offline.evaluate.scores import score
from streamer.types import Marker

CUES = [Marker(4.0, "left_fist", 4.0), Marker(12.0, "right_fist", 4.0), Marker(18.0, "left_fist", 4.0)]
SPOKEN = {(4.0, 8.0): "left_fist", (12.0, 13.0): "left_fist", (13.0, 16.0): "right_fist"}


def test_a_trial_is_answered_from_what_was_put_out_by_then() -> None:
    """The mean log-probability over the window decides, among the cued classes; a cut trial is counted."""
    early = Trials(from_s=0.0, at_s=1.5)
    for protocol, right in ((Trials(), [True, True]), (early, [True, False])):
        said = answers([made(CUES, SPOKEN)], CLASSES, "rest", protocol)
        assert said.right[:2].tolist() == right
        assert said.asked == (1, 2)
    assert answers([made(CUES, SPOKEN)], CLASSES, "rest", Trials()).n_cut == 1
    last = answers([made(CUES, SPOKEN)], CLASSES, "rest", Trials(from_s=0, at_s=1.5, answer="last"))
    assert last.right[:2].tolist() == [True, True]


def test_no_decision_before_or_behind_the_answer_takes_part() -> None:
    """Of hops stamped in (from_s, at_s] all count and no other one; of a window the last one in it."""
    cue = [Marker(4.0, "left_fist", 2.0)]
    trial = answers([made(cue, {(4.5, 5.0): "left_fist"})], CLASSES, "rest", Trials(from_s=0.5, at_s=1.0))
    assert trial.confidence.tolist() == pytest.approx([8 / 9])  # .8 and .1 among two classes
    played = made(cue, {(5.4, 5.5): "left_fist"})
    window = answers([played], CLASSES, "rest", Windows(from_s=0.5, window_s=1.0))
    assert window.right.tolist() == [True]


def test_the_last_decision_answers_only_from_the_beginning_on() -> None:
    """Before `from_s` no decision is an answer, be it the last valid one; unless it is asked for then."""
    played = made([Marker(4.0, "left_fist", 4.0)], {(4.0, 8.0): "left_fist"})
    early = replace(played, valid=played.times <= 4.3)
    protocol = Trials(from_s=0.5, at_s=3.0, answer="last")
    assert answers([played], CLASSES, "rest", protocol).right.tolist() == [True]
    assert answers([early], CLASSES, "rest", protocol).right.tolist() == [False]
    assert answering(early, early.markers[0], protocol, at_s=0.4).tolist() == [42]


def test_what_is_not_valid_answers_no_trial() -> None:
    """A trial without a valid decision has no answer, which is wrong, and is counted."""
    played = made(CUES, SPOKEN)
    deaf = made(CUES, SPOKEN, valid=played.times > 8.0)
    found = score([deaf], CLASSES, "rest", Trials())
    assert (found.n, found.n_unanswered, found.accuracy) == (2, 1, 0.5)


def test_windows_follow_each_other_and_take_their_last_hop() -> None:
    """Each whole window in a marker's span is answered by the last hop stamped in it; holes leave none."""
    played = made([Marker(4.0, "left_fist", 4.0)], {(4.0, 6.0): "left_fist"})
    said = answers([played], CLASSES, "rest", Windows(from_s=0.5, window_s=1.0))
    assert said.right.tolist() == [True, False, False]
    smooth = answers([played], CLASSES, "rest", Windows(from_s=0.5, window_s=1.0, smoothing_s=2.0))
    assert smooth.right.tolist() == [True, True, False], "most of the two seconds before"
    hole = (played.times > 5.6) & (played.times < 7.0)
    torn = made(
        list(played.markers),
        times=played.times[~hole],
        log_probs=played.log_probs[~hole],
        valid=played.valid[~hole],
        labels=played.labels[~hole],
    )
    assert len(answers([torn], CLASSES, "rest", Windows(from_s=0.5, window_s=1.0))) == 1


def test_accuracy_over_time_meets_the_score_at_its_time() -> None:
    """At the time of the answer the curve is the accuracy; before anything was said it is not."""
    found = score([made(CUES, SPOKEN)], CLASSES, "rest", Trials())
    table = found.over_time
    assert table is not None
    at = dict(zip(table["seconds"], table["accuracy"], strict=True))
    assert at[3.0] == found.accuracy == 1.0
    assert at[1.0] == 0.5
    assert max(at) == 4.0


def test_a_trial_is_not_answered_when_it_is_over() -> None:
    """Of a cue of two seconds and one of four, the first is asked for no longer than two."""
    cues = [replace(CUES[0], duration=2.0), CUES[1]]
    table = score([made(cues, SPOKEN)], CLASSES, "rest", Trials()).over_time
    assert table is not None
    n = dict(zip(table["seconds"], table["n"], strict=True))
    assert [n[at_s] for at_s in (1.75, 2.0, 2.25, 4.0)] == [2, 2, 1, 1]


def test_reliability_bins_are_of_equal_mass() -> None:
    """Four answers in two bins, by hand: gaps of .05 and .35 weigh one half each."""
    rows = reliability(np.array([0.9, 0.6, 0.8, 0.5]), np.array([True, True, False, False]), n_bins=2)
    assert [row["n"] for row in rows] == [2, 2]
    assert [row["confidence"] for row in rows] == pytest.approx([0.55, 0.85])
    assert calibration_error(rows) == pytest.approx((0.05 + 0.35) / 2)


def test_a_decoder_that_guesses_is_as_overconfident_as_it_claims() -> None:
    """Answers drawn at random at confidence .9 between two classes have an error near .4."""
    rng = np.random.default_rng(0)
    right = rng.random(20_000) < 0.5
    assert calibration_error(reliability(np.full(20_000, 0.9), right)) == pytest.approx(0.4, abs=0.01)
    assert coverage_risk(np.full(20_000, 0.9), right)["area"] == pytest.approx(right.mean(), abs=1e-4)


def test_coverage_keeps_the_most_confident_first() -> None:
    """By hand: right, right, wrong by falling confidence keep 1, 1 and 2/3."""
    found = coverage_risk(np.array([0.5, 0.9, 0.7]), np.array([False, True, True]))
    assert [row["accuracy"] for row in found["curve"]] == [1.0, 1.0, 0.6667]
    assert found["area"] == round((1 + 1 + 2 / 3) / 3, 4)


def test_agreement_counts_silence_as_wrong() -> None:
    """By hand: of four left and one right, two left are known and two answers are missing."""
    found = agreement(np.array([0, 0, 0, 0, 1]), np.array([0, 0, -1, -1, 0]))
    assert found["accuracy"] == 0.4
    assert found["balanced_accuracy"] == 0.25
    assert found["macro_f1"] == pytest.approx((2 * 2 / (2 * 2 + 1 + 2)) / 2, abs=1e-4)


def test_answers_of_a_single_class_tell_nothing() -> None:
    """Neither more nor less than chance, and no warning."""
    once = np.zeros(3, dtype=np.int64)
    assert normalised_mcc(once, once) == 0.5
    assert normalised_mcc(once[:0], once[:0]) is None
    assert normalised_mcc(np.array([0, 1, 1]), np.array([0, 1, 1])) == 1.0


def test_bits_are_wolpaws() -> None:
    """A perfect choice of four in two seconds gives 60 bits a minute, chance none."""
    assert bits_per_minute(1.0, 4, 2.0) == 60.0
    assert bits_per_minute(0.25, 4, 2.0) == 0.0
    assert 0 < bits_per_minute(0.75, 2, 3.0) < bits_per_minute(0.85, 2, 3.0) < 20


def test_the_signed_rank_test_is_exact() -> None:
    """Without ties it is SciPy's exact one; with ties and zeros it counts all signs of the ranks."""
    differences = np.random.default_rng(3).normal(0.3, 1, 12)
    assert wilcoxon(differences) == pytest.approx(
        scipy_wilcoxon(differences, method="exact").pvalue, abs=1e-4
    )
    assert wilcoxon(np.array([0.1, 0.1, 0.1, 0.0])) == 0.25  # 2 of 8 signs
    assert wilcoxon(np.zeros(3)) == 1.0


def test_comparisons_are_corrected_for_their_number() -> None:
    """Holm's steps by hand, and a constant difference has an interval of no width."""
    assert holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06]
    found = paired(np.array([0.8, 0.7, 0.9]), np.array([0.7, 0.6, 0.8]))
    assert (found["difference"], found["interval"]) == (0.1, (0.1, 0.1))
    assert (found["better"], found["worse"], found["wilcoxon_p"]) == (3, 0, 0.25)


def test_recordings_that_only_one_was_scored_on_are_not_compared(tmp_path: Path) -> None:
    """On the recording that both were scored on they are equal, whatever one of them said of another."""
    graph = toy_graph()
    bundle = load(write_bundle(tmp_path, toy_manifest(graph), graph))
    shared = made(CUES[:2], SPOKEN)
    wrong = replace(made(CUES[:2], {(4.0, 8.0): "right_fist", (12.0, 16.0): "left_fist"}), name="two")
    more, fewer = (
        Evaluation(name, bundle, task_of(bundle, tmp_path), played)
        for name, played in (("more", [shared, wrong]), ("fewer", [shared]))
    )
    for pair in ((more, fewer), (fewer, more)):
        (row,) = compare(pair)
        assert (row["n"], row["difference"], row["equal"]) == (1, 0.0, 1)
    assert compare([fewer, replace(more, played=[wrong])]) == []


def test_all_answers_of_a_person_are_compared(tmp_path: Path) -> None:
    """Who is right at the first cue and wrong at the second is half right, and one person of two."""
    graph = toy_graph()
    bundle = load(write_bundle(tmp_path, toy_manifest(graph), graph))
    right, half = (made(CUES[:2], said) for said in (SPOKEN, {(4.0, 16.0): "left_fist"}))
    someone = replace(right, subject="S2")
    one, other = (
        Evaluation(name, bundle, task_of(bundle, tmp_path), [played, someone])
        for name, played in (("one", right), ("other", half))
    )
    (row,) = compare([one, other])
    assert (row["n"], row["difference"], row["better"], row["equal"]) == (2, 0.25, 1, 1)


def test_areas_rank_the_second_of_two_classes() -> None:
    """Every answer of the second class above every other one is 1; of three classes there is none."""
    truth = np.array([0, 0, 1, 1])
    perfect = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    assert areas(truth, perfect) == {"auroc": 1.0, "auc_pr": 1.0}
    assert areas(truth, perfect[::-1])["auroc"] == 0.0
    assert areas(truth, np.full((4, 3), 1 / 3)) == areas(truth[:2], perfect[:2])
    assert score([made(CUES, SPOKEN)], CLASSES, "rest", Trials()).auroc == 1.0


@pytest.mark.parametrize("silent", [0, 1])
def test_an_answer_that_is_missing_is_ranked_as_a_wrong_one(silent: int) -> None:
    """However the others are ranked: missing answers of one class cost as much as being surely wrong."""
    rng = np.random.default_rng(4)
    truth = np.arange(40) % 2
    second = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0.01, 0.99)
    probabilities = np.stack([1 - second, second], axis=1)
    missing = (truth == silent) & (np.arange(40) < 20)
    wrong = np.where(missing[:, None], np.eye(2)[1 - truth], probabilities)
    found = areas(truth, np.where(missing[:, None], 0.0, probabilities))
    assert found == areas(truth, wrong)
    assert all(found[name] < areas(truth, probabilities)[name] for name in found)


def test_saying_nothing_is_no_way_to_rank_well() -> None:
    """Where the cues of one side are all without an answer, no bound tells the sides apart."""
    played = made(CUES[:2], SPOKEN)
    for deaf in (played.times < 10.0, played.times > 10.0):
        said = answers([replace(played, valid=~deaf)], CLASSES, "rest", Trials())
        assert (said.answered.sum(), said.right.sum()) == (1, 1)
        assert areas(said.truth, said.probabilities)["auroc"] == 0.0
    assert areas(np.array([0, 1, 1]), np.zeros((3, 2)))["auroc"] == 0.0
