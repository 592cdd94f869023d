"""Fine-tuning: what it learns from, what it keeps, and that it goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("sklearn")

from test_probe import CHANNELS, run_folder  # noqa: E402

from engine.decision import EvidenceConfig  # noqa: E402
from offline import runs  # noqa: E402
from offline.finetune import finetune as tuning  # noqa: E402
from offline.finetune.data import Labelled, adapted, adapted_prior  # noqa: E402
from offline.finetune.finetune import finetune, score  # noqa: E402
from offline.finetune.learn import choose  # noqa: E402
from offline.finetune.recipe import Recipe, load, parse  # noqa: E402
from offline.finetune.run import load_model, load_run  # noqa: E402
from offline.finetune.tested import score_others  # noqa: E402
from offline.models import brainrvq  # noqa: E402
from offline.probe import heads as probe_heads  # noqa: E402
from offline.probe.features import Signal, pooled_latents  # noqa: E402
from offline.probe.tasks import Windows, find_windows  # noqa: E402
from streamer.errors import ConfigError, RecordingError  # noqa: E402

BUDGET = {"steps": 4, "batch_size": 6, "lr": 1e-3, "context_s": 0.3, "evaluate_every": 2}


def settings(corpus: Path, backbone: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe's content; ``task`` among the changes is merged."""
    task = {
        "folder": {"path": corpus},
        "classes": ["left_fist", "right_fist"],
        "ch_names": CHANNELS,
        "train": ["A1"],
        "validate": ["A2"],
        "from_s": 1.08,
        "window_s": 1.08,
        **changes.pop("task", {}),
    }
    return {
        "card": {"name": "hands", "version": "0.1", "title": "Two hands"},
        "backbone": {"run": backbone, "part": changes.pop("part", "tokenizer")},
        "task": task,
        "pool_s": 1.08,  # 18 frames of 12 samples at 200 Hz
        "optim": BUDGET,
        "min_present": 5,
        "output": output,
        **changes,
    }


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained codec, which takes each channel by itself."""
    return run_folder(tmp_path_factory.mktemp("codec"), ["0" * 16])


@pytest.fixture
def recipe(corpus_dir: Path, codec: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Makes recipes."""
    return lambda **changes: parse(
        settings(corpus_dir, codec, changes.pop("output", tmp_path / "out"), **changes)
    )


@pytest.fixture(scope="module")
def frozen(corpus_dir: Path, codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fine-tuning of a frozen codec."""
    output = tmp_path_factory.mktemp("frozen")
    finetune(parse(settings(corpus_dir, codec, output)))
    return output


def source_of(recipe: Recipe) -> tuning.Source:
    """Return what a fine-tuning works on."""
    return tuning._source(recipe, runs.load_run(recipe.backbone.run))


def test_frozen_is_the_logistic_probe(recipe: Callable[..., Recipe], frozen: Path) -> None:
    """Pooled over its windows, a frozen net answers as the probe's logistic regression on its latents."""
    settings = recipe()
    source = source_of(settings)
    part = runs.load_system(settings.backbone.run).parts()["tokenizer"]
    x = pooled_latents(part, source.signal, source.windows)
    train, test, labels = source.split.train, source.split.test, source.windows.labels
    wanted = probe_heads.logistic(x[train], labels[train], source.windows.subjects[train], x[test])
    net, frames = load_model(frozen), source.held_out.take(source.held_out.last)
    logits = source.data.read(net, frames, net.decide)
    np.testing.assert_allclose(logits.double().softmax(-1).numpy(), wanted, atol=2e-3)
    assert (
        load_run(frozen).scores["balanced_accuracy"]
        == probe_heads.scores(wanted, labels[test])["balanced_accuracy"]
    )


def test_the_crop_of_a_frame_ends_with_it(recipe: Callable[..., Recipe], frozen: Path) -> None:
    """With its whole past in the crop, a frame's training logits are those of stepping to it."""
    source, net = source_of(recipe()), load_model(frozen)
    frames = source.held_out.take(np.array([20, 70]))
    stepped = source.data.read(net, frames, net.decide)
    for i in range(len(frames)):
        one = frames.take(np.array([i]))
        with torch.no_grad():
            crop = net.final(source.data.crops(one, int(one.place[0]) + 1))
        np.testing.assert_allclose(crop[0].numpy(), stepped[i].numpy(), atol=1e-4)


def test_labelled_frames_end_inside_their_marker(recipe: Callable[..., Recipe]) -> None:
    """Every frame ends `from_s` or more after the onset of a marker of its class, and before its end."""
    source = source_of(recipe())
    frames, data = source.held_out, source.data
    drawn = data.drawn(source.rows, np.random.default_rng(0), 17)
    assert len(np.unique(drawn.last)) == 2
    for some in (frames, drawn):
        ends_s = (some.place + 1) * data.hop / 200
        for k, end_s in zip(some.window, ends_s, strict=True):
            markers = source.windows.sessions[source.windows.session[k]].recording.markers
            (marker,) = (m for m in markers if m.time + 1.08 < end_s + 5e-3 <= m.time + m.duration + 1e-2)
            assert marker.label == source_label(source, k)


def source_label(source: tuning.Source, k: int) -> str:
    return ("left_fist", "right_fist")[source.windows.labels[k]]


def test_a_drawn_frame_has_its_pool_behind_the_last_hole(corpus_dir: Path, codec: Path) -> None:
    """Frames that lie before a hole are not counted among those that a drawn frame has before it."""
    source = source_of(parse(settings(corpus_dir, codec, codec.parent / "out")))
    (session,) = {source.windows.session[k] for k in source.rows[:1]}
    recording = source.windows.sessions[session].recording
    times = recording.times.copy()
    middle = len(times) // 2
    times[middle:] += 2.0
    markers = tuple(
        replace(marker, time=marker.time + 2.0 * (marker.time >= times[middle - 1]))
        for marker in recording.markers
    )
    holed = replace(recording, times=times, markers=markers, breaks=(middle,))
    start, stop = np.array([times[middle]]), np.array([times[middle] + 1.2])
    windows = Windows(
        (replace(source.windows.sessions[session], recording=holed),),
        np.array([0]),
        start,
        stop,
        np.array([0]),
        np.array(["A1"]),
    )
    data = Labelled(source.signal, windows, source.net.hop)
    span = data.frames(np.array([0])).place
    for seed in range(20):
        drawn = data.drawn(np.array([0]), np.random.default_rng(seed), 17)
        assert drawn.place[0] - span[0] >= 17


def test_other_subjects_are_not_opened(corpus_dir: Path, codec: Path, tmp_path: Path, frozen: Path) -> None:
    """A subject who is in neither group may be damaged: nothing of it is read, and nothing is other."""
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_dir, corpus)
    for path in (corpus / "A3").iterdir():
        path.write_bytes(b"damaged")
    finetune(parse(settings(corpus, codec, tmp_path / "out")))
    assert same_weights(tmp_path / "out", frozen)
    (corpus / "A2" / "A2R1.npz").write_bytes(b"damaged")
    with pytest.raises(RecordingError):
        finetune(parse(settings(corpus, codec, tmp_path / "out")))


def same_weights(a: Path, b: Path) -> bool:
    first, second = (load_model(folder).state_dict() for folder in (a, b))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_validation_tempers_but_teaches_nothing(
    corpus_dir: Path, codec: Path, recipe: Callable[..., Recipe], tmp_path: Path, frozen: Path
) -> None:
    """Validated on somebody else, the head is the same; the temperature follows the labels validated on."""
    finetune(parse(settings(corpus_dir, codec, tmp_path / "out", task={"validate": ["A3"]})))
    assert same_weights(tmp_path / "out", frozen)
    source, net = source_of(recipe()), load_model(frozen)
    temperatures = []
    for rows in (source.split.train[:0], source.split.train[::3], source.split.test[::3]):
        source.windows.labels[rows] = 1 - source.windows.labels[rows]
        temperatures.append(score(net, source.data, source.held_out)[1])
    assert temperatures[0] == temperatures[1] == load_run(frozen).temperature
    assert temperatures[2] > 2 * temperatures[1]


def test_no_look_at_the_validation_subjects_is_better_than_what_is_kept(
    recipe: Callable[..., Recipe],
) -> None:
    """The frozen probe is one of the looks, and the folder's weights score what the best of them did."""
    settings = recipe(mode="full", optim=BUDGET | {"lr": 0.3, "head_lr": 0.3})
    run = finetune(settings)
    costs = {look["step"]: look["cross_entropy"] for look in run.history}
    assert [*costs] == [0, 2, 4]
    assert costs[4] > costs[0]  # these rates ruin it
    assert costs[run.kept] == min(costs.values())
    source = source_of(settings)
    again, temperature = score(load_model(settings.output), source.data, source.held_out)
    assert again == run.scores
    assert temperature == run.temperature


def test_patience_ends_a_training(recipe: Callable[..., Recipe]) -> None:
    """After so many looks without a better one no further step is made."""
    budget = BUDGET | {"lr": 0.3, "head_lr": 0.3, "steps": 20, "patience": 1}
    run = finetune(recipe(mode="full", optim=budget))
    assert [look["step"] for look in run.history] == [0, *range(2, run.kept + 3, 2)]


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Stopped at any step and resumed, weights and history are those of a training in one go."""
    rates = BUDGET | {"head_lr": 1e-3}
    whole = finetune(recipe(mode="full", optim=rates, output=tmp_path / "whole"))

    def stop(what: str, done: int, total: int) -> None:
        if (what, done) == ("fine-tuning", 3):
            raise KeyboardInterrupt

    halves = recipe(mode="full", optim=rates, output=tmp_path / "halves")
    with pytest.raises(KeyboardInterrupt):
        finetune(halves, progress=stop)
    resumed = finetune(halves, resume=True)
    assert resumed.history == whole.history
    assert same_weights(tmp_path / "whole", tmp_path / "halves")
    other = recipe(mode="full", optim=rates | {"batch_size": 5}, output=tmp_path / "halves")
    with pytest.raises(ConfigError, match=r"optim\.batch_size changed"):
        finetune(other, resume=True)


def test_what_learns_is_what_the_mode_names() -> None:
    """Full: everything; partial: the last blocks and the norm behind them, of as many as there are."""
    part = brainrvq.SMALL.build()
    names = {id(weight): name for name, weight in part.named_parameters()}
    assert len(choose(part, "full", 1)) == len(names)
    chosen = {names[id(weight)] for weight in choose(part, "partial", 1)}
    assert {name.split(".")[2] + name.split(".")[3] for name in chosen if "blocks" in name} == {"blocks3"}
    assert any("tower.norm" in name for name in chosen)
    assert all(name.startswith("net.tower") for name in chosen)
    with pytest.raises(ConfigError, match="5 of 4 blocks"):
        choose(part, "partial", 5)
    with pytest.raises(ConfigError, match="take full"):
        choose(torch.nn.Linear(2, 2), "partial", 1)


def test_alignment_starts_from_the_training_subjects(
    corpus_dir: Path, codec: Path, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The prior is the same whoever validates, and the signal keeps its level."""
    adapt = [{"kind": "align", "update_s": 0.5}]
    one = source_of(recipe(adapt=adapt))
    other = source_of(recipe(adapt=adapt, task={"validate": ["A3"]}))
    assert one.signal.dsp == other.signal.dsp
    assert one.signal.dsp != source_of(recipe(adapt=adapt, task={"train": ["A3"]})).signal.dsp
    kinds = [step.kind for step in one.signal.dsp]
    assert kinds == ["bandpass", "align", "scale"]
    session = one.windows.sessions[0]
    plain = Signal(one.signal.ch_names, 200.0, one.signal.dsp[:1])
    before, after = (
        np.concatenate([c.data for c in s.stretches(session.recording)]) for s in (plain, one.signal)
    )
    assert np.sqrt(np.square(after).mean()) == pytest.approx(np.sqrt(np.square(before).mean()), rel=0.1)


def test_the_prior_is_that_of_a_training(corpus_dir: Path, make_recipe: Any, tmp_path: Path) -> None:
    """From the same recordings, fine-tuning and a training make one prior."""
    train = make_recipe(tmp_path)
    (bandpass, align) = train.dsp
    task = parse(settings(corpus_dir, tmp_path, tmp_path / "out")).task.as_probe(160.0)
    windows = find_windows(task.model_copy(update={"train": ("A1",), "test": ("A1",)}))
    wanted = adapted_prior(windows.sessions, Signal(train.ch_names, 160.0, train.dsp))
    found = adapted(windows.sessions, Signal(train.ch_names, 160.0, (bandpass,)), [align])
    np.testing.assert_allclose(found[1].prior, wanted[1].prior, rtol=1e-4)


def test_fewer_labels_are_a_draw_of_the_windows(recipe: Callable[..., Recipe]) -> None:
    """A fraction uses so many windows of each class; everybody is still validated on."""
    whole, tenth = source_of(recipe()), source_of(recipe(fraction=0.25))
    assert set(tenth.rows) < set(whole.rows)
    assert len(tenth.rows) == round(len(whole.rows) / 4)
    assert len(tenth.held_out) == len(whole.held_out)


def test_class_weights_can_be_left_out(recipe: Callable[..., Recipe], frozen: Path, tmp_path: Path) -> None:
    """Where one class has more windows, weighing windows alike is another head."""
    task = {"classes": ["rest", "left_fist"]}
    balanced = finetune(recipe(task=task, output=tmp_path / "a"))
    assert balanced.windows["rest"] == 2 * balanced.windows["left_fist"]
    finetune(recipe(task=task, class_weights="none", output=tmp_path / "b"))
    assert not same_weights(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"part": "head"}, "no part 'head'; it has tokenizer, decoder, backbone"),
        ({"part": "decoder"}, "takes codes, not signal"),
        ({"task": {"stype": "EMG"}}, "pretrained on EEG, the task is of EMG"),
        ({"task": {"validate": ["A1", "A2"]}}, "Subjects A1 both train and validate"),
        ({"task": {"classes": ["left_fist", "tongue"]}}, "no window of tongue"),
        ({"task": {"ch_names": ["C3", "Oz"]}, "min_present": 1}, "Oz"),
        ({"task": {"train": ["A9"]}}, "no subject 'A9'"),
        ({"task": {"window_s": 0.05}}, "0.05 s hold no frame of 0.06 s"),
        ({"mode": "partial", "layers": 99}, "layers: 99 of"),
    ],
)
def test_what_does_not_fit_is_said(
    corpus_dir: Path, codec: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """Part, signal, subjects, labels, channels: each refusal names what came and what there is."""
    with pytest.raises(Exception, match=said) as caught:
        finetune(parse(settings(corpus_dir, codec, tmp_path / "out", **changes)))
    assert type(caught.value).__module__ == "streamer.errors"
    assert not (tmp_path / "out").exists()


def test_every_fault_of_a_recipe_is_named(corpus_dir: Path, codec: Path, tmp_path: Path) -> None:
    """Faults of all blocks come at once; a key that was meant is suggested."""
    raw = settings(corpus_dir, codec, tmp_path, mode="half", pool_s=-1, optim={"step": 3})
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    for part in ("mode", "pool_s", "optim.step", "Did you mean 'steps'"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match=r"backbone\.run, which would be lost"):
        parse(settings(corpus_dir, codec, codec))
    raw = settings(corpus_dir, codec, tmp_path, idle="nothing", min_present=12)
    with pytest.raises(ConfigError, match=r"idle 'nothing' is none of .*; min_present 12 exceeds"):
        parse(raw)


def test_settings_can_be_changed_on_the_command_line(corpus_dir: Path, codec: Path, tmp_path: Path) -> None:
    """`--set` reaches into blocks, and takes its value as YAML."""
    raw = json.loads(parse(settings(corpus_dir, codec, tmp_path)).model_dump_json(by_alias=True))
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(raw))  # JSON is YAML
    changed = load(path, ["optim.lr=0.5", "task.validate=[A3]", "decision={kind: evidence, bound: 3}"])
    assert (changed.optim.lr, changed.task.validate_) == (0.5, ("A3",))
    assert changed.decision == EvidenceConfig(bound=3.0)
    with pytest.raises(ConfigError, match=r"expected BLOCK\.SETTING=VALUE"):
        load(path, ["optim.lr"])


def test_other_people_are_scored_as_the_probe_would(recipe: Callable[..., Recipe], frozen: Path) -> None:
    """A finished run's figures on people it does not know are those of the probe's logistic regression."""
    source = source_of(recipe(task={"validate": ["A3"]}))
    part = runs.load_system(recipe().backbone.run).parts()["tokenizer"]
    x = pooled_latents(part, source.signal, source.windows)
    train, test, labels = source.split.train, source.split.test, source.windows.labels
    wanted = probe_heads.logistic(x[train], labels[train], source.windows.subjects[train], x[test])
    document = score_others(frozen, ["A3"])
    figures = probe_heads.scores(wanted, labels[test])
    assert {name: document["scores"][name] for name in figures} == figures
    assert document["per_subject"] == {"A3": figures}
    assert json.loads((frozen / "test.json").read_text()) == document


def test_whoever_had_a_part_is_not_tested(
    corpus_dir: Path, codec: Path, frozen: Path, tmp_path: Path
) -> None:
    """Neither by name, nor a recording of theirs under another name."""
    with pytest.raises(ConfigError, match="A1, A2 trained or validated"):
        score_others(frozen, ["A1-A3"])
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_dir, corpus)
    run = finetune(parse(settings(corpus, codec, tmp_path / "out")))
    shutil.copytree(corpus / "A2", corpus / "A4")
    with pytest.raises(ConfigError, match=r"A4 \(validate\) had a part"):
        score_others(run.recipe.output, ["A4"])


def test_nothing_to_resume_is_said(recipe: Callable[..., Recipe]) -> None:
    """Neither without a checkpoint, nor for a frozen net, which takes no steps."""
    with pytest.raises(ConfigError, match="Nothing to resume"):
        finetune(recipe(mode="full"), resume=True)
    with pytest.raises(ConfigError, match="no steps to resume"):
        finetune(recipe(), resume=True)


def test_damaged_weights_are_refused(frozen: Path, tmp_path: Path) -> None:
    """A folder whose weights are of another model, or none, says so."""
    shutil.copytree(frozen, tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"cannot be used.*Train again"):
        load_model(tmp_path / "run")
