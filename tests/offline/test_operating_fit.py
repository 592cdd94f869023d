"""The fit of the decision stage: what it counts, that it is what the decision stage does, that it repeats."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from toy_bundle import CHANNELS, SFREQ, toy_graph, toy_manifest, write_bundle
from typer.testing import CliRunner

from engine.bundle import load
from engine.decision import DecisionConfig, EvidenceConfig
from offline.activations import asked_for_nothing, tally
from offline.cli import app
from offline.evaluate.decide import decide
from offline.evaluate.played import Played
from offline.operating import falling, fit, independent_time, operating_points
from offline.redecide import stack, sweep
from streamer.types import Marker

CLASSES = ("rest", "left", "right")
HOP_S = 1 / 8
SPAN_S, N_SPANS = 4.0, 15
BASE = DecisionConfig(smoothing_s=0.25)


def played(seed: int, *, strength: float = 2.0, hole: bool = False) -> Played:
    """A minute of rest and commands in turn; log-odds that follow them, with lasting noise."""
    rng = np.random.default_rng(seed)
    asked = ["rest" if i % 2 == 0 else str(rng.choice(CLASSES[1:])) for i in range(N_SPANS)]
    markers = tuple(Marker(i * SPAN_S, name, SPAN_S) for i, name in enumerate(asked))
    times = (np.arange(round(N_SPANS * SPAN_S / HOP_S)) + 1) * HOP_S
    wanted = [CLASSES.index(asked[min(int((time - 1e-9) / SPAN_S), N_SPANS - 1)]) for time in times]
    logits = strength * np.eye(3)[wanted] + correlated(rng, len(times), 0.75)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    if hole:
        times[len(times) // 2 :] += 5.0
    valid = rng.random(len(times)) > 0.02
    return Played(
        f"P{seed}", "r", times, log_probs.astype(np.float32), valid, np.full(len(times), -1), markers, 60.0
    )


def correlated(rng: np.random.Generator, n: int, keep: float) -> np.ndarray:
    """Noise of unit variance, (n, 3), whose autocorrelation falls by ``keep`` per hop."""
    noise = rng.normal(size=(n, 3))
    for i in range(1, n):
        noise[i] = keep * noise[i - 1] + np.sqrt(1 - keep**2) * noise[i]
    return noise


PLAYED = [played(seed, strength=1.0) for seed in range(4)]


@pytest.fixture(scope="module")
def fitted() -> tuple[EvidenceConfig, tuple]:
    settings, points = fit(PLAYED, CLASSES, "rest", EvidenceConfig(refractory_s=0.25))
    assert isinstance(settings, EvidenceConfig)
    return settings, points


def test_many_at_once_is_what_the_decision_stage_does() -> None:
    """For any settings, over holes and bad signal, label for label."""
    some = [played(8), played(9, strength=0.5, hole=True)]
    settings = [
        EvidenceConfig(leak_s=leak, refractory_s=quiet, dwell_s=dwell, margin=margin, idle_prior=0.4)
        for leak, quiet, dwell, margin in [(0, 0, 0, 0), (1, 0.5, 0, 0.3), (3, 1, 0.3, 0), (0.5, 0, 0.2, 1)]
    ]
    bounds = np.array([0.2, 0.8, 2.0])
    labels = sweep(stack(some, CLASSES, "rest"), settings, bounds)
    for s, one in enumerate(settings):
        for b, bound in enumerate(bounds):
            for r, recording in enumerate(some):
                alone = decide(recording, one.at(float(bound)), CLASSES, "rest")
                assert np.array_equal(labels[: len(recording), s, b, r], alone)
    assert (labels >= 0).any()


def test_what_was_promised_is_decided_again(fitted: tuple[EvidenceConfig, tuple]) -> None:
    """Each point's hits, wrong labels and times are those of the decision stage at its bound."""
    settings, points = fitted
    assert len(points) > 3
    for point in points:
        again = sum_of(
            [tally(p, decide(p, settings.at(point.bound), CLASSES, "rest"), CLASSES, "rest") for p in PLAYED]
        )
        assert (point.hits, point.wrong) == (
            pytest.approx(again.hits, abs=1e-4),
            pytest.approx(again.wrong, abs=1e-4),
        )
        assert point.false_per_min >= again.rate()  # an upper limit


def sum_of(tallies: list) -> object:
    total = tallies[0]
    for one in tallies[1:]:
        total = total + one
    return total


def test_points_go_one_way(fitted: tuple[EvidenceConfig, tuple]) -> None:
    """From few false activations to many the bound falls; the settings' own bound is that of one a minute."""
    settings, points = fitted
    assert all(a.false_per_min < b.false_per_min for a, b in itertools.pairwise(points))
    assert all(a.bound > b.bound for a, b in itertools.pairwise(points))
    assert points[-1].bound <= settings.bound <= points[0].bound


def test_what_is_tested_twice_is_fitted_twice() -> None:
    """The same recordings give the same settings and points."""
    assert fit(PLAYED[:2], CLASSES, "rest", BASE) == fit(PLAYED[:2], CLASSES, "rest", BASE)


def test_without_idle_nothing_is_fitted() -> None:
    """The settings stay as they are, and no rate is promised."""
    assert fit(PLAYED, CLASSES, None, BASE) == (BASE, ())
    assert fit([], CLASSES, "rest", BASE) == (BASE, ())


def test_the_independent_time_is_that_of_the_noise() -> None:
    """Of noise that keeps 3/4 from hop to hop it is (1 + 3/4) / (1 - 3/4) hops, whatever is asked for."""
    many = [played(seed, strength=4.0) for seed in range(20, 40)]
    found = independent_time(many, stack(many, CLASSES, "rest"))
    assert found == pytest.approx(7 * HOP_S, rel=0.2)


def test_labels_are_false_where_nothing_is_asked_for() -> None:
    """Under idle and under no marker; not under a command, nor under a word that the model does not know."""
    times = (np.arange(80) + 1) * 0.1
    markers = (Marker(0.0, "rest", 2.0), Marker(2.0, "left", 2.0), Marker(4.0, "feet", 2.0))
    one = Played(
        "P", "r", times, np.zeros((80, 3), np.float32), np.ones(80, bool), np.full(80, -1), markers, 8.0
    )
    labels = np.full(80, -1)
    labels[[5, 25, 35, 45, 65]] = [1, 2, 1, 1, 2]  # at 0.6, 2.6, 3.6, 4.6 and 6.6 s
    counted = tally(one, labels, CLASSES, "rest")
    assert asked_for_nothing(one, "rest").sum() == 40
    assert (counted.false, counted.minutes) == (2, pytest.approx(4 / 60))
    assert (counted.hits, counted.wrong, counted.median_s) == (0, 1, pytest.approx(0.6))


def test_few_minutes_promise_little() -> None:
    """Without any false label in a minute the upper limit is 1.6 a minute, in ten minutes a tenth of that."""
    one = tally(PLAYED[0], np.full(len(PLAYED[0]), -1), CLASSES, "rest")
    per_minute = one.rate(0.8) * one.minutes
    assert per_minute == pytest.approx(-np.log(0.2))  # of a Poisson count of none
    assert np.array_equal(falling(np.array([3.0, 1.0, 2.0, 0.5])), [3.0, 2.0, 2.0, 0.5])
    point = operating_points(
        tally(PLAYED[0], np.full((len(PLAYED[0]), 1), -1), CLASSES, "rest"), np.array([1.0])
    )[0]
    assert (point.hits, point.median_s) == (0, None)


def test_a_bundle_is_operated_from_the_command_line(tmp_path: Path) -> None:
    """The new bundle carries settings and points, other files are the same; without idle it is refused."""
    graph = toy_graph()
    folder = write_bundle(tmp_path / "toy", toy_manifest(graph), graph)
    write_recordings(tmp_path / "data")
    args = ["operate", str(folder), "--data", str(tmp_path / "data"), "-o", str(tmp_path / "new"), "--json"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    new = load(tmp_path / "new")
    assert new.readout.operating
    assert json.loads(result.stdout)["subjects"] == ["P1", "P2"]
    assert new.manifest.files == load(folder).manifest.files
    manifest = toy_manifest(graph)
    manifest["readout"]["idle"] = None
    write_bundle(folder, manifest, graph)
    refused = CliRunner().invoke(app, args)
    assert refused.exit_code != 0
    assert "no idle class" in refused.output


def write_recordings(folder: Path) -> None:
    """Two people who rest and imagine in turn, as far as the toy's channels can tell."""
    for person in ("P1", "P2"):
        (folder / person).mkdir(parents=True)
        rng = np.random.default_rng(int(person[1]))
        n, span = round(40 * SFREQ), round(4 * SFREQ)
        events = [[i * span, span, (0, 1, 0, 2)[i % 4]] for i in range(n // span)]
        np.savez(
            folder / person / "one.npz",
            data=(rng.normal(size=(len(CHANNELS), n)) * 20).astype(np.int16),
            scale=np.ones(len(CHANNELS)),
            offset=np.zeros(len(CHANNELS)),
            sfreq=SFREQ,
            units="uV",
            ch_names=np.array(CHANNELS),
            ch_types=np.array(["eeg"] * len(CHANNELS)),
            events=np.array(events),
            event_codes=json.dumps({"0": "rest", "1": "left_fist", "2": "right_fist"}),
            meta=json.dumps({"subject": person}),
        )
