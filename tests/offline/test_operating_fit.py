"""The fit of the decision stage: what it counts, that it is what the decision stage does, that it repeats."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import gamma
from toy_bundle import CHANNELS, SFREQ, toy_graph, toy_manifest, write_bundle
from typer.testing import CliRunner

from engine.bundle import load
from engine.decision import DecisionConfig, EvidenceConfig
from engine.operating import Override, bound_for, expected, settle
from offline.activations import Tally, asked_for_nothing, tally
from offline.cli import app
from offline.design import design_of, differing
from offline.evaluate.decide import decide
from offline.evaluate.played import Played
from offline.evaluate.protocol import Live
from offline.operate import operate_played
from offline.operating import falling, fit, independent_time, operating_points, usual_most
from offline.rates import upper_limit
from offline.redecide import redecide, stack, sweep
from streamer.errors import ConfigError, RecordingError
from streamer.types import Marker

CLASSES = ("rest", "left", "right")
HOP_S = 1 / 8
TOY_HOP_S = 1 / 16
SPAN_S, N_SPANS = 4.0, 15
BASE = DecisionConfig(smoothing_s=0.25)


def played(seed: int, *, strength: float = 2.0, hole: bool = False, rest_every: int = 2) -> Played:
    """A minute of rest and commands in turn; log-odds that follow them, with lasting noise."""
    rng = np.random.default_rng(seed)
    asked = ["rest" if i % rest_every == 0 else str(rng.choice(CLASSES[1:])) for i in range(N_SPANS)]
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


SOME = [
    EvidenceConfig(leak_s=leak, refractory_s=quiet, dwell_s=dwell, margin=margin, idle_prior=0.4)
    for leak, quiet, dwell, margin in [(0, 0, 0, 0), (1, 0.5, 0, 0.3), (3, 1, 0.3, 0), (0.5, 0, 0.2, 1)]
]
CUTS = [
    DecisionConfig(smoothing_s=smooth, refractory_s=quiet, dwell_s=dwell, release=release)
    for smooth, quiet, dwell, release in [(0, 0, 0, 0), (0.5, 0.5, 0.25, 0.4), (1, 1, 0.5, 0.2)]
]


@pytest.mark.parametrize(
    ("settings", "bounds", "classes", "idle"),
    [
        (SOME, [0.0, 0.2, 0.8, 2.0], CLASSES, "rest"),
        (SOME, [0.2, 0.8, 2.0], CLASSES, None),
        (SOME[:1], [0.5], CLASSES[1:], "left"),
        (CUTS, [0.35, 0.5, 0.8], CLASSES, "rest"),
        (CUTS, [0.35, 0.5, 0.8], CLASSES, None),
    ],
)
def test_many_at_once_is_what_the_decision_stage_does(
    settings: list, bounds: list[float], classes: tuple[str, ...], idle: str | None
) -> None:
    """For any settings of either kind, over holes and bad signal, label for label."""
    some = [played(8), played(9, strength=0.5, hole=True)]
    if len(classes) == 2:
        some = [replace(one, log_probs=one.log_probs[:, 1:]) for one in some]
    labels = sweep(stack(some, classes, idle), settings, np.array(bounds))
    for s, one in enumerate(settings):
        for b, bound in enumerate(bounds):
            for r, recording in enumerate(some):
                alone = decide(recording, one.at(bound), classes, idle)
                assert np.array_equal(labels[: len(recording), s, b, r], alone)
    assert (labels >= 0).any()
    one_setting = redecide(some, settings[0], bounds, classes, idle)
    assert all(np.array_equal(a, labels[: len(a), 0, :, r]) for r, a in enumerate(one_setting))


def test_what_was_promised_is_decided_again(fitted: tuple[EvidenceConfig, tuple]) -> None:
    """Each point's hits, wrong labels and times are those of the decision stage at its bound."""
    settings, points = fitted
    assert len(points) > 3
    for point in points:
        again = Tally.joined(
            [tally(p, decide(p, settings.at(point.bound), CLASSES, "rest"), CLASSES, "rest") for p in PLAYED]
        )
        assert (point.hits, point.wrong, point.median_s) == (
            pytest.approx(again.hits, abs=1e-4),
            pytest.approx(again.wrong, abs=1e-4),
            pytest.approx(again.median_s, abs=1e-3),
        )
        assert point.false_per_min > again.rate  # an upper limit
        assert point.people == len(PLAYED)
        assert point.within == pytest.approx((again.rates <= point.false_per_min).mean())


def test_what_was_promised_at_a_rate_is_what_a_run_decides() -> None:
    """Where commands are so common that what ends a label lies above the bound of the usual rate, too."""
    busy = [played(seed, strength=3.0, rest_every=3) for seed in range(16)]
    settings, points = fit(busy, CLASSES, "rest", EvidenceConfig(refractory_s=0.25))
    assert settings.bound < settings.release < points[0].bound
    for point in points:
        run = settle(settings, points, Override(false_per_min=point.false_per_min), "x")
        again = Tally.joined([tally(p, decide(p, run, CLASSES, "rest"), CLASSES, "rest") for p in busy])
        assert (point.hits, point.wrong) == pytest.approx((float(again.hits), float(again.wrong)), abs=1e-4)
        assert expected(settings, points, run) is not None


def test_points_go_one_way(fitted: tuple[EvidenceConfig, tuple]) -> None:
    """From few false activations to many the bound falls; the settings' own bound is that of one a minute."""
    settings, points = fitted
    assert all(a.false_per_min < b.false_per_min for a, b in itertools.pairwise(points))
    assert all(a.bound > b.bound for a, b in itertools.pairwise(points))
    assert points[-1].bound <= settings.bound <= points[0].bound


def test_what_is_tested_twice_is_fitted_twice() -> None:
    """The same recordings give the same settings and points."""
    assert fit(PLAYED[:2], CLASSES, "rest", BASE) == fit(PLAYED[:2], CLASSES, "rest", BASE)


def test_a_sure_net_is_not_cut_short() -> None:
    """Log-odds far above the default clip still tell much evidence from little, and find their commands."""
    sure = [played(seed, strength=12.0) for seed in range(3)]
    settings, points = fit(sure, CLASSES, "rest", EvidenceConfig())
    plain = usual_most(stack([played(0, strength=0.2)], CLASSES, "rest"))
    assert plain == EvidenceConfig().clip
    assert usual_most(stack(sure, CLASSES, "rest")) > 10
    assert isinstance(settings, EvidenceConfig)
    assert settings.clip > 10
    assert points[-1].hits > 0.9


def test_without_idle_nothing_is_fitted() -> None:
    """The settings stay as they are, and no rate is promised."""
    bare = [replace(one, markers=one.markers[1::2]) for one in PLAYED]  # commands, and nothing between
    assert fit(bare, CLASSES, None, BASE) == (BASE, ())
    assert fit(bare, CLASSES, "rest", BASE)[1]
    assert fit([], CLASSES, "rest", BASE) == (BASE, ())


def test_the_independent_time_is_that_of_the_noise() -> None:
    """Of noise that keeps 3/4 from hop to hop it is (1 + 3/4) / (1 - 3/4) hops, whatever is asked for."""
    many = [played(seed, strength=4.0) for seed in range(20, 40)]
    found = independent_time(many, stack(many, CLASSES, "rest"))
    assert found == pytest.approx(7 * HOP_S, rel=0.2)


TIMES = (np.arange(100) + 1) * 0.1
NAMES = ("rest", "left")
MARKERS = (Marker(0.0, "rest", 2.0), Marker(2.0, "left", 2.0), Marker(4.0, "feet", 2.0))


def silent(*markers: Marker) -> Played:
    """Ten seconds without a label."""
    empty = np.zeros((100, 3), np.float32), np.ones(100, bool), np.full(100, -1)
    return Played("P", "r", TIMES, *empty, markers, 10.0)


def quiet_s(live: Live, *markers: Marker) -> set[float]:
    """When nothing is asked for."""
    return set(TIMES[asked_for_nothing(silent(*markers), NAMES, "rest", live)].round(1).tolist())


def ticks(first: float, last: float) -> set[float]:
    return set(np.arange(round(first * 10), round(last * 10) + 1).astype(float) / 10)


def test_nothing_is_asked_for_under_idle_and_far_from_commands() -> None:
    """Under idle once it has settled, and where nothing is marked, clear of commands, known words or not."""
    assert quiet_s(Live(), *MARKERS) == ticks(0.6, 2.0) | ticks(7.1, 10.0)
    assert quiet_s(Live(settle_s=0, clear_s=0), *MARKERS) == ticks(0.1, 2.0) | ticks(6.1, 10.0)
    assert quiet_s(Live(settle_s=0, early_s=0.5), *MARKERS) == ticks(0.1, 1.5) | ticks(7.1, 10.0)
    assert quiet_s(Live(clear_s=2.0), Marker(5.0, "left", 1.0)) == ticks(0.1, 3.0) | ticks(8.1, 10.0)
    assert quiet_s(Live()) == ticks(0.1, 10.0)


def test_labels_are_false_where_nothing_is_asked_for() -> None:
    """Not where it settles, not under a command or near it, nor under a word that the model does not know."""
    labels = np.full(100, -1)
    # at 0.3, 0.6, 2.6, 3.6, 4.6, 6.6 and 8.6 s
    labels[[2, 5, 25, 35, 45, 65, 85]] = [1, 1, 2, 1, 1, 1, 2]
    counted = tally(silent(*MARKERS), labels, CLASSES, "rest")
    assert (counted.false.item(), counted.minutes.item()) == (2, pytest.approx(4.5 / 60))
    assert (counted.hits, counted.wrong, counted.median_s) == (0, 1, pytest.approx(0.6))


def test_an_early_label_answers_the_command_that_follows() -> None:
    """Within what is allowed, unless it lies under another command; the time to it is below zero."""
    labels = np.full(100, -1)
    labels[45:60] = 1  # begins at 4.6 s
    one = silent(Marker(5.0, "left", 2.0))
    early = tally(one, labels, CLASSES, "rest", Live(early_s=0.5))
    assert (early.hits, early.median_s) == (1, pytest.approx(-0.4))
    assert tally(one, labels, CLASSES, "rest").hits == 0
    busy = silent(Marker(3.0, "right", 2.0), Marker(5.0, "left", 2.0))
    both = tally(busy, labels, CLASSES, "rest", Live(early_s=0.5))
    assert (both.right.tolist(), both.wrong) == ([False, False], 0.5)


def test_few_minutes_and_few_people_promise_little() -> None:
    """Without any false label four people promise less than many, and the less the shorter they were."""
    none = np.zeros((4, 1))
    few, longer = upper_limit(none, np.ones(4), 0.8), upper_limit(none, np.full(4, 10.0), 0.8)
    assert few > longer > 0
    many = upper_limit(np.zeros((40, 1)), np.ones(40), 0.8)
    assert 10 * many < few
    assert np.array_equal(falling(np.array([3.0, 1.0, 2.0, 0.5])), [3.0, 2.0, 2.0, 0.5])
    labels = np.full((len(PLAYED[0]), 1), -1)
    point = operating_points(tally(PLAYED[0], labels, CLASSES, "rest"), np.array([1.0]))[0]
    assert (point.hits, point.median_s, point.people, point.within, point.on) == (0, None, 1, 1, 0)
    held = operating_points(tally(PLAYED[0], labels + 2, CLASSES, "rest"), np.array([1.0]))[0]
    assert held.on == 1


def test_of_people_who_do_not_differ_the_limit_is_that_of_a_poisson_count() -> None:
    """With many of them, where the assumed difference does not matter."""
    counts = np.tile([[0.0], [2.0]], (500, 1))
    garwood = gamma.ppf(0.8, counts.sum() + 1) / 1000
    assert upper_limit(counts, np.ones(1000), 0.8) == pytest.approx(garwood, rel=0.02)


@pytest.mark.parametrize("shape", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("n_people", [4, 16, 64])
def test_the_limit_holds_for_people_who_differ(shape: float, n_people: int) -> None:
    """In four of five draws or more the mean over all people is not above it, however they differ."""
    rng = np.random.default_rng(round(shape * 10) + n_people)
    rates = rng.gamma(shape, 1 / shape, size=(n_people, 2000))  # of mean 1
    counts = rng.poisson(rates * 6.0).astype(float)
    held = (upper_limit(counts, np.full(n_people, 6.0), 0.8) >= 1).mean()
    assert held > (0.78 if shape >= 1 else 0.7)  # few people hardly show so heavy a tail
    poisson = (gamma.ppf(0.8, counts.sum(axis=0) + 1) / (n_people * 6.0) >= 1).mean()
    assert held > poisson


def test_what_is_promised_on_some_people_holds_on_others() -> None:
    """Fitted to other people each time, the mean over new ones is mostly not above the rate asked for."""
    others = [person(seed) for seed in range(100, 160)]
    asked, shares = 4.0, []
    for first in range(0, 24, 8):
        settings, points = fit([person(first + i) for i in range(8)], CLASSES, "rest", BASE)
        labels = redecide(others, settings, [bound_for(points, asked, "toy")], CLASSES, "rest")
        pairs = zip(others, labels, strict=True)
        counted = Tally.joined([tally(one, some, CLASSES, "rest") for one, some in pairs])
        assert counted.hits > 0
        shares.append(counted.rate.item() / asked)
    assert np.mean(np.array(shares) <= 1) > 0.6
    assert min(shares) > 0.3  # nor is it kept by saying nothing


def person(seed: int) -> Played:
    """Somebody whose net is more or less sure, so that people differ in how often it is falsely so."""
    spread = float(np.random.default_rng(seed).uniform(0.5, 2.0))
    one = played(seed, strength=1.0)
    logits = spread * one.log_probs
    return replace(one, log_probs=logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


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


def test_a_bundle_is_operated_by_what_its_siblings_said(tmp_path: Path) -> None:
    """From a benchmark's cells: refits and unfinished cells are left out, and so are people not asked for."""
    graph = toy_graph()
    folder = write_bundle(tmp_path / "toy", toy_manifest(graph), graph)
    cells = tmp_path / "cells" / "ours"
    for seed in range(4):
        place = cells / f"seed0_fold{seed % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "cell.json").write_text(
            cell_of(0, (0.5, 2.0)[seed % 2] * 1.5, design=design_of(load(folder)))
        )
        as_toy(played(seed)).save(place / f"{seed:03d}.npz")
    for aside in (cells / "seed0_fold0" / "calibrated", cells / ".seed0_fold2.part"):
        aside.mkdir()
        (aside / "000.npz").write_bytes(b"not one")
    new = tmp_path / "new"
    args = ["operate", str(folder), "-o", str(new), "--json", "--subjects", "P0-P2", "--played"]
    result = CliRunner().invoke(app, [*args, str(cells), "--early-s", "0.2"])
    assert result.exit_code == 0, result.output
    told = load(new).manifest.provenance["operating"]
    assert (told["subjects"], told["decisions_of"]) == (["P0", "P1", "P2"], "nets of the same recipe")
    assert told["live"] == {"settle_s": 0.5, "clear_s": 1.0, "early_s": 0.2}
    assert {point.people for point in load(new).readout.operating} == {3}
    assert load(new).readout.temperature == 1.875  # of .75 and 3
    alone = CliRunner().invoke(app, [*args[:-3], "--played", str(cells / "seed0_fold0")])
    assert json.loads(alone.stdout)["subjects"] == ["P0", "P2"]
    for wrong, said in (([], "Give --data"), ([*args[-1:], str(tmp_path / "none")], "No played recordings")):
        refused = CliRunner().invoke(app, [*args[:-3], *wrong])
        assert refused.exit_code != 0
        assert said in refused.output


def test_without_idle_the_temperature_alone_is_taken_over(tmp_path: Path) -> None:
    """The decision stage stays; without a cell there is nothing to take, which is refused."""
    graph = toy_graph()
    manifest = toy_manifest(graph)
    manifest["readout"]["idle"] = None
    folder, cells = write_bundle(tmp_path / "toy", manifest, graph), tmp_path / "cells"
    cells.mkdir()
    as_toy(played(0)).save(cells / "000.npz")
    with pytest.raises(ConfigError, match="no idle class"):
        operate_played(folder, cells, tmp_path / "new")
    (cells / "cell.json").write_text(cell_of(0, 1.25))
    new = operate_played(folder, cells, tmp_path / "new").readout
    assert new == load(folder).readout.model_copy(update={"temperature": 1.25})


def test_what_another_recipe_said_is_refused(tmp_path: Path) -> None:
    """Decisions at another pace, or among other classes, say nothing of this bundle."""
    graph = toy_graph()
    folder = write_bundle(tmp_path / "toy", toy_manifest(graph), graph)
    good = as_toy(played(0))
    for wrong in (replace(good, times=good.times * 2), replace(good, log_probs=good.log_probs[:, :2])):
        (tmp_path / "cells").mkdir(exist_ok=True)
        wrong.save(tmp_path / "cells" / "000.npz")
        with pytest.raises(RecordingError, match="cells of its own recipe"):
            operate_played(folder, tmp_path / "cells", tmp_path / "new")


def cell_of(seed: int, temperature: float, recipe: str = "a", **more: Any) -> str:
    """What a benchmark says of a cell; of one of before without a design."""
    return json.dumps({"seed": seed, "temperature": temperature, "recipe": recipe, "model": "EEGNet", **more})


def test_a_cell_of_another_design_is_refused_by_name(tmp_path: Path) -> None:
    """Classes and pace make no recipe, a classical decoder is no net, and what is not told is said."""
    graph = toy_graph()
    folder, cells = write_bundle(tmp_path / "toy", toy_manifest(graph), graph), tmp_path / "cells"
    cells.mkdir()
    for person in range(2):
        as_toy(played(person)).save(cells / f"{person:03d}.npz")
    own = design_of(load(folder))
    state = {"state": [{"input": "state_0", "output": "state_0_out", "shape": [1, 9], "dtype": "float32"}]}
    for design, said in (
        (None, "EEGNet, which is no net"),
        (own | {"graph": own["graph"] | state}, "EEGNet: its net and bundle toy 1 differ in graph"),
        (own | {"input": own["input"] | {"dsp": []}}, "differ in input"),
        (own | {"system": "other", "recipe": "b"}, "differ in system"),
    ):
        (cells / "cell.json").write_text(cell_of(0, 1.0, design=design))
        with pytest.raises(RecordingError, match=said):
            operate_played(folder, cells, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    for told, said in (({"design": own}, "nets of the same recipe"), ({}, "do not tell their recipe")):
        (cells / "cell.json").write_text(cell_of(0, 1.0, **told))
        new = operate_played(folder, cells, tmp_path / "new")
        assert said in new.manifest.provenance["operating"]["decisions_of"]


def test_nets_of_one_recipe_share_a_design(tmp_path: Path) -> None:
    """Another temperature and a prior from other people are of the people, another setting is not.

    How many channels a stream must have is asked of streams, not of nets.
    """
    graph = toy_graph()
    manifest = toy_manifest(graph)
    manifest["input"]["dsp"].append({"kind": "align"})
    one = design_of(load(write_bundle(tmp_path / "one", manifest, graph)))
    manifest["input"]["dsp"][-1]["prior"] = np.eye(len(CHANNELS)).tolist()
    manifest["readout"]["temperature"] = 3.0
    manifest["input"]["min_present"] = len(CHANNELS)
    other = design_of(load(write_bundle(tmp_path / "other", manifest, graph)))
    assert one == other
    manifest["input"]["dsp"][-1]["forget_s"] = 7.0
    third = design_of(load(write_bundle(tmp_path / "third", manifest, graph)))
    assert differing(one, third) == ["input"]


def test_people_count_once_however_many_seeds_answered_for_them(tmp_path: Path) -> None:
    """Five seeds promise what one does; cells of two recipes are told apart."""
    graph = toy_graph()
    folder = write_bundle(tmp_path / "toy", toy_manifest(graph), graph)
    made = []
    for n_seeds in (1, 5):
        cells = tmp_path / f"{n_seeds}" / "ours"
        for seed in range(n_seeds):
            place = cells / f"seed{seed}_fold0"
            place.mkdir(parents=True)
            (place / "cell.json").write_text(cell_of(seed, 1.0 + seed))
            for person in range(3):
                as_toy(played(person)).save(place / f"{person:03d}.npz")
        made.append(operate_played(folder, cells, tmp_path / f"new{n_seeds}").readout)
    assert made[0] == made[1]
    (cells / "seed4_fold0" / "cell.json").write_text(cell_of(4, 1.0, "another"))
    with pytest.raises(RecordingError, match="not all of one recipe"):
        operate_played(folder, cells, tmp_path / "new")


def as_toy(one: Played) -> Played:
    """The same at the toy bundle's pace, asking for its classes."""
    names = {"rest": "rest", "left": "left_fist", "right": "right_fist"}
    scale = TOY_HOP_S / HOP_S
    markers = tuple(Marker(m.time * scale, names[m.label], m.duration * scale) for m in one.markers)
    return replace(one, times=one.times * scale, markers=markers)


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
