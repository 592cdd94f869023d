"""Cross-validation over people: who is tested when, what a pretraining may see, and what the numbers say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from offline import runs
from offline.crossval import nets as crossval_nets
from offline.crossval.baselines import features
from offline.crossval.crossval import crossval
from offline.crossval.folds import deal_folds, folds_of, read_people
from offline.crossval.recipe import Edges, Levels, Recipe, Site, Strengths, load
from offline.data.connectomes import to_triangles
from offline.results import Results
from streamer.errors import ConfigError

N_NODES = 6
BRANCH = {
    "sfreq": 100.0,
    "bands": [[5, 20], [20, 45]],
    "hop": 8,
    "window": 40,
    "nodes": {"made6": N_NODES},
    "dim": 8,
    "layers": 1,
    "filters": 2,
    "width": 4,
    "kernel": 5,
    "strides": [2, 4],
    "dilations": [1],
}


def write_people(path: Path, *, effect: float, n: int = 24, seed: int = 0) -> Path:
    """Write connectomes of n people in two sites; ``effect`` is added to some EEG edges of patients."""
    rng = np.random.default_rng(seed)
    pairs = N_NODES * (N_NODES - 1) // 2
    patient = np.arange(n) % 2 == 1
    eeg = rng.normal(0, 1, (n, 2, pairs))
    eeg[patient, :, :5] += effect
    np.savez(
        path,
        eeg=eeg.astype(np.float32),
        fmri=rng.normal(0, 1, (n, pairs)).astype(np.float32),
        label=np.where(patient, "patient", "control"),
        site=np.where(np.arange(n) // 2 % 3 == 0, "A", "B"),
        subject=np.array([f"p{i:02d}" for i in range(n)]),
    )
    return path


def raw_recipe(people: Path, output: Path, models: list[dict[str, Any]], **others: Any) -> dict[str, Any]:
    return {
        "people": {"kind": "connectomes", "path": str(people), "nodes": "made6"},
        "negative": ["control"],
        "positive": ["patient"],
        "folds": 3,
        "repeats": 2,
        "models": models,
        "resamples": 500,
        "output": str(output),
    } | others


def pretraining(folder: Path, people: Path, others: Path, **data: Any) -> Path:
    """Write a pretraining of two steps on the people and on others, of whom some are validated on."""
    tables = [
        {"kind": "connectomes", "path": str(people), "nodes": "made6"},
        {"kind": "connectomes", "path": str(others), "nodes": "made6", "prefix": "x_"},
    ]
    path = folder / "pretrain.yaml"
    recipe = {
        "card": {"name": "tiny", "version": "0.1", "title": "Tiny"},
        "system": {
            "kind": "mcsp",
            "eeg": BRANCH,
            "fmri": BRANCH
            | {"sfreq": 0.5, "bands": [[0.02, 0.2]], "connectivity": "correlation", "edges": "full"},
            "projection": 8,
            "queue": 32,
        },
        "data": {
            "tables": tables,
            "table_batch": 4,
            "validate": ["x_p00-x_p03"],
            "crop_s": 1.0,
            "sfreq": 100.0,
        }
        | data,
        "optim": {"steps": 2, "batch_size": 4},
        "steps_per_epoch": 2,
        "output": str(folder / "pretrained"),
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


NETS = [{"kind": "untrained", "name": "scratch"}, {"kind": "pretrained", "name": "nets"}]
BASELINES = [
    {"kind": "edges", "name": "EEG"},
    {"kind": "strengths", "name": "strengths"},
    {"kind": "edges", "name": "fMRI", "modality": "fmri"},
]
TRAINING = {"steps": 3, "batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what the tests with nets share."""
    return tmp_path_factory.mktemp("crossval")


@pytest.fixture(scope="module")
def make(folder: Path) -> Callable[..., Recipe]:
    """Return what makes recipes with nets, all on the same people."""
    tmp_path = folder
    people = write_people(tmp_path / "people.npz", effect=1.0, n=12)
    others = write_people(tmp_path / "others.npz", effect=0.0, n=8, seed=9)
    path = pretraining(tmp_path, people, others)

    def recipe(output: str, models: list[dict[str, Any]] = NETS, **changes: Any) -> Recipe:
        settings = {"pretraining": {"recipe": str(path)}, "training": TRAINING, "folds": 2, "repeats": 1}
        settings |= changes
        return Recipe.model_validate(raw_recipe(people, tmp_path / output, models, **settings))

    return recipe


@pytest.fixture(scope="module")
def whole(make: Callable[..., Recipe]) -> tuple[Recipe, dict[str, Any]]:
    """A cross-validation of nets that nothing has interrupted."""
    recipe = make("whole")
    return recipe, crossval(recipe)


def test_everybody_is_tested_once_per_repeat(make: Callable[..., Recipe]) -> None:
    """Test and training people are disjoint, every repeat tests each person once, and repeats differ."""
    people = read_people(make("out"))
    folds = deal_folds(people, 3, 4)
    assert len(folds) == 12
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        assert len(fold.train) + len(fold.test) == len(people)
    for repeat in range(4):
        tested = np.concatenate([fold.test for fold in folds if fold.repeat == repeat])
        assert sorted(tested) == list(range(len(people)))
    assert len({tuple(fold.test) for fold in folds}) > 3


def test_a_planted_effect_is_found_and_noise_is_not(tmp_path: Path) -> None:
    """Where EEG tells patients, its interval is above chance and above that of noise; without, it is not."""
    documents = {
        effect: crossval(
            Recipe.model_validate(
                raw_recipe(
                    write_people(tmp_path / f"{effect}.npz", effect=effect, n=60),
                    tmp_path / str(effect),
                    [BASELINES[0], BASELINES[2]],
                    compare=[["EEG", "fMRI"]],
                )
            )
        )
        for effect in (0.0, 1.5)
    }
    (eeg, fmri), (versus,) = documents[1.5]["rows"], documents[1.5]["differences"]
    assert eeg["interval"][0] > 0.6
    assert versus["interval"][0] > 0.0
    assert versus["corrected_p"] < 0.05
    assert fmri["interval"][0] <= 0.5 <= fmri["interval"][1]
    (eeg, _), (versus,) = documents[0.0]["rows"], documents[0.0]["differences"]
    assert eeg["interval"][0] <= 0.5 <= eeg["interval"][1]
    assert versus["interval"][0] <= 0.0 <= versus["interval"][1]
    assert versus["corrected_p"] > 0.05
    table = (tmp_path / "1.5" / "crossval.md").read_text()
    assert f"| EEG | {documents[1.5]['rows'][0]['balanced_accuracy']:.3f} ± " in table
    assert (tmp_path / "1.5" / "crossval.png").stat().st_size > 0


def test_a_pretraining_knows_nobody_whom_its_fold_tests(whole: tuple[Recipe, dict[str, Any]]) -> None:
    """Names and numbers of test subjects, EEG and fMRI, are in no run of their fold; training ones are."""
    recipe, document = whole
    people = read_people(recipe)
    for fold in deal_folds(people, recipe.folds, recipe.repeats):
        run = runs.load_run(recipe.output / "folds" / "nets" / f"{fold.repeat}_{fold.number}")
        names = {name for side in run.subjects.values() for name in side}
        prints = {one for side in run.fingerprints.values() for one in side}
        tested = [people.fingerprints[i] for i in fold.test]
        assert not prints & {one for of in tested for one in of}
        assert all(len(of) == 2 for of in tested)
        assert not names & {people.names[i] for i in fold.test}
        assert {people.names[i] for i in fold.train} <= names
    assert [row["row"] for row in document["rows"]] == [
        "scratch, frozen",
        "scratch, trained",
        "nets, frozen",
        "nets, trained",
    ]
    assert document["pretraining"][0]["folds"] == 2
    assert document["pretraining"][0]["loss"] > 0


def test_a_person_under_another_name_is_refused(tmp_path: Path) -> None:
    """Where a pretraining holds a tested person's numbers under another name, the cross-validation stops."""
    people = write_people(tmp_path / "people.npz", effect=1.0, n=12)
    others = dict(np.load(write_people(tmp_path / "others.npz", effect=0.0, n=8, seed=9)))
    others["eeg"][4:] = np.load(people)["eeg"][8:]
    np.savez(tmp_path / "others.npz", **others)
    path = pretraining(tmp_path, people, tmp_path / "others.npz")
    recipe = raw_recipe(people, tmp_path / "out", NETS[1:], pretraining={"recipe": str(path)})
    with pytest.raises(ConfigError, match=r"is tested in fold . of repeat 0, .* has seen this person"):
        crossval(Recipe.model_validate(recipe))


def test_a_net_answers_for_itself(make: Callable[..., Recipe], whole: tuple[Recipe, dict[str, Any]]) -> None:
    """Alone, or behind others, a net gives the same probabilities; pretrained and scratch differ."""
    alone = crossval(make("alone", NETS[1:]))
    _, behind = whole
    assert answers(alone, "nets, frozen") == answers(behind, "nets, frozen")
    assert answers(alone, "nets, trained") == answers(behind, "nets, trained")
    assert answers(behind, "nets, frozen") != answers(behind, "scratch, frozen")


def test_repeats_begin_from_other_weights(make: Callable[..., Recipe]) -> None:
    """The number of the repeat is the seed of its pretrainings, each in a folder of its own."""
    recipe = make("seeds", repeats=3)
    people = read_people(recipe)
    folds = deal_folds(people, 2, 3)
    found = [crossval_nets.fold_recipe(recipe, recipe.models[1], people, fold) for fold in folds]
    assert [one.seed for one in found] == [0, 0, 1, 1, 2, 2]
    assert len({one.output for one in found}) == 6
    drawn = (found[0], *found[:3])
    first = [crossval_nets.initial_branch(one).regions["made6"].weight for one in drawn]
    assert first[0].equal(first[1])
    assert first[0].equal(first[2])
    assert not first[0].equal(first[3])


def answers(document: dict[str, Any], row: str) -> list[Any]:
    return [one["probabilities"] for one in document["results"] if one["row"] == row]


def test_an_interrupted_cross_validation_goes_on(
    make: Callable[..., Recipe], whole: tuple[Recipe, dict[str, Any]]
) -> None:
    """Stopped after any round, the same command gives what it would have given, and repeats nothing."""

    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    recipe = make("broken")
    with pytest.raises(KeyboardInterrupt):
        crossval(recipe, progress=stop)
    before = (recipe.output / "results.jsonl").read_text()
    first = (recipe.output / "folds" / "nets" / "0_0" / "run.json").read_text()
    resumed = crossval(recipe)
    for row in ("scratch, frozen", "scratch, trained", "nets, frozen", "nets, trained"):
        assert answers(resumed, row) == answers(whole[1], row)
    assert resumed["rows"] == whole[1]["rows"]
    assert (recipe.output / "results.jsonl").read_text().startswith(before)
    assert (recipe.output / "folds" / "nets" / "0_0" / "run.json").read_text() == first


def test_a_line_that_was_cut_costs_itself_alone(tmp_path: Path) -> None:
    """A result cut short by an interruption is computed again; what is kept after it is found again."""
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": "a", "x": 1}\n{"key": "b", "x"')
    for made in ({"x": 2}, {"x": 3}):
        store = Results(path)
        assert [store.get(key, made.copy)["x"] for key in "abc"] == [1, 2, 2]


def test_other_settings_are_computed_anew(make: Callable[..., Recipe]) -> None:
    """A result is used again only for the same training, pretraining and people."""
    recipe = make("again", NETS[:1])
    before = crossval(recipe)
    after = crossval(recipe.model_copy(update={"training": recipe.training.model_copy(update={"lr": 0.1})}))
    assert answers(after, "scratch, frozen") == answers(before, "scratch, frozen")
    assert answers(after, "scratch, trained") != answers(before, "scratch, trained")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positive": ["control"]}, "control in negative and in positive"),
        ({"compare": [["EEG", "eeg"]]}, "there is no row 'eeg'; there are EEG"),
        ({"models": [*BASELINES[:1], *BASELINES[:1]]}, "two models are called EEG"),
        ({"models": NETS}, "nets need pretraining"),
        ({"folds": 1}, "folds"),
    ],
)
def test_a_faulty_recipe_is_refused_in_words(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """What does not fit together in a recipe is told when it is read."""
    path = tmp_path / "crossval.yaml"
    path.write_text(yaml.safe_dump(raw_recipe(tmp_path / "p.npz", tmp_path, BASELINES[:1]) | changes))
    with pytest.raises(ConfigError, match=words):
        load(path)


def test_people_that_do_not_do_are_refused_in_words(tmp_path: Path, make: Callable[..., Recipe]) -> None:
    """Too few of a class, the same person twice, and a baseline without its modality are named."""
    few = make("out", positive=("nobody",))
    with pytest.raises(ConfigError, match="0 labelled nobody"):
        read_people(few)
    people = write_people(tmp_path / "people.npz", effect=0.0, n=12)
    npz = dict(np.load(people))
    npz["eeg"][3] = npz["eeg"][8]
    np.savez(tmp_path / "twice.npz", **npz)
    twice = raw_recipe(tmp_path / "twice.npz", tmp_path, BASELINES)
    with pytest.raises(ConfigError, match="p03 and p08 hold the very same numbers"):
        read_people(Recipe.model_validate(twice))
    np.savez(
        tmp_path / "eeg.npz",
        **{name: npz[name] for name in ("subject", "label")},
        eeg=np.load(tmp_path / "people.npz")["eeg"],
    )
    without = raw_recipe(tmp_path / "eeg.npz", tmp_path, BASELINES)
    with pytest.raises(ConfigError, match="fMRI needs connectomes of fmri"):
        crossval(Recipe.model_validate(without))


def test_strengths_are_means_over_a_nodes_edges(make: Callable[..., Recipe]) -> None:
    """Edges are all pairs of all bands; a node's strength is the mean of its row."""
    people = read_people(make("out"))
    edges = people.edges["eeg"]
    assert features(Edges(kind="edges", name="e"), people).shape == (12, 2 * 15)
    np.testing.assert_array_equal(
        features(Edges(kind="edges", name="e"), people)[3, 15:], to_triangles(edges[3, 1])
    )
    strengths = features(Strengths(kind="strengths", name="s"), people)
    assert strengths[4, N_NODES + 2] == pytest.approx(edges[4, 1, 2].mean())


def test_levels_and_sites_know_no_region(make: Callable[..., Recipe]) -> None:
    """Levels stay where regions change their places, and a site is one of the sites."""
    people = read_people(make("out"))
    turned = {"eeg": people.edges["eeg"][:, :, ::-1, ::-1]}
    levels = Levels(kind="levels", name="l")
    found = features(levels, people)
    assert found.shape == (12, 2 * 2)
    np.testing.assert_allclose(features(levels, replace(people, edges=turned)), found, rtol=1e-5)
    assert found[5, 2] == pytest.approx(to_triangles(people.edges["eeg"][5, 1]).mean())
    assert found[5, 3] == pytest.approx(np.log10(to_triangles(people.edges["eeg"][5, 1]).std()), abs=1e-4)
    sites = features(Site(kind="site", name="s"), people)
    assert [("A", "B")[place] for place in sites.argmax(axis=1)] == list(people.sites)
    assert sites.sum() == 12


def test_each_site_is_left_out_in_turn(tmp_path: Path, make: Callable[..., Recipe]) -> None:
    """By sites, a fold tests all people of one site and learns from the others; each needs both classes."""
    recipe = make("sites", [*BASELINES[:1], {"kind": "site", "name": "site"}], split="sites", repeats=2)
    people = read_people(recipe)
    folds = folds_of(people, recipe)
    assert [(fold.repeat, fold.number) for fold in folds] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for fold in folds:
        assert {people.sites[i] for i in fold.test} == {"AB"[fold.number]}
        assert sorted([*fold.train, *fold.test]) == list(range(len(people)))
    document = crossval(recipe)
    assert (document["people"]["split"], document["people"]["folds"]) == ("sites", 2)
    assert "each site is left out in turn" in document["protocol"]
    assert document["rows"][1]["auroc"] == 0.5  # a site that was never seen says nothing
    one = replace(people, sites=tuple("AB"[label] for label in people.labels))
    with pytest.raises(ConfigError, match="sites needs two sites or more with people of both classes"):
        folds_of(one, recipe)


def test_the_command_prints_one_document(tmp_path: Path) -> None:
    """With --json the command prints what it found and nothing else, and says what is wrong."""
    from offline.cli import app

    people = write_people(tmp_path / "people.npz", effect=1.0)
    path = tmp_path / "crossval.yaml"
    path.write_text(yaml.safe_dump(raw_recipe(people, tmp_path / "out", BASELINES[:1])))
    result = CliRunner().invoke(app, ["crossval", str(path), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["people"]["n_positive"] == 12
    path.write_text(yaml.safe_dump(raw_recipe(tmp_path / "gone.npz", tmp_path / "out", BASELINES[:1])))
    result = CliRunner().invoke(app, ["crossval", str(path), "--json"])
    assert result.exit_code != 0
    assert "gone.npz" in result.stdout + result.stderr
