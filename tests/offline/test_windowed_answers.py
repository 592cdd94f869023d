"""Answers from windows alone equal those of the stream, and what would make them differ is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from engine.bundle import Bundle
from offline.evaluate.run import Evaluation, evaluate
from offline.evaluate.windowed import evaluate_windowed
from streamer.errors import BundleError


def with_graph(bundle: Bundle, **changes: Any) -> Bundle:
    graph = bundle.manifest.graph.model_copy(update=changes)
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"graph": graph}))


@pytest.fixture(scope="module", params=["mean", "last"])
def streamed(request: pytest.FixtureRequest, tiny_bundle: Bundle, corpus_dir: Path) -> Evaluation:
    from offline.evaluate.recordings import Options

    return evaluate(tiny_bundle, corpus_dir, ["A3"], options=Options(protocol={"answer": request.param}))


def test_every_answer_is_that_of_its_window(streamed: Evaluation) -> None:
    """From an empty state over its left context each hop says what the stream said, but for rounding."""
    found = evaluate_windowed(streamed, ["A3"])
    assert found["n"] == streamed.scores().n > 0
    assert found["differ"] == 0
    assert found["windowed"] == found["streamed"] == streamed.scores().accuracy
    assert found["largest_difference"] < 1e-5


def test_what_was_not_played_is_not_asked_again(
    tiny_bundle: Bundle, corpus_dir: Path, run_writer: Callable[..., Path], tmp_path: Path
) -> None:
    """A recording with two channels of nine, and one that was not played, are left out here as well."""
    shutil.copytree(corpus_dir / "A3", tmp_path / "people" / "A3")
    run_writer(tmp_path / "people" / "A3" / "A3R3.npz", seed=3, channels=("C3", "C4"))
    whole = evaluate(tiny_bundle, tmp_path / "people")
    assert list(whole.skipped) == ["A3/A3R3"]
    assert evaluate_windowed(whole)["n"] == whole.scores().n
    part = replace(whole, played=whole.played[1:])
    assert evaluate_windowed(part)["n"] == part.scores().n == whole.scores().n / 2


def test_a_window_shorter_than_the_memory_is_noticed(streamed: Evaluation) -> None:
    """A bundle that says less of its left context than is true gives other probabilities from windows."""
    short = replace(streamed, bundle=with_graph(streamed.bundle, left_context=40))
    assert evaluate_windowed(short, ["A3"])["largest_difference"] > 1e-3


def test_a_net_that_never_forgets_has_no_window(streamed: Evaluation) -> None:
    """It is refused in words."""
    endless = replace(streamed, bundle=with_graph(streamed.bundle, bounded=False))
    with pytest.raises(BundleError, match="memory without an end"):
        evaluate_windowed(endless, ["A3"])
