"""Probes over recordings with holes: what is stepped anew, what is pooled, and the pictures of a series."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import write_epochs
from made_runs import write_run

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from offline.models import biocodec, brainrvq, neuro2vec  # noqa: E402
from offline.probe.cache import Cache  # noqa: E402
from offline.probe.features import (  # noqa: E402
    RawFrames,
    cut,
    of_task,
    pooled_latents,
    step_apart,
    step_through,
)
from offline.probe.finetune import Crops, pooled_crops, train_and_apply  # noqa: E402
from offline.probe.heads import scores  # noqa: E402
from offline.probe.nets import contestants  # noqa: E402
from offline.probe.probe import probe  # noqa: E402
from offline.probe.recipe import BandPower, FineTune, Recipe  # noqa: E402
from offline.probe.tasks import Windows, find_windows, spans_of  # noqa: E402
from streamer.errors import ConfigError, RecordingError  # noqa: E402
from streamer.sources.recording import load  # noqa: E402
from streamer.types import Marker  # noqa: E402

STAGES = ["W", "N2", "REM"]
HOP, N = 20, 100  # samples per frame and per epoch of 1 s
PARTS = ("causal", "window", "brainrvq", "biocodec", "raw")
SYSTEM = {
    "kind": "neuro2vec",
    "model": {
        "ch_names": ["Fpz-Cz"],
        "hop": HOP,
        "form": "window",
        "context": 5,
        "dim": 16,
        "layers": 1,
        "heads": 2,
    },
    "mask": {"kind": "random", "ratio": 0.3},
}


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights with an epoch of 1 s every 3 s, two of them without a gap; stages differ in loudness."""
    folder = tmp_path_factory.mktemp("nights")
    for person in range(3):
        rng = np.random.default_rng(person)
        labels = rng.permutation(np.repeat([0, 1, 2], 8))
        data = rng.normal(0, 40 * 3.0 ** labels[:, None], (24, N)).astype(np.int16)
        onsets = 3.0 * np.arange(24)
        onsets[5] = onsets[4] + 1
        write_epochs(folder / f"SC4{person:02d}1E0.npz", data, onsets.tolist(), labels.tolist(), STAGES)
    return folder


def recipe_of(nights: Path, output: Path, models: list[dict[str, Any]], **others: Any) -> Recipe:
    task = {
        "folder": {"path": nights, "subject": r"SC4(\d\d)"},
        "classes": STAGES,
        "ch_names": ["Fpz-Cz"],
        "train": ["00-01"],
        "test": ["02"],
        "window_s": 1.0,
        "sfreq": 100,
        "dsp": [{"kind": "bandpass", "low": 1.0, "high": 35.0, "order": 2}],
    }
    base = {"task": task, "models": models, "fractions": [1.0], "seeds": 2, "output": output}
    return Recipe.model_validate(base | others)


@pytest.fixture(scope="module")
def recipe(nights: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return recipe_of(nights, tmp_path_factory.mktemp("probe"), [{"kind": "raw", "hop": HOP}])


@pytest.fixture(scope="module")
def windows(recipe: Recipe) -> Windows:
    return find_windows(recipe.task)


def part_of(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "raw":
        return RawFrames(HOP)
    if kind == "biocodec":
        return biocodec.SMALL.build().parts()["tokenizer"]
    if kind == "brainrvq":
        return brainrvq.SMALL.build().with_channels(("Fpz-Cz",), "EEG").eval()
    model = dict(SYSTEM["model"])
    return neuro2vec.Config.model_validate(model | {"form": kind}).build().eval()


def run_of(folder: Path) -> Path:
    """Write the run folder of a tiny encoder."""
    dsp = [{"kind": "bandpass", "low": 1.0, "high": 35.0, "order": 2}]
    return write_run(folder, SYSTEM, sfreq=100.0, ch_names=["Fpz-Cz"], dsp=dsp)


def only(windows: Windows, k: int) -> Windows:
    """Return one window over a recording of its stretch alone, which begins at 0."""
    session = windows.sessions[windows.session[k]]
    times = session.recording.times
    first, stop = np.searchsorted(times, (windows.start_s[k] - 1e-6, windows.stop_s[k] - 1e-6))
    alone = replace(
        session.recording,
        data=session.recording.data[first:stop],
        times=times[: stop - first],
        breaks=(),
        markers=(),
    )
    rows = {name: getattr(windows, name)[k : k + 1] for name in ("start_s", "stop_s", "labels", "subjects")}
    begun = windows.start_s[k]
    return replace(
        windows,
        sessions=(replace(session, recording=alone),),
        session=np.array([0]),
        **(rows | {"start_s": rows["start_s"] - begun, "stop_s": rows["stop_s"] - begun}),
    )


def test_every_epoch_is_a_window(windows: Windows) -> None:
    """Windows as long as the epochs are these, with their stage and their person."""
    assert len(windows) == 3 * 24
    for k in range(0, 72, 7):
        session = windows.sessions[windows.session[k]]
        marker = session.recording.markers[k % 24]
        assert (windows.start_s[k], windows.stop_s[k]) == (marker.time, marker.time + 1.0)
        assert (STAGES[windows.labels[k]], session.subject) == (marker.label, windows.subjects[k])


def test_no_window_lies_across_a_hole(tmp_path: Path) -> None:
    """Of a stage that lasts longer than its signal, only windows whose every sample is there are taken."""
    data = np.random.default_rng(0).integers(-50, 50, (5, N))
    write_epochs(tmp_path / "SC4001E0.npz", data, [0, 1, 2, 10, 11.02], [0, 1, 1, 2, 2], STAGES)
    recording = load(tmp_path / "SC4001E0.npz")
    assert recording.breaks == (300, 400)
    markers = (Marker(0.5, "W", 20.0),)
    task = recipe_of(tmp_path, tmp_path, [{"kind": "raw", "hop": HOP}]).task
    spans = spans_of(replace(recording, markers=markers), task.classes, task.from_s, task.window_s)
    assert [span[0] for span in spans] == [0.5, 1.5]


@pytest.mark.parametrize("kind", PARTS)
def test_stretches_side_by_side_are_those_alone(kind: str) -> None:
    """Stepped as rows of a batch, stretches of a few lengths have the latents that each has by itself."""
    part, rng = part_of(kind), np.random.default_rng(0)
    stretches = [
        rng.normal(0, 20, (length, 1)).astype(np.float32) for length in (100, 160, 100, 47, 160, 100)
    ]
    for stretch, found in zip(stretches, step_apart(part, stretches), strict=True):
        np.testing.assert_allclose(found, step_through(part, stretch), atol=1e-4)


def test_what_live_repairs_is_no_hole(recipe: Recipe, tmp_path: Path) -> None:
    """A hole of a few samples is filled, a longer one parts the signal, which is stepped as two."""
    data = np.random.default_rng(0).integers(-50, 50, (4, N))
    write_epochs(tmp_path / "a.npz", data, [0, 1.02, 30, 31], [0] * 4, STAGES)
    signal = of_task(recipe.task)
    first, second = signal.stretches(load(tmp_path / "a.npz"))
    assert (len(first), len(second)) == (202, 200)
    np.testing.assert_allclose(np.diff(first.times), 0.01)
    with pytest.raises(RecordingError, match="2 holes"):
        signal.play(load(tmp_path / "a.npz"))


@pytest.mark.parametrize("kind", PARTS)
def test_an_epoch_behind_a_hole_knows_of_no_other(kind: str, recipe: Recipe, windows: Windows) -> None:
    """Its features, filters included, are those of a recording that holds this epoch alone."""
    part, signal = part_of(kind), of_task(recipe.task)
    found = pooled_latents(part, signal, windows)
    for k in (0, 3, 30, 71):
        np.testing.assert_allclose(found[k], pooled_latents(part, signal, only(windows, k))[0], atol=1e-3)
    apart = pooled_latents(part, signal, only(windows, 5))[0]  # what epoch 4 left behind is still there
    assert np.abs(found[5] - apart).max() > 1e-3


def test_a_crop_ends_at_a_hole(recipe: Recipe, windows: Windows) -> None:
    """Before an epoch's first sample a crop is zero, unless the epoch follows another."""
    signal = of_task(recipe.task)
    x = Crops(signal, windows, 0.5).get(np.arange(24), HOP)[:, 0]
    assert x.shape == (24, 160)  # 1.5 s and what fills a frame
    lonely = ~np.isin(np.arange(24), (4, 5))
    assert not x[lonely, :-N].any()
    assert x[5, 10:-N].all()
    assert x[:, -N].all()
    for k in (0, 5):
        whole = signal.stretches(windows.sessions[0].recording)[min(k, 4)].data
        np.testing.assert_array_equal(x[k, -N:], whole[-N:, 0])


def test_cut_windows_are_of_their_epoch(recipe: Recipe, windows: Windows) -> None:
    """What nets that take windows see is the end of the epoch, of one length for all."""
    x = cut(of_task(recipe.task), windows)
    assert x.shape == (72, 1, N - 1)  # after the start, up to and with the end
    crops = Crops(of_task(recipe.task), windows, 0.0).get(np.arange(72), N)
    np.testing.assert_array_equal(x, crops[:, :, 1:].numpy())


def test_one_look_is_the_mean_over_all_tokens(recipe: Recipe, windows: Windows) -> None:
    """Pooled by window, the features are mean and log spread of the tokens that all see each other."""
    part, crops = part_of("window"), Crops(of_task(recipe.task), windows, 0.0)
    found = pooled_crops(part, crops)
    with torch.no_grad():
        x = crops.get(np.array([7]), HOP)
        tokens = part.net.sequence(x, part.get_buffer("positions")[None])[0, :, 0].numpy()  # (F, D)
    expected = np.concatenate([tokens.mean(axis=0), np.log(tokens.std(axis=0))])
    np.testing.assert_allclose(found[7], expected, atol=1e-3)
    stepped = pooled_latents(part, of_task(recipe.task), windows)
    assert np.abs(stepped[7] - found[7]).max() > 1e-2, "a stream's first token does not see the last"
    with pytest.raises(ConfigError, match="form: window"):
        pooled_crops(part_of("causal"), crops)


def test_a_net_that_looks_once_can_be_fine_tuned(recipe: Recipe, windows: Windows) -> None:
    """End to end on epochs whose loudness is their stage, another person's are told nearly all."""
    train, tested = np.arange(48), np.arange(48, 72)
    budget = FineTune(steps=20, batch_size=8, context_s=0.0)
    crops = Crops(of_task(recipe.task), windows, 0.0)
    labels = windows.labels[train]
    answers = train_and_apply(budget, part_of("window"), crops, train, labels, tested, seed=0, by="window")
    assert (answers.argmax(axis=1) == windows.labels[tested]).mean() > 0.9


def test_figures_of_many_classes_are_those_of_sklearn() -> None:
    """Accuracy, macro-F1 and kappa agree with scikit-learn, also where a class does not occur."""
    from sklearn import metrics

    rng = np.random.default_rng(0)
    for labels in (rng.integers(0, 5, 200), rng.integers(1, 4, 200)):
        probabilities = rng.random((200, 5)) + 0.6 * np.eye(5)[labels]
        probabilities[:, 4] = 0.0  # never answered
        found, answered = scores(probabilities, labels), probabilities.argmax(axis=1)
        assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, answered), abs=1e-4)
        assert found["macro_f1"] == pytest.approx(
            metrics.f1_score(labels, answered, average="macro"), abs=1e-4
        )
        assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(labels, answered), abs=1e-4)
    alone = scores(np.eye(3)[[1, 1]], np.array([1, 1]))
    assert (alone["accuracy"], alone["macro_f1"], alone["kappa"]) == (1.0, 1.0, None)


def test_how_latents_are_pooled_is_another_result(nights: Path, tmp_path: Path) -> None:
    """The reading is in the identity of a net and of its twin, frozen and fine-tuned."""
    run, found = run_of(tmp_path / "run"), []
    for pool in ("frames", "window"):
        entry = {
            "kind": "pretrained",
            "name": "net",
            "run": run,
            "pool": pool,
            "finetune": {"context_s": 0.0},
        }
        recipe = recipe_of(nights, tmp_path, [entry])
        windows = find_windows(recipe.task)
        entries = contestants(recipe, windows, Cache(tmp_path, windows, recipe.task))
        found.append({entry.identity(0) for entry in entries})
    assert len(found[0]) == len(found[1]) == 4
    assert not found[0] & found[1]


def test_a_series_has_its_picture_and_many_classes_their_table(nights: Path, tmp_path: Path) -> None:
    """Nets with a place are drawn over it, beside the untrained; the other picture holds all the rest."""
    run = run_of(tmp_path / "run")
    nets = [
        {"kind": "pretrained", "name": f"{line} {at}", "run": run, "pool": "window", "series": line, "at": at}
        for line in ("Fourier", "waveform")
        for at in (0.1, 0.3)
    ]
    nets = [net | {"untrained": int(net["name"] == "Fourier 0.1")} for net in nets]
    output = tmp_path / "probe"
    recipe = recipe_of(nights, output, nets, fractions=[0.5, 1.0], at_label="share hidden")
    document = probe(recipe)
    places = {(row["series"], row["at"]) for row in document["summary"]}
    assert places == {(line, at) for line in ("Fourier", "waveform") for at in (0.1, 0.3)}
    assert [row["model"] for row in document["summary"] if row.get("twin_of")] == [
        "Fourier 0.1, untrained"
    ] * 2
    assert (output / "probe_series.png").stat().st_size > 5000
    assert not (output / "probe.png").exists()
    lines = (output / "probe.md").read_text().splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("| accuracy / macro-F1 / kappa"))
    row = next(row for row in document["summary"] if row["model"] == "Fourier 0.1" and row["fraction"] == 1.0)
    shown = f"{row['accuracy']:.3f} / {row['macro_f1']:.3f} / {row['kappa']:.3f}"
    assert next(line for line in lines[at:] if line.startswith("| Fourier 0.1 |")).endswith(f"{shown} |")
    band = BandPower(kind="band_power", bands=((1, 10), (10, 35)))
    probe(recipe.model_copy(update={"models": (*recipe.models, band)}))
    assert (output / "probe.png").stat().st_size > 5000


def test_results_older_than_the_figures_are_shown_without(nights: Path, tmp_path: Path) -> None:
    """Results that were kept before accuracy, macro-F1 and kappa were taken stay, and leave no table."""
    recipe = recipe_of(nights, tmp_path, [{"kind": "raw", "hop": HOP}])
    probe(recipe)
    path = tmp_path / "results.jsonl"
    olds = [json.loads(line) for line in path.read_text().splitlines()]
    for old in olds:
        for key in ("accuracy", "macro_f1", "kappa"):
            del old[key]
    path.write_text("".join(json.dumps(old) + "\n" for old in olds))
    document = probe(recipe)
    assert {row["kappa"] for row in document["summary"]} == {None}
    assert "macro-F1" not in (tmp_path / "probe.md").read_text()


def test_a_place_without_a_series_is_a_fault(nights: Path, tmp_path: Path) -> None:
    """`at` alone says nothing, and is refused."""
    with pytest.raises(ValueError, match="series and at go together"):
        recipe_of(nights, tmp_path, [{"kind": "pretrained", "name": "net", "run": tmp_path, "at": 0.3}])
