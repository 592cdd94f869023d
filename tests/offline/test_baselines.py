"""The classical decoders beside the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyriemann")

from offline.baselines import score_baselines
from offline.data.corpus import Corpus
from streamer.errors import ConfigError, RecordingError


def test_baselines_learn_a_plain_lateralised_rhythm(tiny_bundle: Any, corpus_dir: Path) -> None:
    """Where one side's rhythm is plainly weaker, every baseline finds it on a new subject's same trials."""
    test = Corpus(corpus_dir).recordings("A3")
    scores = score_baselines(tiny_bundle, corpus_dir, test)
    names = ("CSP + LDA", "tangent space + LR")
    assert set(scores) == {*names, *(f"{name} + alignment" for name in names)}
    for name, figures in scores.items():
        assert figures["n_trials"] == 12
        assert figures["accuracy"] > 0.9, name


def test_baselines_train_on_what_the_bundle_trained_on(
    tiny_bundle: Any, corpus_dir: Path, run_writer: Any, tmp_path: Path
) -> None:
    """Without the training folder, or with another one, they are refused: the comparison would be unfair."""
    test = Corpus(corpus_dir).recordings("A3")
    with pytest.raises(ConfigError, match="--train-data"):
        score_baselines(tiny_bundle, None, test)
    run_writer(tmp_path / "X" / "x.npz", seed=99)
    with pytest.raises(RecordingError, match="none of the 2 recordings"):
        score_baselines(tiny_bundle, tmp_path, test)
