"""Benchmarks: folds of people, cells that are done once, and a report that says what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

pytest.importorskip("torch")
pytest.importorskip("pyriemann")

from made_played import made

from engine.decision import DecisionConfig, DecisionSettings, EvidenceConfig
from offline.benchmark import benchmark as running
from offline.benchmark import report, tables
from offline.benchmark.benchmark import benchmark
from offline.benchmark.cells import Answered
from offline.benchmark.people import Recordings, folds_of
from offline.benchmark.recipe import Recipe
from offline.benchmark.rows import row_of
from offline.design import design_of
from offline.evaluate import idle
from streamer.errors import ConfigError
from streamer.types import Marker

CHANNELS = ["FC3", "FCz", "FC4", "C3", "Cz", "C4", "CP3", "CPz", "CP4"]
BAND = [{"kind": "bandpass", "low": 8.0, "high": 30.0, "order": 2}]


def classical(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "classical",
        "name": kind,
        "reader": {"kind": kind},
        "sfreq": 160,
        "window_s": 2.5,
        "hop_s": 0.5,
        "dsp": BAND,
    } | more


def recipe_of(folder: Path, output: Path, **more: Any) -> Recipe:
    given: dict[str, Any] = {
        "task": {
            "folder": {"path": folder},
            "classes": ["rest", "left_fist", "right_fist"],
            "idle": "rest",
            "ch_names": CHANNELS,
            "protocol": {"kind": "trials"},
        },
        "folds": 3,
        "validate": 0.3,
        "models": [classical("csp_lda"), classical("mdm")],
        "compare": [["csp_lda", "mdm"]],
        "output": output,
    }
    return Recipe.model_validate(given | more)


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves of one point, and only one test draws them: that takes longer than everything else."""
    monkeypatch.setitem(idle.BOUNDS, "threshold", (0.6,))
    if "alone" not in request.node.name:
        monkeypatch.setattr(report, "draw_all", lambda *_: None)


@pytest.fixture(scope="module")
def people_dir(tmp_path_factory: pytest.TempPathFactory, run_writer: Callable[..., Path]) -> Path:
    """Five people with a run each."""
    folder = tmp_path_factory.mktemp("people")
    for number in range(5):
        run_writer(folder / f"P{number}" / f"P{number}R1.npz", seed=number, n_trials=4)
    return folder


@pytest.mark.parametrize("n_people", [3, 7, 20])
def test_folds_share_nobody_and_test_everybody_once(tmp_path: Path, n_people: int) -> None:
    """Nobody is on two sides of a fold, everybody is tested in one, and it is the same every time."""
    recipe = recipe_of(tmp_path, tmp_path)
    names = tuple(f"S{i:02d}" for i in range(n_people))
    folds = folds_of(recipe, names, "here")
    assert sorted(name for fold in folds for name in fold.test) == list(names)
    for fold in folds:
        assert sorted([*fold.train, *fold.validate, *fold.test]) == list(names)
        assert fold.train
        assert fold.validate
    assert folds == folds_of(recipe, names, "here")


def test_a_split_with_somebody_on_two_sides_is_refused(tmp_path: Path) -> None:
    """A person named twice is told by name."""
    split = {"train": ["A-C"], "validate": ["D"], "test": ["C"]}
    recipe = recipe_of(tmp_path, tmp_path, folds=None, split=split)
    with pytest.raises(ConfigError, match="C on two sides"):
        folds_of(recipe, ("A", "B", "C", "D"), "here")


@pytest.mark.parametrize("whose", ["P0", "P3"])
def test_samples_that_are_learned_from_are_not_tested(people_dir: Path, tmp_path: Path, whose: str) -> None:
    """No model is tested on a copy, by another person's name, of who trains it or of who validates it."""
    folder = shutil.copytree(people_dir, tmp_path / "people")
    shutil.copy(folder / whose / f"{whose}R1.npz", folder / "P4" / "again.npz")
    recipe = recipe_of(folder, tmp_path / "out", folds=None, split=SPLIT, compare=[])
    with pytest.raises(ConfigError, match=f"P4/again holds the same samples as {whose}/{whose}R1"):
        benchmark(recipe)
    assert not (tmp_path / "out").exists()


def test_nobody_is_tested_twice_under_two_names(people_dir: Path, tmp_path: Path) -> None:
    """A recording that two people have would count as two in a score, on whichever side they are."""
    folder = shutil.copytree(people_dir, tmp_path / "people")
    shutil.copy(folder / "P0" / "P0R1.npz", folder / "P1" / "again.npz")
    split = SPLIT | {"train": ["P2", "P3"], "validate": ["P4"], "test": ["P0", "P1"]}
    recipe = recipe_of(folder, tmp_path / "out", folds=None, split=split, compare=[])
    with pytest.raises(ConfigError, match=r"P1/again holds the same samples as P0/P0R1: leave one"):
        benchmark(recipe)


def test_what_is_done_is_not_done_again(
    people_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call computes nothing, other settings of a model or other recordings their own cells only."""
    made: list[str] = []
    real = running.answer

    def counting(model: Any, *rest: Any) -> Any:
        made.append(model.name)
        return real(model, *rest)

    monkeypatch.setattr(running, "answer", counting)
    first = benchmark(recipe_of(people_dir, tmp_path))
    assert made == ["csp_lda", "mdm"] * 3
    assert first["missing"] == []
    made.clear()
    assert benchmark(recipe_of(people_dir, tmp_path))["rows"] == first["rows"]
    assert made == []
    models = [classical("csp_lda"), classical("mdm", window_s=2.0)]
    benchmark(recipe_of(people_dir, tmp_path, models=models))
    assert made == ["mdm"] * 3


def test_what_is_asked_anew_is_answered_anew(people_dir: Path, tmp_path: Path) -> None:
    """The same samples under other markers are other cells: of whoever learns, chooses or is tested there."""
    folder = tmp_path / "people"
    shutil.copytree(people_dir, folder)
    recipe = recipe_of(folder, tmp_path / "out", models=[classical("mdm")], compare=[])
    assert benchmark(recipe)["missing"] == []
    path = folder / "P0" / "P0R1.npz"
    with np.load(path) as file:
        content = dict(file)
    codes = str(content["event_codes"])
    content["event_codes"] = codes.replace("left", "other").replace("right", "left").replace("other", "right")
    np.savez(path, **content)
    with pytest.raises(ConfigError, match="None of the 3 cells"):
        benchmark(recipe, report_only=True)
    assert benchmark(recipe)["missing"] == []


def test_a_report_of_nothing_takes_the_place_of_none(people_dir: Path, tmp_path: Path) -> None:
    """Where no cell is there, or none of these settings, what was reported before stays as it is."""
    out = tmp_path / "out"
    recipe = recipe_of(people_dir, out, models=[classical("mdm")], compare=[])
    with pytest.raises(ConfigError, match="holds no cell of this benchmark: run it without --report"):
        benchmark(recipe, report_only=True)
    benchmark(recipe)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert before
    other = recipe_of(people_dir, out, models=[classical("mdm", window_s=2.0)], compare=[])
    with pytest.raises(ConfigError, match=r"None of the 3 cells in .* is of these settings"):
        benchmark(other, report_only=True)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_what_was_corrected_is_answered_anew(people_dir: Path, tmp_path: Path) -> None:
    """The same stored numbers at another scale are another recording: cells of it are made again."""
    folder = shutil.copytree(people_dir, tmp_path / "people")
    recipe = recipe_of(folder, tmp_path / "out", models=[classical("mdm")], compare=[])
    assert benchmark(recipe)["missing"] == []
    path = folder / "P0" / "P0R1.npz"
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **content | {"scale": 2 * content["scale"]})
    with pytest.raises(ConfigError, match="None of the 3 cells"):
        benchmark(recipe, report_only=True)


def test_killed_in_the_middle_and_resumed_it_reports_the_same(
    people_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever cell dies while it is written, the next call ends with the figures of an undisturbed one."""
    whole = benchmark(recipe_of(people_dir, tmp_path / "whole"))
    from offline.benchmark import cells

    real, calls = cells.Played.save, iter(range(100))

    def dying(self: Any, path: Path) -> None:
        if next(calls) == 4:
            raise KeyboardInterrupt
        real(self, path)

    monkeypatch.setattr(cells.Played, "save", dying)
    recipe = recipe_of(people_dir, tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        benchmark(recipe)
    partial = benchmark(recipe, report_only=True)
    assert 0 < len(partial["missing"]) < 6
    resumed = benchmark(recipe)

    def figures(document: dict[str, Any]) -> Any:
        kept = ("figures", "people", "idle", "scores")
        return [{key: row[key] for key in kept} for row in document["rows"]], document["differences"]

    assert figures(resumed) == figures(whole)
    assert json.loads((tmp_path / "cut" / "benchmark.json").read_text())["missing"] == []
    assert "csp_lda − mdm" in (tmp_path / "cut" / "benchmark.md").read_text()


def test_the_rest_of_each_person_is_for_decoders_on_features(people_dir: Path, tmp_path: Path) -> None:
    """Band powers are scored before and after on what follows the rest; matrices have no mean."""
    bands = classical("band_power", reader={"kind": "band_power", "bands": [[8, 13], [13, 30]]})
    given = {"models": [bands, classical("mdm")], "compare": []}
    rest = {"seconds": 8.0, "rest_s": 8.0, "classes": ["rest"]}
    plain = benchmark(recipe_of(people_dir, tmp_path, **given))
    document = benchmark(recipe_of(people_dir, tmp_path, calibrate=rest, **given))
    rows = {row["model"]: row for row in document["rows"]}
    assert rows["mdm"]["calibrated"] is None
    assert set(rows["band_power"]["calibrated"]["people"]) == set(rows["band_power"]["people"])
    assert {row["model"]: row["people"] for row in plain["rows"]} == {
        name: row["people"] for name, row in rows.items()
    }
    with pytest.raises(ValidationError, match="band_power is given the rest alone"):
        recipe_of(people_dir, tmp_path, calibrate=rest | {"seconds": 20.0}, **given)


def test_one_model_runs_alone_and_the_rest_is_called_missing(people_dir: Path, tmp_path: Path) -> None:
    """`only` fills the cells of one model; the report has its row, and names the cells of the others."""
    document = benchmark(recipe_of(people_dir, tmp_path), only=["mdm"])
    assert [row["model"] for row in document["rows"]] == ["mdm"]
    assert document["missing"] == [f"csp_lda, seed 0, fold {fold}" for fold in (1, 2, 3)]
    with pytest.raises(ConfigError, match="no model 'lda'"):
        benchmark(recipe_of(people_dir, tmp_path), only=["lda"])


def test_a_trained_model_is_played_through_the_engine_and_its_seeds_also_answer_together(
    people_dir: Path, tmp_path: Path, tiny_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fold and seed trains on its own people; of two seeds a row is made in which both answer."""
    from offline.train import fold as folds

    asked: list[tuple[tuple[str, ...], tuple[str, ...], int]] = []

    def fake(_recipe: Any, _sets: Any, train: Any, validate: Any, seed: int, _output: Path) -> Path:
        asked.append((tuple(train), tuple(validate), seed))
        return Path(tiny_bundle.folder)

    monkeypatch.setattr(folds, "train_fold", fake)
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {}\n")
    model = {"kind": "train", "name": "net", "recipe": str(file), "ours": True}
    recipe = recipe_of(people_dir, tmp_path, models=[model, classical("mdm")], seeds=2, compare=[])
    document = benchmark(recipe)
    assert len(asked) == 6
    for train, validate, seed in asked:
        fold = next(one for one in document["people"] if tuple(one["train"]) == train)
        assert tuple(fold["validate"]) == validate
        assert seed in (0, 1)
    assert [row["model"] for row in document["rows"]] == ["net", "net, seeds together", "mdm"]
    alone, together, _ = (row["figures"]["accuracy"]["mean"] for row in document["rows"])
    assert together == alone  # the fake gives every seed the same net
    assert document["best_baseline"] == "mdm"
    assert [(one["first"], one["second"]) for one in document["differences"]] == [("net", "mdm")]
    told = [json.loads(path.read_bytes()) for path in sorted((recipe.output / "cells").glob("*/*/cell.json"))]
    designs = {"net": design_of(tiny_bundle), "mdm": None}  # a classical decoder is no net
    assert all(one["design"] == designs[one["model"]] for one in told)

    file.write_text("data: {train: [Q1], validate: [Q2]}\n")  # who learns is the fold's to say
    assert benchmark(recipe)["rows"] == document["rows"]
    assert len(asked) == 6
    file.write_text("data: {idle_only: true}\n")
    benchmark(recipe)
    assert len(asked) == 12


SPLIT = {"train": ["P0", "P1", "P2"], "validate": ["P3"], "test": ["P4"]}


def finetuned(folder: Path, people_dir: Path, **more: Any) -> dict[str, Any]:
    """Write a recipe of a fine-tuning of somebody else, and return the model that is made by it."""
    recipe = {
        "card": {"name": "tuned", "version": "0.1", "title": "Tuned"},
        "backbone": {"run": str(folder / "backbone")},
        "task": {
            "folder": {"path": str(people_dir)},
            "classes": ["rest", "left_fist", "right_fist"],
            "ch_names": CHANNELS,
            "train": ["nobody"],
            "validate": ["nobody else"],
            "window_s": 1.0,
        },
        "pool_s": 1.0,
        "min_present": 9,
        "output": str(folder / "elsewhere"),
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return {"kind": "finetune", "name": "tuned", "recipe": str(folder / "recipe.yaml"), "ours": True} | more


def test_a_backbone_is_tuned_on_each_fold_and_its_bundle_is_whole_or_not_there(
    people_dir: Path, tmp_path: Path, tiny_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who trains, the seed and the output are the benchmark's; an export that dies is made again."""
    from offline import export_decoder, runs
    from offline.finetune import finetune

    asked: list[Any] = []
    exports = iter((False, True, True))

    def exported(_run: Path, folder: Path) -> None:
        shutil.copytree(tiny_bundle.folder, folder, dirs_exist_ok=True)
        if not next(exports):
            raise KeyboardInterrupt  # before the head is in it

    monkeypatch.setattr(runs, "load_run", lambda _: SimpleNamespace(fingerprints={}))
    monkeypatch.setattr(finetune, "finetune", lambda recipe, resume: asked.append(recipe))
    monkeypatch.setattr(export_decoder, "export_decoder", exported)
    model = finetuned(tmp_path, people_dir)
    given = {"folds": None, "split": SPLIT, "seeds": 2, "compare": []}
    recipe = recipe_of(people_dir, tmp_path / "out", models=[model], **given)
    with pytest.raises(KeyboardInterrupt):
        benchmark(recipe)
    assert not list((tmp_path / "out").rglob("bundle"))
    assert benchmark(recipe)["missing"] == []
    assert [one.seed for one in asked] == [0, 0, 1]
    assert {one.task.train for one in asked} == {("P0", "P1", "P2")}
    assert {one.task.validate_ for one in asked} == {("P3",)}
    assert len({one.output for one in asked}) == 2
    assert all(one.output.is_relative_to(tmp_path / "out") for one in asked)


def test_a_backbone_that_saw_who_is_tested_is_refused_or_told(
    people_dir: Path, tmp_path: Path, tiny_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretrained on a recording of somebody tested, it is refused; where that is allowed it is a note."""
    from offline import export_decoder, runs
    from offline.finetune import finetune

    given = {"folds": None, "split": SPLIT, "compare": []}
    recipe = recipe_of(people_dir, tmp_path / "a", models=[finetuned(tmp_path, people_dir)], **given)
    prints = Recordings(recipe.task.folder, "EEG").fingerprints("P4")
    monkeypatch.setattr(runs, "load_run", lambda _: SimpleNamespace(fingerprints={"validate": prints}))
    monkeypatch.setattr(finetune, "finetune", lambda recipe, resume: None)
    monkeypatch.setattr(
        export_decoder, "export_decoder", lambda _, folder: shutil.copytree(tiny_bundle.folder, folder)
    )
    with pytest.raises(ConfigError, match=r"pretrained on recordings of 1 of the people tested \(P4"):
        benchmark(recipe)
    model = finetuned(tmp_path, people_dir, backbone_saw_test=True)
    (row,) = benchmark(recipe_of(people_dir, tmp_path / "b", models=[model], **given))["rows"]
    assert row["notes"] == ("backbone pretrained on recordings of 1 of 1 people tested",)


def test_a_head_of_ones_own_is_compared_on_the_same_stretches(tmp_path: Path) -> None:
    """The table has each person before and after, the mean gain and the worst."""
    cues = [Marker(2.0, "left_fist", 4.0), Marker(10.0, "right_fist", 4.0)]
    right = {(2.0, 6.0): "left_fist", (10.0, 14.0): "right_fist"}
    half = {(2.0, 6.0): "left_fist", (10.0, 14.0): "left_fist"}
    before = (made(cues, half, subject="S1"), made(cues, right, subject="S2"))
    after = (made(cues, right, subject="S1"), made(cues, half, subject="S2"))
    answered = Answered(before, DecisionConfig(), calibrated=after, uncalibrated=before)
    recipe = recipe_of(tmp_path, tmp_path / "out")
    row = row_of(recipe.task, recipe.models[0], [[answered]])
    assert row.calibrated is not None
    assert row.calibrated["people"] == {
        "S1": {"before": 0.5, "after": 1.0},
        "S2": {"before": 1.0, "after": 0.5},
    }
    assert (row.calibrated["gain"], row.calibrated["worst_gain"]) == (0.0, -0.5)
    shown = tables._people([row.document()])
    assert shown[0] == {"person": "S1", "csp_lda": 0.5, "csp_lda, before": 0.5, "csp_lda, after": 1.0}
    assert tables._calibrated([row.document()])[0]["auroc_after"] == row.calibrated["auroc_after"]


CUES = [Marker(2.0, "left_fist", 4.0), Marker(10.0, "right_fist", 4.0)]
FIRST, SECOND, BOTH = (
    {(2.0, 6.0): "left_fist", (10.0, 14.0): "left_fist"},
    {(2.0, 6.0): "right_fist", (10.0, 14.0): "right_fist"},
    {(2.0, 6.0): "left_fist", (10.0, 14.0): "right_fist"},
)  # which of the cues are answered right


def seed_of(
    *people: str, said: Any = BOTH, decision: DecisionSettings | None = None, **more: Any
) -> Answered:
    """What one net said of these people."""
    played = tuple(made(CUES, said, subject=name, **more) for name in people)
    return Answered(played, decision or DecisionConfig())


def test_several_seeds_are_compared_one_by_one(tmp_path: Path) -> None:
    """What two nets know together is not held against one net of another kind."""
    recipe = recipe_of(tmp_path, tmp_path)
    names, (net, other) = [f"S{i}" for i in range(6)], recipe.models
    seeds = [[seed_of(*names, said=FIRST, sure=0.6)], [seed_of(*names, said=SECOND, sure=0.6)]]
    seeds[0] = [replace(seeds[0][0], played=tuple(surer_at_first(one) for one in seeds[0][0].played))]
    rows = [row_of(recipe.task, net, seeds), row_of(recipe.task, net, seeds, together=True)]
    rows.append(row_of(recipe.task, other, [[seed_of(*names, said=FIRST)]]))
    assert [row.mean for row in rows] == [0.5, 1.0, 0.5]
    (difference,) = report._differences(recipe, rows, "mdm")
    assert difference["difference"] == 0.0


def surer_at_first(one: Any) -> Any:
    """Say the first half louder, the second half lower."""
    weight = np.where(one.times < 8.0, 2.0, 0.5)[:, None]
    logs = one.log_probs * weight
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return replace(one, log_probs=logs.astype(np.float32))


def test_seeds_answer_together_only_where_all_of_them_can(tmp_path: Path) -> None:
    """A hop that is bad signal to one net is so to their mean: its trial has no answer."""
    recipe = recipe_of(tmp_path, tmp_path)
    good = seed_of("S1")
    (one,) = good.played
    deaf = replace(good, played=(replace(one, valid=one.times > 8.0),))
    row = row_of(recipe.task, recipe.models[0], [[good], [deaf]], together=True)
    assert (row.scores[0].n, row.scores[0].n_unanswered) == (2, 1)


def test_who_answered_for_fewer_people_is_not_the_best(tmp_path: Path) -> None:
    """Of an unfinished benchmark: the few may be easy ones."""
    recipe = recipe_of(tmp_path, tmp_path)
    one, other = recipe.models
    rows = [
        row_of(recipe.task, one, [[seed_of("S1", said=BOTH)]]),
        row_of(recipe.task, other, [[seed_of("S1", "S2", said=FIRST)]]),
    ]
    assert rows[0].mean == 1.0
    assert report._best(rows, recipe) == "mdm"


def test_everybody_is_decided_by_a_net_that_does_not_know_them(tmp_path: Path) -> None:
    """Curves and seeds together take each fold's own decision stage, not the first one's."""
    recipe = recipe_of(tmp_path, tmp_path)
    quick = DecisionConfig(smoothing_s=0.0, dwell_s=0.0)
    slow = DecisionConfig(smoothing_s=0.0, dwell_s=2.0)
    folds = [seed_of("S1", decision=quick), seed_of("S2", decision=slow)]
    row = row_of(recipe.task, recipe.models[0], [folds, folds], together=True)
    assert row.scores[0].idle is not None
    delays = {
        name: row.scores[0].idle["per_subject"][name]["median_time_to_decision_s"] for name in ("S1", "S2")
    }
    assert delays == {"S1": pytest.approx(0.1), "S2": pytest.approx(2.0)}
    (point,) = row.scores[0].idle["curve"]
    assert point["median_time_to_decision_s"] == pytest.approx(1.05)
    mixed = [folds[0], seed_of("S2", decision=EvidenceConfig())]
    other = row_of(recipe.task, recipe.models[0], [mixed])
    assert other.scores[0].idle is not None
    assert other.scores[0].idle["curve"] == []  # bounds of different kinds do not compare


@pytest.mark.parametrize("side", ["train", "validate"])
@pytest.mark.parametrize("kind", ["train", "finetune"])
def test_a_net_that_knows_who_is_tested_is_refused(
    people_dir: Path, tmp_path: Path, tiny_bundle: Any, monkeypatch: pytest.MonkeyPatch, kind: str, side: str
) -> None:
    """A recording of somebody tested that it learned from, or that chose it, is found by its samples."""
    from offline import export_decoder, runs
    from offline.finetune import finetune
    from offline.train import fold as folds

    (tmp_path / "recipe.yaml").write_text("data: {}\n")
    net = {"kind": "train", "name": "net", "recipe": str(tmp_path / "recipe.yaml")}
    model = net if kind == "train" else finetuned(tmp_path, people_dir)
    recipe = recipe_of(people_dir, tmp_path / "out", folds=None, split=SPLIT, compare=[], models=[model])
    recordings = Recordings(recipe.task.folder, "EEG")

    def knowing(person: str, folder: Path) -> Path:
        manifest = json.loads((tiny_bundle.folder / "bundle.json").read_text())
        manifest["provenance"]["fingerprints"] = {side: recordings.fingerprints(person)}
        shutil.copytree(tiny_bundle.folder, folder)
        (folder / "bundle.json").write_text(json.dumps(manifest))
        return folder

    monkeypatch.setattr(runs, "load_run", lambda _: SimpleNamespace(fingerprints={}))
    monkeypatch.setattr(finetune, "finetune", lambda recipe, resume: None)
    for person, named in (("P4", "P4, who is tested"), ("P3", "")):
        monkeypatch.setattr(folds, "train_fold", lambda *_, who=person: knowing(who, tmp_path / who))
        monkeypatch.setattr(export_decoder, "export_decoder", lambda _, to, who=person: knowing(who, to))
        if named:
            with pytest.raises(ConfigError, match=named):
                benchmark(recipe)
            shutil.rmtree(tmp_path / "out")
        else:
            assert benchmark(recipe)["missing"] == []
