"""Pretraining: the same curve whether interrupted, spread over processes, or cut into micro-batches."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("webdataset")

import toy_pretraining  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from toy_pretraining import Toy, ToyConfig, toy_recipe  # noqa: E402

from offline import runs  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.data.prepare import parse as parse_corpus  # noqa: E402
from offline.data.prepare import prepare  # noqa: E402
from offline.data.shards import ShardSet  # noqa: E402
from offline.pretrain import recipe as pretrain_recipe  # noqa: E402
from offline.pretrain.data import PretrainData  # noqa: E402
from offline.pretrain.module import learning_rate  # noqa: E402
from offline.pretrain.pretrain import machine, pretrain  # noqa: E402
from offline.runs import load_run, load_system  # noqa: E402
from offline.systems import Moment, Segments  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

Recipe = Callable[..., Any]
DROPOUT = ToyConfig(dropout=0.3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, run_writer: Callable[..., Path]) -> Path:
    """Shards of three subjects, 48 s each."""
    folder = tmp_path_factory.mktemp("shards")
    for i, subject in enumerate(("A1", "A2", "A3")):
        run_writer(folder / "corpus" / subject / f"{subject}R1.npz", seed=i)
    output = folder / "shards"
    corpus = {"stype": "EEG", "sfreq": 160.0, "segment_s": 2.0, "output": output}
    prepare(parse_corpus(corpus | {"folders": [folder / "corpus"]}), workers=1)
    return output


@pytest.fixture(autouse=True)
def known_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let recipes name the toy."""
    toys = type("module", (), {"Config": ToyConfig})
    monkeypatch.setattr(pretrain_recipe, "kinds", lambda: {"toy": toys})


@pytest.fixture
def recipe(shards: Path, tmp_path: Path) -> Recipe:
    return lambda name="run", **changes: toy_recipe(shards, tmp_path / name, **changes)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Have something happen in a step of the toy's training."""
    loss = Toy.loss

    def arrange(step: int, happen: Callable[[], None]) -> None:
        def changed(self: Toy, batch: Segments, at: Moment) -> Any:
            if at.step == step:
                monkeypatch.setattr(Toy, "loss", loss)
                happen()
            return loss(self, batch, at)

        monkeypatch.setattr(Toy, "loss", changed)

    return arrange


def curve(folder: Path) -> list[dict[str, float]]:
    """Every logged line of a run's starts, but for the speed."""
    lines = []
    for path in sorted(folder.glob("logs/start_*/metrics.csv")):
        with path.open() as file:
            lines += [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return [{key: row[key] for key in row if not key.endswith("_per_s")} for row in lines]


def weights(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / "weights.safetensors"))


def assert_same(a: Path, b: Path) -> None:
    """Curve and weights agree bit for bit."""
    assert curve(a) == curve(b)
    assert weights(a).keys() == weights(b).keys()
    assert all(torch.equal(weights(a)[name], weights(b)[name]) for name in weights(a))


def assert_close(a: Path, b: Path) -> None:
    """Curve and weights agree but for rounding."""
    for ours, its in zip(curve(a), curve(b), strict=True):
        assert ours == pytest.approx(its, abs=1e-6)
    for name, value in weights(a).items():
        torch.testing.assert_close(value, weights(b)[name], atol=1e-6, rtol=0)


def fail() -> None:
    raise OSError("the disk is gone")


@pytest.mark.parametrize("step", [4, 6, 11])
def test_a_resumed_pretraining_is_the_uninterrupted_one(recipe: Recipe, at_step: Any, step: int) -> None:
    """Broken off at any step and resumed, curve, weights and counts are bit for bit the same."""
    straight, broken = recipe("straight", system=DROPOUT), recipe("broken", system=DROPOUT)
    whole = pretrain(straight, progress=False)
    at_step(step, fail)
    with pytest.raises(OSError, match="disk"):
        pretrain(broken, progress=False)
    run = pretrain(broken, resume=True, progress=False)
    assert_same(straight.output, broken.output)
    assert (run.scores, run.hours, run.steps) == (whole.scores, whole.hours, 12)


def test_stopped_after_every_epoch_it_is_still_the_same(recipe: Recipe) -> None:
    """Three starts of one epoch each, with micro-batches, equal one start of three."""
    straight, broken = (recipe(name, system=DROPOUT, accumulate=2) for name in ("straight", "broken"))
    pretrain(straight, progress=False)
    for epoch in (1, 2, 3):
        run = pretrain(broken, resume=epoch > 1, progress=False, stop_after=epoch)
        assert (run.steps, run.finished) == (4 * epoch, epoch == 3)
    assert_same(straight.output, broken.output)


def test_broken_off_between_weights_and_checkpoint_it_is_still_the_same(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights newer than the checkpoint do no harm: the steps after the checkpoint are repeated."""
    straight, broken = recipe("straight"), recipe("broken")
    pretrain(straight, progress=False)
    write = runs.write

    def write_and_fail(run: Any, system: Any) -> None:
        write(run, system)
        if run.steps == 8:
            fail()

    monkeypatch.setattr(runs, "write", write_and_fail)
    with pytest.raises(OSError, match="disk"):
        pretrain(broken, progress=False)
    monkeypatch.undo()
    pretrain(broken, resume=True, progress=False)
    assert_same(straight.output, broken.output)


def spawn(command: list[str], shards: Path, output: Path, settings: dict[str, Any], **environ: str) -> int:
    words = [*command, toy_pretraining.__file__, str(shards), str(output), json.dumps(settings)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | environ
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode not in (0, -signal.SIGKILL):
        pytest.fail(done.stderr[-3000:])
    return done.returncode


def test_a_killed_process_resumes_exactly(recipe: Recipe, shards: Path) -> None:
    """After a kill -9 in the middle of an epoch, the resumed training is the uninterrupted one."""
    straight, broken = recipe("straight", system=DROPOUT), recipe("broken", system=DROPOUT)
    pretrain(straight, progress=False)
    settings = {"system": {"dropout": 0.3}}
    code = spawn([sys.executable], shards, broken.output, settings, TOY_DIES_AT="6")
    assert code == -signal.SIGKILL
    assert load_run(broken.output).steps == 4
    pretrain(broken, resume=True, progress=False)
    assert_same(straight.output, broken.output)


def test_two_processes_are_one_at_the_same_global_batch(recipe: Recipe, shards: Path) -> None:
    """Under torchrun on two processes, curve and weights are those of one process, but for rounding."""
    alone, shared = recipe("alone"), recipe("shared")
    pretrain(alone, progress=False)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert spawn(launcher, shards, shared.output, {}) == 0
    assert_close(alone.output, shared.output)
    run = load_run(shared.output)
    assert run.machine["processes"] == "2"
    assert run.hours == load_run(alone.output).hours


def test_micro_batches_give_the_gradients_of_the_batch(recipe: Recipe) -> None:
    """An update from two or four micro-batches is the update from the batch, but for rounding."""
    outputs = []
    for pieces in (1, 2, 4):
        settings = recipe(f"{pieces}", accumulate=pieces)
        pretrain(settings, progress=False)
        outputs.append(settings.output)
    for output in outputs[1:]:
        for name, value in weights(outputs[0]).items():
            if name != "mean":  # follows each micro-batch
                torch.testing.assert_close(value, weights(output)[name], atol=1e-6, rtol=0)


def test_the_trainer_is_a_plain_loop(recipe: Recipe, shards: Path) -> None:
    """Twelve steps under Lightning give the weights of the textbook loop: rate, decay, clipping and order."""
    settings = recipe(lr_end=1e-3, weight_decay=0.1, clip_norm=0.1)
    pretrain(settings, progress=False)
    optim, data = settings.optim, ShardSet([shards], batch_size=8, exclude=["A3"], crop=160, seed=3)
    torch.manual_seed(3)
    toy = ToyConfig().build(160.0)
    matrices, vectors = ([w for w in toy.parameters() if w.ndim == n] for n in (2, 1))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, betas=optim.betas)
    for step in range(12):
        for group in adam.param_groups:
            group["lr"] = learning_rate(optim, step)
        loss, _ = toy.loss(data.batch(step), Moment(step, 12, 3))
        adam.zero_grad()
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(toy.parameters(), 0.1) > 0.1
        adam.step()
    for name, value in weights(settings.output).items():
        torch.testing.assert_close(value, toy.state_dict()[name], atol=1e-7, rtol=0)


def test_reading_ahead_changes_nothing(recipe: Recipe) -> None:
    """With processes that read ahead, the training is bit for bit that without."""
    here, ahead = recipe("here"), recipe("ahead", num_workers=2)
    pretrain(here, progress=False)
    pretrain(ahead, progress=False)
    assert_same(here.output, ahead.output)


def test_held_out_subjects_are_validated_on_and_never_trained_on(
    recipe: Recipe, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row of a held-out or excluded subject is in a training batch; every validated row is held out."""
    whole = recipe(crop_s=2.0, validate=["A3"], exclude=["A1"], steps=40, validate_segments=1000)
    rows: dict[str, set[bytes]] = {"loss": set(), "validate": set()}
    for name, method in (("loss", Toy.loss), ("validate", Toy.validate)):

        def spy(self: Toy, batch: Segments, *at: Moment, name: str = name, method: Any = method) -> Any:
            rows[name] |= {row.numpy().tobytes() for row in batch.x}
            return method(self, batch, *at)

        monkeypatch.setattr(Toy, name, spy)
    run = pretrain(whole, progress=False)
    of = {
        subject: {
            row.numpy().tobytes()
            for batch in ShardSet([shards], batch_size=1, subjects=[subject]).validation_batches()
            for row in batch.x
        }
        for subject in ("A1", "A2", "A3")
    }
    assert rows == {"loss": of["A2"], "validate": of["A3"]}
    assert run.subjects == {"train": ("A2",), "validate": ("A3",)}


def test_a_run_can_be_used_before_it_ends(recipe: Recipe, at_step: Any) -> None:
    """In the middle of a training its folder holds a run, marked unfinished, and weights that load."""
    settings, found = recipe(), []
    at_step(6, lambda: found.append((load_run(settings.output), load_system(settings.output))))
    final = pretrain(settings, progress=False)
    (run, system), *_ = found
    assert (run.steps, run.finished, final.finished) == (4, False, True)
    assert not system.training
    assert set(run.scores) == {"loss", "segments"}
    assert load_run(settings.output) == final


def test_a_loaded_system_scores_what_the_training_said(recipe: Recipe, shards: Path) -> None:
    """The weights in the folder give the validation loss that is in its run.json."""
    run = pretrain(recipe(), progress=False)
    system = load_system(run.recipe.output)
    system.begin_validation()
    held_out = ShardSet([shards], batch_size=8, subjects=["A3"], crop=160)
    with torch.no_grad():
        for batch in held_out.validation_batches(2):
            system.validate(batch)
    assert system.end_validation() == pytest.approx(run.scores)


def test_what_cannot_train_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """Nothing to resume, another recipe, an unfinished run, sizes that do not divide: what to do is said."""
    settings = recipe()
    with pytest.raises(ConfigError, match="Nothing to resume"):
        pretrain(settings, resume=True, progress=False)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_system(tmp_path)
    pretrain(settings, progress=False, stop_after=1)
    with pytest.raises(ConfigError, match="stopped at step 4 of 12: go on with --resume"):
        pretrain(settings, progress=False)
    with pytest.raises(ConfigError, match=r"optim\.lr, seed changed"):
        pretrain(recipe(lr=1e-3).model_copy(update={"seed": 4}), resume=True, progress=False)
    with pytest.raises(ConfigError, match=r"recordings in data\.shards or the rows of data\.tables changed"):
        pretrain(recipe(validate=["A2"]), resume=True, progress=False)
    with pytest.raises(ConfigError, match=r"a frame of the system is 10: make it 0\.0625"):
        PretrainData(recipe(crop_s=0.05))
    with pytest.raises(ConfigError, match="multiple of 6"):
        PretrainData(recipe(accumulate=2), world=3)
    with pytest.raises(ConfigError, match=r"A3 are in data\.validate and in data\.exclude"):
        PretrainData(recipe(validate=["A2-A3"], exclude=["A3"]))


def test_segments_are_whole_frames(recipe: Recipe) -> None:
    """A crop of 16.16 frames is one of 16."""
    data = PretrainData(recipe(crop_s=1.01))
    assert (data.train.n_times, data.validate_on.n_times) == (160, 160)


def test_a_recording_under_two_names_is_refused(run_writer: Callable[..., Path], tmp_path: Path) -> None:
    """A recording trained on under one subject's name and held out under another's is found out."""
    for subject in ("A1", "A3"):
        run_writer(tmp_path / "corpus" / subject / f"{subject}R1.npz", seed=1)
    corpus = {"stype": "EEG", "sfreq": 160.0, "segment_s": 2.0, "output": tmp_path / "shards"}
    prepare(parse_corpus(corpus | {"folders": [tmp_path / "corpus"]}), workers=1)
    with pytest.raises(ConfigError, match="trained and validated on at once"):
        PretrainData(toy_recipe(tmp_path / "shards", tmp_path / "run"))


def test_a_loss_that_is_no_number_ends_the_training(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the loss becomes NaN the training stops, and the checkpoint from before it stays."""
    loss = Toy.loss

    def explode(self: Toy, batch: Segments, at: Moment) -> Any:
        value, figures = loss(self, batch, at)
        return (value * float("nan") if at.step == 5 else value), figures

    monkeypatch.setattr(Toy, "loss", explode)
    with pytest.raises(ConfigError, match=r"(?s)nan.*from step 4.*optim\.lr"):
        pretrain(recipe(), progress=False)
    assert all(value.isfinite().all() for value in weights(recipe().output).values())


def test_mixed_precision_is_for_gpus(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU a recipe in bfloat16 is trained in float32, and the run says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = recipe(precision="bf16-mixed")
    assert machine(settings).precision == "32-true"
    assert pretrain(settings, progress=False, stop_after=1).machine["precision"] == "32-true"


def test_the_rate_warms_up_and_falls(recipe: Recipe) -> None:
    """The learning rate rises in equal steps to its peak, and falls from there towards its end."""
    optim = recipe(warmup_steps=4, lr=1.0, lr_end=0.1).optim
    rates = [learning_rate(optim, step) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert rates[8] == pytest.approx(0.55)
    assert 0.1 < rates[-1] < 0.2


@pytest.fixture
def recipe_file(recipe: Recipe, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe().model_dump(mode="json", by_alias=True)))
    return path


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Answer Ctrl-C as a terminal's process does: one started in the background by a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_command_prints_the_scores_and_what_comes_next(recipe_file: Path) -> None:
    """`bcitrain pretrain` ends with the figures on standard output and the next command."""
    done = CliRunner().invoke(app, ["pretrain", str(recipe_file), "--json"])
    assert done.exit_code == 0, done.stderr
    assert {"loss", "steps", "hours", "output"} <= set(json.loads(done.stdout))
    assert "bcitrain export" in done.stderr


@pytest.mark.parametrize(
    ("step", "name", "said"),
    [
        (6, "SIGINT", "step 4 is kept. Go on: the same command with --resume"),
        (1, "SIGINT", "nothing is kept"),
        (6, "SIGTERM", "step 4 is kept"),
    ],
)
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_command_says_how_to_go_on(
    recipe_file: Path, at_step: Any, step: int, name: str, said: str
) -> None:
    """After Ctrl-C or a plain kill the command says what is kept, ends with 130; signals act as before."""
    number = signal.Signals[name]
    before = signal.getsignal(number)
    at_step(step, lambda: os.kill(os.getpid(), number))
    done = CliRunner().invoke(app, ["pretrain", str(recipe_file)])
    assert done.exit_code == 130, done.exception
    assert said in done.stderr
    assert signal.getsignal(number) is before
