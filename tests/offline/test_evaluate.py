"""Evaluation: through the pipeline, on what was not trained on, counting what it leaves out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.pipeline import Pipeline
from offline.data.corpus import Corpus, read
from offline.evaluate import chunks, evaluate
from streamer.errors import RecordingError

Writer = Callable[..., Path]


def test_every_uncut_trial_is_answered_and_counted(tiny_bundle: Any, corpus_dir: Path) -> None:
    """The figures are those of the subjects' trials, per subject and together."""
    report = evaluate(tiny_bundle, Corpus(corpus_dir), ["A3"])
    assert report["n_trials"] == 12
    assert report["n_recordings"] == 2
    assert report["per_subject"]["A3"] == {"accuracy": report["accuracy"], "n_trials": 12}
    assert report["subjects"]["worst"] == report["accuracy"]
    assert report["excluded"] == []
    assert {"hits", "false_activations_per_min", "hop_balanced_accuracy", "curve"} <= set(report["idle"])


def test_recordings_trained_on_are_left_out_whatever_they_are_called(
    tiny_bundle: Any, corpus_dir: Path, tmp_path: Path
) -> None:
    """A training subject under another name is recognised by its samples; alone it is nothing to score."""
    for source, name in (("A1", "Z1"), ("A2", "Z2"), ("A3", "Z3")):
        shutil.copytree(corpus_dir / source, tmp_path / name)
    report = evaluate(tiny_bundle, Corpus(tmp_path))
    assert report["excluded"] == ["Z1/A1R1", "Z1/A1R2", "Z2/A2R1", "Z2/A2R2"]
    assert list(report["per_subject"]) == ["Z3"]
    with pytest.raises(RecordingError, match="2 recordings had a part in training"):
        evaluate(tiny_bundle, Corpus(tmp_path), ["Z1"])


def test_what_cannot_be_scored_is_said(tiny_bundle: Any, run_writer: Writer, tmp_path: Path) -> None:
    """A cut trial, another task, too few channels and a damaged file are counted or named with a reason."""
    run_writer(tmp_path / "S" / "a.npz", seed=50, cut_s=2.0)
    run_writer(tmp_path / "S" / "b.npz", seed=51, task="execution")
    run_writer(tmp_path / "S" / "c.npz", seed=52, channels=("C3", "C4"))
    (tmp_path / "S" / "d.npz").write_bytes(b"PK nothing")
    report = evaluate(tiny_bundle, Corpus(tmp_path))
    assert report["n_trials"] == 5
    assert report["n_trials_cut"] == 1
    assert set(report["skipped"]) == {"S/b", "S/c", "S/d"}
    assert "execution" in report["skipped"]["S/b"]


def test_other_rates_and_montages_are_adapted_and_said(
    tiny_bundle: Any, run_writer: Writer, tmp_path: Path
) -> None:
    """A 128-Hz recording with more channels in another order is scored in full, and the report says how."""
    names = ("Oz", "CP4", "CPz", "CP3", "C4", "Cz", "C3", "FC4", "FCz", "FC3", "Fpz")
    run_writer(tmp_path / "S" / "a.npz", seed=60, sfreq=128.0, channels=names)
    report = evaluate(tiny_bundle, Corpus(tmp_path))
    assert report["n_trials"] + report["n_trials_cut"] == 6
    assert report["n_trials"] >= 5
    assert any("128" in note for note in report["adapted"])


@pytest.mark.parametrize("size", [1, 7, 500])
def test_chunks_do_not_matter(tiny_bundle: Any, corpus_dir: Path, size: int) -> None:
    """Played in chunks of any size, the decisions are the same bit for bit."""
    recording = read(corpus_dir / "A3" / "A3R1.npz")
    with OnnxRuntime().open(tiny_bundle) as backend:
        runs = []
        for n in (size, 32):
            pipeline = Pipeline(tiny_bundle, backend, recording.info)
            runs.append([d for chunk in chunks(recording, n) for d in pipeline.process(chunk)])
    assert runs[0] == runs[1]
    assert len(runs[0]) == len(recording) // 10
