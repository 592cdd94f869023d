"""Fine-tuning in probes: what a net sees, what it learns from, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from test_probe import CHANNELS, recipe_of, run_folder  # noqa: E402

from offline.models import biocodec, brainrvq  # noqa: E402
from offline.probe import finetune as probe_finetune  # noqa: E402
from offline.probe import heads as probe_heads  # noqa: E402
from offline.probe.features import Signal, of_task, pool, pooled_latents  # noqa: E402
from offline.probe.finetune import Crops, Reader, train_and_apply  # noqa: E402
from offline.probe.nets import Cache, contestants  # noqa: E402
from offline.probe.probe import probe  # noqa: E402
from offline.probe.recipe import FineTune, Recipe  # noqa: E402
from offline.probe.tasks import Windows, draw_labels, find_windows, splits  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402

PARTS = ("brainrvq", "biocodec")
BUDGET = FineTune(steps=25, batch_size=8, lr=3e-3, head_lr=3e-3, context_s=0.5)


@pytest.fixture(scope="module")
def recipe(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe_of(corpus_dir, tmp_path_factory.mktemp("probe"), [{"kind": "raw", "hop": 8}])


@pytest.fixture(scope="module")
def windows(recipe: Recipe) -> Windows:
    return find_windows(recipe.task)


def part_of(kind: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    if kind == "biocodec":
        return biocodec.SMALL.build().parts()["tokenizer"]
    return brainrvq.SMALL.build().with_channels(tuple(CHANNELS), "EEG").eval()


def changed(windows: Windows, session: int, samples: slice) -> Windows:
    """Return the windows over recordings of which one differs in some samples."""
    one = windows.sessions[session]
    data = one.recording.data.copy()
    data[samples] += 50.0
    other = replace(one, recording=replace(one.recording, data=data))
    return replace(windows, sessions=tuple(other if s is one else s for s in windows.sessions))


def test_a_crop_is_the_window_and_the_context_asked_for(recipe: Recipe, windows: Windows) -> None:
    """It changes with the first and last sample inside, and with none before or after."""
    signal = Signal(tuple(CHANNELS), 160.0, ())
    k = int(np.flatnonzero(windows.session == 1)[2])
    stop = round(windows.stop_s[k] * 160) + 1  # times start at 0: the sample at stop_s is the last one
    start = stop - round((0.7 + 1.0) * 160)
    before = Crops(signal, windows, 0.7).get(np.array([k]), 7)
    assert before.shape == (1, len(CHANNELS), 273)  # 272, and what fills a hop
    for samples, inside in (
        (slice(0, start), False),
        (slice(start, start + 1), True),
        (slice(stop - 1, stop), True),
        (slice(stop, None), False),
    ):
        after = Crops(signal, changed(windows, 1, samples), 0.7).get(np.array([k]), 7)
        assert bool((after != before).any()) == inside, samples


def test_nothing_lies_before_a_recording(recipe: Recipe, windows: Windows) -> None:
    """A crop that reaches further back than its recording starts with zeros, as does what fills a hop."""
    row = np.array([0])
    crops = Crops(of_task(recipe.task), windows, 7.0)
    stop = round(windows.stop_s[0] * 160) + 1
    x = crops.get(row, 7)[0]
    assert x.shape[1] == -(-crops.n_times // 7) * 7
    assert not x[:, :-stop].any()
    assert x[:, -stop].any()


@pytest.mark.parametrize("kind", PARTS)
def test_the_future_changes_no_answer(kind: str, recipe: Recipe, windows: Windows) -> None:
    """Whatever comes after a window, behind the DSP, the answer for it is the same."""
    (split,) = splits(recipe.task, windows)
    signal, k = of_task(recipe.task), int(split.test[3])
    rows = split.train[draw_labels(windows.labels[split.train], 0.1, 0)]
    stop = round(windows.stop_s[k] * 160) + 1
    answers = []
    for these in (windows, changed(windows, int(windows.session[k]), slice(stop, None))):
        crops, budget = Crops(signal, these, 0.5), BUDGET.model_copy(update={"steps": 2})
        labels = windows.labels[rows]
        answers.append(train_and_apply(budget, part_of(kind), crops, rows, labels, np.array([k]), seed=0))
    assert np.array_equal(*answers)


@pytest.mark.parametrize("kind", PARTS)
def test_features_are_those_of_the_frozen_probe(kind: str, recipe: Recipe, windows: Windows) -> None:
    """Behind a context that is all of the recording so far, the latents are those of stepping over it."""
    signal, part = of_task(recipe.task), part_of(kind)
    k = 0
    n_times = (round(windows.stop_s[k] * 160) + 1) // part.hop * part.hop
    stop_s = (n_times - 1) / 160
    one = replace(
        windows,
        session=windows.session[:1],
        start_s=np.array([stop_s - 1.0]),
        stop_s=np.array([stop_s]),
        labels=windows.labels[:1],
        subjects=windows.subjects[:1],
        sessions=windows.sessions[:1],
    )
    crops = Crops(signal, one, n_times / 160 - 1.0)
    with torch.no_grad():
        found = Reader(part, crops.frames(part.hop)).pooled(crops.get(np.array([0]), part.hop))[0].numpy()
    np.testing.assert_allclose(found, pooled_latents(part, signal, one)[0], atol=1e-3)


def test_where_nothing_moves_the_gradient_is_finite() -> None:
    """Latents that stand still over a window pool as in the frozen probe, and pass finite gradients."""
    frames = torch.ones(1, 6, 15, requires_grad=True)
    pooled = probe_finetune.pool(frames)
    np.testing.assert_allclose(pooled[0].detach().numpy(), pool(np.ones((6, 15), np.float32)), rtol=1e-4)
    pooled.sum().backward()
    assert torch.isfinite(frames.grad).all()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n_windows", [40, 90])
def test_the_linear_layer_is_the_frozen_probe(n_classes: int, n_windows: int) -> None:
    """Fewer windows than features or more, two classes or three: the layer answers as the logistic fit."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(3, 2, (n_windows, 50)).astype(np.float32), np.arange(n_windows) % n_classes
    x[:, 0] += 2 * labels
    x[:, 1] = 7.0  # tells nothing
    subjects, test = np.repeat([f"s{i}" for i in range(5)], n_windows // 5), x[::-1] + np.float32(0.2)
    mean, scale = probe_heads.scaling(x)
    weight, bias = probe_heads.linear((x - mean) / scale, labels, subjects)
    logits = torch.from_numpy((test - mean) / scale @ weight.T + bias)
    expected = probe_heads.logistic(x, labels, subjects, test)
    np.testing.assert_allclose(logits.softmax(dim=-1).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", PARTS)
def test_it_starts_where_the_frozen_probe_ends(kind: str, recipe: Recipe, windows: Windows) -> None:
    """With rates of next to nothing the answers are those of logistic regression on the crops' latents."""
    (split,) = splits(recipe.task, windows)
    rows, part = split.train[draw_labels(windows.labels[split.train], 0.2, 0)], part_of(kind)
    crops = Crops(of_task(recipe.task), windows, 0.5)
    with torch.no_grad():
        pooled = Reader(part, crops.frames(part.hop)).pooled
        train, test = (pooled(crops.get(places, part.hop)).numpy() for places in (rows, split.test))
    labels = windows.labels[rows]
    still = BUDGET.model_copy(update={"lr": 1e-12, "head_lr": 1e-12, "steps": 1})
    found = train_and_apply(still, part, crops, rows, labels, split.test, seed=0)
    np.testing.assert_allclose(
        found, probe_heads.logistic(train, labels, windows.subjects[rows], test), atol=1e-4
    )


@pytest.mark.parametrize("kind", PARTS)
def test_it_learns_from_few_windows(kind: str, recipe: Recipe, windows: Windows) -> None:
    """From eight windows of a side that 12-Hz power tells, new people are told surer than from the start."""
    (split,) = splits(recipe.task, windows)
    rows = split.train[draw_labels(windows.labels[split.train], 0.1, 1)]
    crops, tested = Crops(of_task(recipe.task), windows, BUDGET.context_s), split.test
    still = BUDGET.model_copy(update={"lr": 1e-12, "head_lr": 1e-12})
    part = part_of(kind)
    before = {name: value.clone() for name, value in part.state_dict().items()}
    start, found = (
        train_and_apply(budget, net, crops, rows, windows.labels[rows], tested, seed=0)
        for budget, net in ((still, part_of(kind)), (BUDGET, part))
    )
    right = np.arange(len(tested)), windows.labels[tested]
    assert (found.argmax(axis=1) == right[1]).mean() > 0.85
    assert np.log(found[right]).mean() > np.log(start[right]).mean() + 0.1
    moved = {name for name, value in part.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.endswith("weight") for name in moved)
    assert not any("codebook" in name for name in moved)


def test_labels_of_tested_people_are_not_used(corpus_dir: Path, tmp_path: Path) -> None:
    """With every label of a tested person turned round, the answers are the same; a seed repeats them."""
    run = run_folder(tmp_path / "run", ["0" * 16])
    recipe = recipe_of(corpus_dir, tmp_path, [entry_of(run)])
    windows = find_windows(recipe.task)
    (split,) = splits(recipe.task, windows)
    turned = windows.labels.copy()
    turned[split.test] = 1 - turned[split.test]
    rows = split.train[draw_labels(windows.labels[split.train], 0.1, 0)]
    answers = []
    for these, seed in ((windows, 0), (replace(windows, labels=turned), 0), (windows, 1)):
        entries = contestants(recipe, these, Cache(tmp_path / "features", these, recipe.task))
        tuned = [entry for entry in entries if "fine-tuned" in entry.name]
        answers.append([entry.answer(rows, split.test, seed) for entry in tuned])
    assert np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0][0], answers[2][0])


def test_frozen_and_fine_tuned_nets_have_rows_of_their_own(
    corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Net and twin, frozen and fine-tuned, at the fractions asked for; a second call trains nothing again."""
    run = run_folder(tmp_path / "run", ["0" * 16])
    recipe = recipe_of(corpus_dir, tmp_path / "probe", [entry_of(run, fractions=[0.1])])
    document = probe(recipe)
    rows = {(row["model"], row["fraction"]): row for row in document["summary"]}
    assert set(rows) == {
        *((name, fraction) for name in ("codec", "codec, untrained") for fraction in (0.1, 1.0)),
        ("codec fine-tuned", 0.1),
        ("codec fine-tuned, untrained", 0.1),
    }
    assert rows["codec fine-tuned", 0.1]["over_untrained"]["seeds"] == 2
    table = (recipe.output / "probe.md").read_text()
    line = next(line for line in table.splitlines() if line.startswith("| codec fine-tuned over untrained |"))
    assert line.endswith("| – |")
    monkeypatch.setattr(probe_finetune, "train_and_apply", None)
    again = probe(recipe)
    assert again["results"] == document["results"]


def entry_of(run: Path, **changes: Any) -> dict[str, Any]:
    budget = {"steps": 2, "batch_size": 4, "context_s": 0.2, **changes}
    return {"kind": "pretrained", "name": "codec", "run": run, "part": "tokenizer", "finetune": budget}


def test_another_budget_is_another_result(corpus_dir: Path, tmp_path: Path) -> None:
    """Seed and budget are in the identity of a fine-tuned net and of its twin; the fractions are not."""
    run = run_folder(tmp_path / "run", ["0" * 16])

    def identities(seed: int, **changes: Any) -> list[str]:
        recipe = recipe_of(corpus_dir, tmp_path, [entry_of(run, **changes)])
        windows = find_windows(recipe.task)
        entries = contestants(recipe, windows, Cache(tmp_path, windows, recipe.task))
        return [entry.identity(seed) for entry in entries if "fine-tuned" in entry.name]

    base = identities(0)
    assert len(set(base)) == 2
    assert identities(0, fractions=[0.1]) == base
    for other in (identities(1), identities(0, steps=3), identities(0, lr=0.1)):
        assert not set(base) & set(other)


def test_fractions_that_the_probe_does_not_have_are_refused(corpus_dir: Path, tmp_path: Path) -> None:
    """Fine-tuning at a share of the labels that is not probed is a fault of the recipe."""
    with pytest.raises(ValueError, match=r"codec fine-tunes at 0.2"):
        recipe_of(corpus_dir, tmp_path, [entry_of(tmp_path, fractions=[0.1, 0.2])])


def test_steps_that_leave_the_numbers_are_an_error(recipe: Recipe, windows: Windows) -> None:
    """A rate so high that the loss is no number says so instead of scoring chance."""
    budget = BUDGET.model_copy(update={"lr": 1e30, "steps": 12})
    rows = np.arange(6)
    crops = Crops(of_task(recipe.task), windows, 0.2)
    with pytest.raises(ConfigError, match="lower lr"):
        train_and_apply(
            budget, part_of("biocodec"), crops, rows, windows.labels[rows] * 0 + rows % 2, rows, seed=0
        )
