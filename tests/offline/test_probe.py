"""Probes: what is learned from, what is tested, and what the figures say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from braindecode_at_hand import braindecode_at_hand
from made_runs import write_run

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from offline.models import biocodec  # noqa: E402
from offline.probe import nets as probe_nets  # noqa: E402
from offline.probe.features import RawFrames, of_task, pooled_latents, step_through  # noqa: E402
from offline.probe.heads import logistic, scores  # noqa: E402
from offline.probe.probe import probe  # noqa: E402
from offline.probe.recipe import Recipe, load  # noqa: E402
from offline.probe.report import markdown  # noqa: E402
from offline.probe.tasks import draw_labels, find_windows, splits  # noqa: E402
from streamer.errors import ConfigError, MissingDependency, RecordingError  # noqa: E402

CHANNELS = ["FC3", "FCz", "FC4", "C3", "Cz", "C4", "CP3", "CPz", "CP4"]


def recipe_of(corpus: Path, output: Path, models: list[dict[str, Any]], **task: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "task": {
                "folder": {"path": corpus},
                "classes": ["left_fist", "right_fist"],
                "ch_names": CHANNELS,
                "train": ["A1", "A2"],
                "test": ["A3"],
                "from_s": 0.5,
                "window_s": 1.0,
                "sfreq": 160,
                "dsp": [{"kind": "bandpass", "low": 4.0, "high": 30.0, "order": 2}],
                **task,
            },
            "models": models,
            "fractions": [0.1, 1.0],
            "seeds": 2,
            "output": output,
        }
    )


BANDS = {"kind": "band_power", "bands": [[8, 16], [16, 30]]}


@pytest.fixture(scope="module")
def recipe(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    models = [BANDS, {"kind": "time_domain"}, {"kind": "raw", "hop": 8}]
    return recipe_of(corpus_dir, tmp_path_factory.mktemp("probe"), models)


@pytest.fixture(scope="module")
def document(recipe: Recipe) -> dict[str, Any]:
    return probe(recipe)


def run_folder(folder: Path, fingerprints: list[str]) -> Path:
    """Write the run folder of a tiny codec, as a pretraining leaves it."""
    return write_run(
        folder,
        {"kind": "biocodec", "model": biocodec.SMALL.model_dump(), "n_ffts": [16]},
        sfreq=200.0,
        ch_names=CHANNELS,
        dsp=[{"kind": "bandpass", "low": 4.0, "high": 30.0, "order": 2}],
        fingerprints=fingerprints,
    )


def test_windows_lie_inside_their_markers(recipe: Recipe) -> None:
    """Windows follow each other from `from_s` on while they fit, and carry the marker's class and subject."""
    windows = find_windows(recipe.task)
    assert len(windows) == 3 * 2 * 6 * 3  # subjects, runs, trials of 4 s, windows from 0.5, 1.5 and 2.5 s
    for k in range(0, len(windows), 5):
        session = windows.sessions[windows.session[k]]
        (marker,) = (
            m
            for m in session.recording.markers
            if m.time + 0.5 <= windows.start_s[k] + 1e-9 and windows.stop_s[k] <= m.time + m.duration + 1e-9
        )
        assert recipe.task.classes[windows.labels[k]] == marker.label
        assert windows.subjects[k] == session.subject


def test_tested_subjects_give_no_labels(recipe: Recipe) -> None:
    """No subject is on both sides of a split, and folds test each subject once."""
    windows = find_windows(recipe.task)
    (one,) = splits(recipe.task, windows)
    assert set(windows.subjects[one.train]) == {"A1", "A2"}
    assert set(windows.subjects[one.test]) == {"A3"}
    folded = recipe.task.model_copy(update={"train": ("A1-A3",), "test": (), "folds": 3})
    parts = splits(folded, windows)
    assert not any(set(windows.subjects[p.train]) & set(windows.subjects[p.test]) for p in parts)
    assert sorted(np.concatenate([p.test for p in parts])) == list(range(len(windows)))
    both = recipe.task.model_copy(update={"test": ("A2",)})
    with pytest.raises(ConfigError, match="A2 both train and test"):
        splits(both, windows)


def test_corrected_recordings_are_other_windows(recipe: Recipe) -> None:
    """What is kept of windows is made again where samples or markers were corrected, and only then."""
    windows = find_windows(recipe.task)
    assert find_windows(recipe.task).digest() == windows.digest()
    first = windows.sessions[0].recording
    marked = replace(first, markers=[replace(first.markers[0], label="right_fist"), *first.markers[1:]])
    samples = first.data.copy()
    samples[7, 0] += 1
    for corrected in (marked, replace(first, data=samples)):
        sessions = (replace(windows.sessions[0], recording=corrected), *windows.sessions[1:])
        assert replace(windows, sessions=sessions).digest() != windows.digest()


def test_labels_are_drawn_per_class_by_seed_and_nested() -> None:
    """A draw holds each class's share, at least one; it repeats, and lies within its seed's larger ones."""
    labels = np.repeat([0, 1, 2], [200, 90, 7])
    for fraction, counts in ((0.01, [2, 1, 1]), (0.1, [20, 9, 1]), (1.0, [200, 90, 7])):
        assert np.bincount(labels[draw_labels(labels, fraction, 3)]).tolist() == counts
    few, more = (draw_labels(labels, fraction, 3) for fraction in (0.01, 0.1))
    assert set(few) <= set(more)
    assert np.array_equal(few, draw_labels(labels, 0.01, 3))
    assert not np.array_equal(more, draw_labels(labels, 0.1, 4))


@pytest.mark.parametrize("hops", [1, 3, 1000])
def test_latents_are_those_of_the_step(hops: int) -> None:
    """Stepped over a recording in calls of any number of hops, the latents are those of one call."""
    torch.manual_seed(0)
    part = biocodec.SMALL.build().parts()["backbone"]
    data = np.random.default_rng(0).normal(0, 20, (40 * part.hop + 5, 3)).astype(np.float32)
    with torch.inference_mode():
        x = torch.from_numpy(data[: 40 * part.hop].T.copy())[:, None]
        latent = part(x, part.init_state(3))[0]["latent"]  # (C, F, D)
    found = step_through(part, data, hops)
    assert found.shape == (40, 3 * latent.shape[-1])
    np.testing.assert_allclose(found, latent.movedim(1, 0).flatten(1).numpy(), atol=1e-5)


def test_a_window_sees_its_own_frames_only(recipe: Recipe) -> None:
    """Features are the mean and log spread of the frames that end inside the window."""
    windows = find_windows(recipe.task)
    signal = of_task(recipe.task)
    found = pooled_latents(RawFrames(8), signal, windows)
    k = int(np.flatnonzero(windows.session == 1)[3])
    x = signal.play(windows.sessions[1].recording).data
    ends = np.arange(7, len(x), 8)
    inside = (ends / 160 > windows.start_s[k]) & (ends / 160 <= windows.stop_s[k])
    frames = x[: len(ends) * 8].reshape(len(ends), 8, 9)[inside].transpose(0, 2, 1).reshape(-1, 72)
    expected = np.concatenate([frames.mean(axis=0), np.log(frames.std(axis=0))])
    np.testing.assert_allclose(found[k], expected, rtol=1e-4, atol=1e-4)


def test_a_wide_fit_loses_nothing_by_turning() -> None:
    """Features wider than the labelled windows are many give the same answers as padded with zeros do."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(80, 60)).astype(np.float32), np.arange(80) % 2
    x[labels == 1, :4] += 1.0
    subjects, test = np.repeat([f"s{i}" for i in range(8)], 10), x[:20] + 0.1
    # Twice the columns, half the weight each: as wide as to be turned, and the same geometry.
    narrow = logistic(x, labels, subjects, test)
    wide = logistic(np.tile(x, 2), labels, subjects, np.tile(test, 2))
    np.testing.assert_allclose(wide, narrow, atol=5e-3)
    assert scores(narrow, labels[:20])["balanced_accuracy"] > 0.7


def test_it_finds_what_is_there(document: dict[str, Any]) -> None:
    """On a made-up corpus whose 12-Hz power tells the side, all labels make band power nearly perfect."""
    rows = {(row["model"], row["fraction"]): row for row in document["summary"]}
    assert rows["band power", 1.0]["balanced_accuracy"] > 0.9
    assert rows["band power", 1.0]["n_labels"] == 72
    assert rows["band power", 0.1]["n_labels"] == 8


def test_table_and_json_say_the_same(document: dict[str, Any], recipe: Recipe) -> None:
    """Every mean of the table is the mean of the results in the JSON, rounded."""
    written = json.loads((recipe.output / "probe.json").read_text())
    assert written == document
    table = (recipe.output / "probe.md").read_text()
    assert table == markdown(document)
    for row in document["summary"]:
        mine = [
            one["balanced_accuracy"]
            for one in document["results"]
            if (one["model"], one["fraction"]) == (row["model"], row["fraction"])
        ]
        assert row["balanced_accuracy"] == pytest.approx(np.mean(mine), abs=1e-4)
        assert f"{row['balanced_accuracy']:.3f} ± {row['sd']:.3f}" in table
    assert (recipe.output / "probe.png").stat().st_size > 5000


def test_an_interrupted_probe_goes_on(
    document: dict[str, Any], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of results that are there none is computed again, a torn line is, and the outcome is the same."""
    lines = (recipe.output / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:-2]) + lines[-2][:40])
    fits = []
    fit = probe_nets.probe_heads.logistic
    monkeypatch.setattr(probe_nets.probe_heads, "logistic", lambda *parts: fits.append(1) or fit(*parts))
    again = probe(recipe.model_copy(update={"output": tmp_path}))
    assert len(fits) == 2
    strip = ["seconds"]
    for before, after in zip(document["results"], again["results"], strict=True):
        assert {k: v for k, v in before.items() if k not in strip} == {
            k: v for k, v in after.items() if k not in strip
        }
    assert again["summary"] == document["summary"]


def test_pretrained_and_untrained_nets_are_compared(corpus_dir: Path, tmp_path: Path) -> None:
    """A run is scored beside twins from other initialisations, which differ, and the gain is reported."""
    run = run_folder(tmp_path / "run", ["0" * 16])
    entry = {"kind": "pretrained", "name": "codec", "run": run, "untrained": 2, "part": "tokenizer"}
    output = tmp_path / "probe"
    document = probe(recipe_of(corpus_dir, output, [entry]))
    rows = {(row["model"], row["fraction"]): row for row in document["summary"]}
    assert rows["codec", 1.0]["over_untrained"]["seeds"] == 2
    assert "codec over untrained" in (output / "probe.md").read_text()
    assert len(list((output / "features").glob("*.npy"))) == 3
    first, second = (one for one in document["results"] if one["model"] == "codec" and one["fraction"] == 1.0)
    assert first["per_subject"] == second["per_subject"], "all labels, one net: nothing is drawn"


def test_nets_are_not_tested_on_what_they_have_seen(corpus_dir: Path, tmp_path: Path) -> None:
    """A run whose fingerprints hold a tested recording is refused before anything is computed."""
    from offline.data.fingerprint import fingerprint_of_file

    known = fingerprint_of_file(corpus_dir / "A3" / "A3R2.npz")
    run = run_folder(tmp_path / "run", [known])
    recipe = recipe_of(corpus_dir, tmp_path / "probe", [{"kind": "pretrained", "name": "codec", "run": run}])
    with pytest.raises(ConfigError, match=r"codec .* was pretrained on A3/A3R2"):
        probe(recipe)
    assert not recipe.output.exists()
    fine = recipe_of(corpus_dir, tmp_path / "probe", [*recipe.models], train=["A3"], test=["A1"])
    windows = find_windows(fine.task)
    probe_nets.check_unseen(fine, windows, splits(fine.task, windows))


def test_every_fault_of_a_probe_is_told_at_once(tmp_path: Path) -> None:
    """The message lists each fault with its path."""
    path = tmp_path / "probe.yaml"
    path.write_text("task: {classes: [a], window_s: -1}\nmodels: [{kind: raw}, {kind: nothing}]\noutput: x\n")
    with pytest.raises(ConfigError) as error:
        load(path)
    for part in ("task.folder", "task.classes", "task.window_s", "task.sfreq", "models[0]", "models[1]"):
        assert part in str(error.value)


def test_a_subject_without_windows_is_named(recipe: Recipe) -> None:
    """A window that fits into no trial of a subject is an error that names the subject."""
    task = recipe.task.model_copy(update={"window_s": 9.0})
    with pytest.raises(RecordingError, match="A1, A2, A3"):
        find_windows(task)


def test_one_recording_of_two_people_is_refused(recipe: Recipe, corpus_dir: Path, tmp_path: Path) -> None:
    """Else whoever learned it would be tested on it."""
    folder = shutil.copytree(corpus_dir, tmp_path / "corpus")
    shutil.copy(folder / "A1" / "A1R1.npz", folder / "A3" / "copy.npz")
    task = recipe.task.model_copy(update={"folder": recipe.task.folder.model_copy(update={"path": folder})})
    with pytest.raises(ConfigError, match="A3/copy holds the same samples as A1/A1R1"):
        find_windows(task)


def test_a_class_without_windows_is_named(recipe: Recipe) -> None:
    """A mistyped class is an error that names it and the markers there are, before anything is fitted."""
    task = recipe.task.model_copy(update={"classes": (recipe.task.classes[0], "mistyped")})
    with pytest.raises(RecordingError, match=rf"no window of mistyped; .*{recipe.task.classes[1]}"):
        find_windows(task)


def test_eegnet_that_is_not_installed_is_said(
    corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without braindecode the probe stops before it begins and says what to install or leave out."""
    import sys

    monkeypatch.setitem(sys.modules, "braindecode.models", None)
    with pytest.raises(MissingDependency, match="take eegnet out"):
        probe(recipe_of(corpus_dir, tmp_path / "probe", [{"kind": "eegnet"}]))


def test_eegnet_learns(corpus_dir: Path, tmp_path: Path) -> None:
    """EEGNet from braindecode, trained on the windows, tells the sides better than chance, the same twice."""
    braindecode_at_hand()
    entry = {"kind": "eegnet", "steps": 60, "batch_size": 16, "lr": 0.01}
    results = [
        probe(
            recipe_of(corpus_dir, tmp_path / str(i), [entry]).model_copy(
                update={"fractions": (1.0,), "seeds": 1}
            )
        )
        for i in range(2)
    ]
    assert results[0]["summary"] == results[1]["summary"]
    assert results[0]["summary"][0]["balanced_accuracy"] > 0.6
