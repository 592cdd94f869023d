"""Training: learns, resumes, refuses."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from safetensors.torch import load_file  # noqa: E402

from engine.backends.onnxruntime import Config as OnnxRuntime  # noqa: E402
from engine.bundle import load as load_bundle  # noqa: E402
from offline import checkpoint  # noqa: E402
from offline.calibrate import fit_temperature  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.evaluate.played import play  # noqa: E402
from offline.export import export  # noqa: E402
from offline.probe.features import Signal  # noqa: E402
from offline.quiet import EXPORTER, LIGHTNING  # noqa: E402
from offline.run_folder import RUN, WEIGHTS  # noqa: E402
from offline.train.data import Side, prepare, read_material  # noqa: E402
from offline.train.fold import train_fold  # noqa: E402
from offline.train.recipe import load, parse  # noqa: E402
from offline.train.run import load_model, load_run  # noqa: E402
from offline.train.train import CHECKPOINT, train  # noqa: E402
from offline.train.validate import as_played, stepped  # noqa: E402
from streamer.errors import ConfigError, RecordingError  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
MakeRecipe = Callable[..., Any]


def curve(folder: Path) -> list[tuple[str, str, str]]:
    """Every logged value of a run's starts, in order."""
    rows = []
    for path in sorted(folder.glob("logs/start_*/metrics.csv")):
        with path.open() as file:
            rows += [
                (row["epoch"], row["train_loss"], row["val_cross_entropy"]) for row in csv.DictReader(file)
            ]
    return rows


def test_a_resumed_training_is_the_uninterrupted_one(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Stopped after one of three epochs and resumed, curve and weights are bit for bit the same."""
    straight = make_recipe(tmp_path / "straight", epochs=3)
    broken = make_recipe(tmp_path / "broken", epochs=3)
    train(straight, progress=False)
    train(broken, progress=False, stop_after=1)
    train(broken, progress=False, resume=True)
    assert curve(straight.output) == curve(broken.output)
    a = load_file(straight.output / WEIGHTS)
    b = load_file(broken.output / WEIGHTS)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_resuming_behind_the_last_epoch_gives_the_same_weights(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Killed while it scores, or finished: what is written is the average, not the last step's weights."""
    recipe = make_recipe(tmp_path, epochs=2)
    train(recipe, progress=False)
    before = load_file(recipe.output / WEIGHTS)
    for gone in ((), (RUN, WEIGHTS)):
        for name in gone:
            (recipe.output / name).unlink()
        train(recipe, progress=False, resume=True)
        after = load_file(recipe.output / WEIGHTS)
        assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_no_training_is_trained_over(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """One that was interrupted is resumed, and by its own recipe; a finished one of other settings stays."""
    recipe = make_recipe(tmp_path, epochs=2)
    faster = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"lr": 0.1})})
    train(recipe, progress=False, stop_after=1)
    (recipe.output / RUN).unlink()  # what `stop_after` leaves and an interruption does not
    with pytest.raises(ConfigError, match="go on with --resume"):
        train(recipe, progress=False)
    with pytest.raises(ConfigError, match=r"resumed with this recipe: optim\.lr changed"):
        train(faster, progress=False, resume=True)
    train(recipe, progress=False, resume=True)
    for resume in (False, True):
        with pytest.raises(ConfigError, match="holds another training"):
            train(faster, progress=False, resume=resume)
    before = load_file(recipe.output / WEIGHTS)
    train(recipe, progress=False)  # the same once more gives the same
    assert all(torch.equal(value, before[name]) for name, value in load_file(recipe.output / WEIGHTS).items())


def test_a_training_resumes_on_its_own_recordings_only(
    make_recipe: MakeRecipe, corpus_dir: Path, tmp_path: Path
) -> None:
    """Other people under the same names are another training."""
    recipe = make_recipe(tmp_path / "run", epochs=2)
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_dir, corpus)
    folder = recipe.data.folders[0].model_copy(update={"path": corpus})
    data = recipe.data.model_copy(update={"folders": (folder,)})
    recipe = recipe.model_copy(update={"data": data})
    train(recipe, progress=False, stop_after=1)
    first, second = sorted(corpus.rglob("*A1*.npz"))[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(ConfigError, match="the recordings in data changed"):
        train(recipe, progress=False, resume=True)


def test_a_checkpoint_of_before_is_refused_in_words(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """One that does not say what it is of may be of anything."""
    recipe = make_recipe(tmp_path / "run", epochs=2)
    train(recipe, progress=False, stop_after=1)
    state = checkpoint.load(recipe.output / CHECKPOINT)
    del state["training"]
    checkpoint.save(state, recipe.output / CHECKPOINT)
    with pytest.raises(ConfigError, match="begun by an earlier version"):
        train(recipe, progress=False, resume=True)


def test_an_interrupted_training_says_how_to_go_on(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would end the process without a word, and with an exit code that says failure."""
    recipe = make_recipe(tmp_path / "run", epochs=2)
    train(recipe, progress=False, stop_after=1)

    def interrupted(*_: Any, **__: Any) -> None:
        raise SystemExit(1)  # what its `fit` does when Ctrl-C reaches it

    monkeypatch.setattr("lightning.Trainer.fit", interrupted)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True)))
    result = CliRunner().invoke(app, ["train", str(path), "--json"])
    assert result.exit_code == 130
    assert "the same command with --resume" in json.loads(result.stdout)["error"]["message"]


def test_libraries_do_not_talk_about_themselves(
    make_recipe: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither Lightning's advertisements nor what the exporter would do with torchvision is put out."""
    loud = (*LIGHTNING, EXPORTER)
    for name in loud:
        caplog.set_level("INFO", name)
    export(train(make_recipe(tmp_path / "run", epochs=1), progress=False), tmp_path / "bundle")
    assert not [record for record in caplog.records if record.name.startswith(loud)]


def test_a_run_may_be_moved(tiny_run: Any, tmp_path: Path) -> None:
    """Its weights are looked for where it lies, not where it was made."""
    moved = tmp_path / "moved"
    shutil.copytree(tiny_run.recipe.output, moved)
    assert load_run(moved).recipe.output == moved
    model = load_model(load_run(moved))
    assert torch.equal(next(model.parameters()), next(load_model(tiny_run).parameters()))


def test_a_run_reads_back(tiny_run: Any) -> None:
    """What training wrote is the run it returned, with a fingerprint per recording."""
    assert load_run(tiny_run.recipe.output) == tiny_run
    assert {group: len(some) for group, some in tiny_run.fingerprints.items()} == {"train": 2, "validate": 2}
    assert tiny_run.subjects == {"train": ("A1",), "validate": ("A2",)}
    assert set(tiny_run.scores) == {
        "val_accuracy",
        "val_balanced_accuracy",
        "val_cross_entropy",
        "val_hop_balanced_accuracy",
    }


def test_what_cannot_train_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """No checkpoint, shared subjects, and a task nobody has are errors that say what to do."""
    recipe = make_recipe(tmp_path)
    with pytest.raises(ConfigError, match="Nothing to resume"):
        train(recipe, resume=True, progress=False)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(tmp_path)
    data = recipe.data.model_copy(update={"validate_": ("A1",)})
    with pytest.raises(ConfigError, match="both train and validate"):
        read_material(recipe.model_copy(update={"data": data}))
    with pytest.raises(RecordingError, match="a marker singing"):
        read_material(recipe.model_copy(update={"classes": ("rest", "singing", "singing")}))


def test_the_same_samples_on_both_sides_are_refused(
    make_recipe: MakeRecipe, corpus_dir: Path, tmp_path: Path
) -> None:
    """A copy under another person's name is told by its samples, with the names of both."""
    folder = shutil.copytree(corpus_dir, tmp_path / "corpus")
    shutil.copy(folder / "A1" / "A1R1.npz", folder / "A2" / "copy.npz")
    recipe = make_recipe(tmp_path / "run")
    (one,) = recipe.data.folders
    data = recipe.data.model_copy(update={"folders": (one.model_copy(update={"path": folder}),)})
    with pytest.raises(ConfigError, match=r"A2/copy holds the same samples as A1/A1R1"):
        read_material(recipe.model_copy(update={"data": data}))


def test_two_corpora_are_learned_from_together(
    make_recipe: MakeRecipe, corpus_dir: Path, tmp_path: Path
) -> None:
    """Each folder's channels and markers are renamed; two channels of one name are refused."""
    recipe = make_recipe(tmp_path)
    (folder,) = recipe.data.folders
    names = {recipe.ch_names[0]: recipe.ch_names[1], recipe.ch_names[1]: recipe.ch_names[0]}
    other = shutil.copytree(corpus_dir, tmp_path / "other")
    for path in other.rglob("*.npz"):  # the same signal, stored otherwise
        with np.load(path) as file:
            content = dict(file)
        np.savez(path, **content | {"data": 2 * content["data"], "scale": content["scale"] / 2})
    changes = {"path": other, "prefix": "other_", "labels": {"right_fist": "clench"}, "channels": names}
    folders = (folder, folder.model_copy(update=changes))
    data = recipe.data.model_copy(update={"folders": folders, "train": ("A1", "A3", "other_A3")})
    material = read_material(recipe.model_copy(update={"data": data, "dsp": ()}))
    asked = {one.subject: {label for *_, label in one.spans} for one in material.train.prepared}
    assert asked == {"A1": {0, 1, 2}, "A3": {0, 1, 2}, "other_A3": {0, 1}}
    theirs = {one.subject: one.data for one in material.train.prepared}
    assert np.array_equal(theirs["A3"][:, [1, 0]], theirs["other_A3"][:, :2])
    mixed = folder.model_copy(update={"channels": {recipe.ch_names[0]: recipe.ch_names[1]}})
    data = recipe.data.model_copy(update={"folders": (mixed,)})
    with pytest.raises(RecordingError, match="several are called"):
        read_material(recipe.model_copy(update={"data": data}))


def test_a_recipe_lists_every_fault(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """All faults of a recipe come at once, each with its path; a model that does not fit is refused."""
    raw = make_recipe(tmp_path).model_dump(by_alias=True, mode="json")
    faulty = {**raw, "optim": {"epochs": -1, "speed": 3}}
    with pytest.raises(ConfigError, match=r"(?s)optim\.epochs.*optim\.speed"):
        parse(faulty)
    with pytest.raises(ConfigError, match="has 22 channels"):
        parse({**raw, "model": {"kind": "motor_imagery"}})
    twice = {**raw, "min_present": 12, "idle": "sleep"}
    with pytest.raises(ConfigError, match=r"(?s)idle 'sleep'.*min_present 12"):
        parse(twice)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("**/train_*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    """Every training recipe of the project is valid and says in its second line how to run it."""
    load(path)
    assert path.read_text().splitlines()[1] == f"# bcitrain train configs/{path.name}"


def test_a_fold_is_made_once(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """A fold leaves a bundle of the people it was given; asked for again, nothing is trained."""
    content = make_recipe(tmp_path / "unused", epochs=1).model_dump(mode="json", by_alias=True)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    bundle = train_fold(recipe, ["optim.lr=0.001"], ["A2"], ["A3"], 5, tmp_path / "fold")
    run = load_run(tmp_path / "fold" / "run")
    assert run.subjects == {"train": ("A2",), "validate": ("A3",)}
    assert (run.recipe.seed, run.recipe.optim.lr) == (5, 0.001)
    task = load_bundle(bundle).manifest.provenance["task"]
    assert task["protocol"]["kind"] == "trials"
    before = (bundle / "bundle.json").stat().st_mtime_ns
    assert train_fold(recipe, ["optim.lr=0.001"], ["A2"], ["A3"], 5, tmp_path / "fold") == bundle
    assert (bundle / "bundle.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="holds another training"):
        train_fold(recipe, [], ["A2"], ["A3"], 5, tmp_path / "fold")


def test_temperature_undoes_a_scaling() -> None:
    """Logits made three times too sure get a temperature three times higher."""
    torch.manual_seed(0)
    logits = torch.randn(4000, 3)
    classes = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(3 * logits, classes) == pytest.approx(
        3 * fit_temperature(logits, classes), rel=0.01
    )
    assert fit_temperature(logits, classes) == pytest.approx(1.0, abs=0.15)


def test_every_class_counts_alike_in_the_temperature() -> None:
    """Nine times as many of one class, the same ones again, change nothing."""
    torch.manual_seed(0)
    logits = torch.randn(600, 3)
    classes = torch.distributions.Categorical(logits=logits * torch.tensor([3.0, 1.0, 0.5])).sample()
    again = torch.cat([torch.arange(600), *[torch.nonzero(classes == 0)[:, 0]] * 8])
    more = fit_temperature(logits[again], classes[again])
    assert more == pytest.approx(fit_temperature(logits, classes), abs=1e-3)


def test_alignment_starts_from_the_training_subjects(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """The prior is the same whoever validates, and another one of other people."""

    def dsp(**data: Any) -> Any:
        recipe = make_recipe(tmp_path)
        update = {"data": recipe.data.model_copy(update=data)}
        return read_material(recipe.model_copy(update=update)).dsp

    own = dsp()
    assert own[1].prior is not None
    assert dsp(validate_=("A3",)) == own
    assert dsp(train=("A3",)) != own


def test_a_training_scores_what_its_bundle_says(tiny_run: Any, tiny_bundle: Any) -> None:
    """Stamps, probabilities and which hops count are those of a live session, behind a hole, too."""
    recipe, model = tiny_run.recipe, load_model(tiny_run)
    session = read_material(recipe).validate.sessions[0]
    whole, middle = session.recording, len(session.recording.times) // 2
    times = whole.times + np.where(np.arange(len(whole.times)) < middle, 0.0, 5.0)
    holed = replace(session, recording=replace(whole, times=times, breaks=(middle,)))
    for one in (session, holed):
        stretches = prepare(one, Signal(recipe.ch_names, recipe.sfreq, tiny_run.dsp), recipe.classes)
        side = Side((one,), (stretches,))
        (mine,) = as_played(stepped(model, stretches), side, recipe, model.left_context, tiny_run.temperature)
        with OnnxRuntime().open(tiny_bundle) as backend:
            live = play(tiny_bundle, backend, one)
        np.testing.assert_allclose(mine.times, live.times)
        np.testing.assert_allclose(mine.log_probs, live.log_probs, atol=1e-3)
        np.testing.assert_array_equal(mine.valid, live.valid)
        assert (mine.valid.any(), mine.valid.all()) == (True, False)
        assert (mine.markers, mine.duration_s) == (live.markers, live.duration_s)
