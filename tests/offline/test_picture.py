"""`bcitrain draw`: what it draws, and what it refuses before it plays anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import CHANNELS, toy_graph, toy_manifest, write_bundle
from typer.testing import CliRunner

pytest.importorskip("matplotlib")

from offline import picture
from offline.cli import app
from offline.evaluate import topography


@pytest.fixture
def words(tmp_path: Path, run_writer: Callable[..., Path]) -> list[str]:
    """A bundle and a recording of 48 s."""
    graph = toy_graph()
    bundle = write_bundle(tmp_path / "toy", toy_manifest(graph), graph)
    run_writer(tmp_path / "P1" / "one.npz", seed=1, channels=CHANNELS)
    return ["draw", str(bundle), str(tmp_path / "P1" / "one.npz")]


def test_a_stretch_of_a_recording_is_drawn(words: list[str], tmp_path: Path) -> None:
    """In whichever format the ending names."""
    for name in ("x.png", "x.svg"):
        done = CliRunner().invoke(app, [*words, str(tmp_path / name), "--start-s", "40"])
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).stat().st_size > 1000


def test_there_may_be_more_classes_than_colours(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The colours begin again."""
    monkeypatch.setattr(picture, "COLOURS", picture.COLOURS[:2])
    done = CliRunner().invoke(app, [*words, str(tmp_path / "x.png"), "--start-s", "10"])
    assert done.exit_code == 0, done.output


def test_a_channel_that_is_not_used_spoils_no_picture(
    words: list[str], tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    """As in a run: what is asked is answered although an electrode that nobody looks at gives no numbers."""
    path = run_writer(tmp_path / "P2" / "one.npz", seed=1, channels=(*CHANNELS, "AF7"))
    content = dict(np.load(path))
    content["scale"] = np.where(content["ch_names"] == "AF7", np.nan, content["scale"])
    np.savez(path, **content)
    told = []
    for recording in (words[2], str(path)):
        done = CliRunner().invoke(app, [words[0], words[1], recording, str(tmp_path / "x.png"), "--json"])
        assert done.exit_code == 0, done.output
        told.append({key: json.loads(done.stdout)[key] for key in ("trials", "right")})
    assert told[0]["right"] > 0
    assert told[1]["trials"] == told[0]["trials"]
    assert told[1]["right"] > 0


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("x.foo", (), "its ending is to be one of"),
        ("x", (), ".png"),
        ("nowhere/x.png", (), "no folder"),
        ("x.foo", ("--topography",), "its ending is to be one of"),
        ("x.png", ("--start-s", "48"), "P1/one lasts 48.0 s"),
    ],
)
def test_what_cannot_be_drawn_is_refused_first(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: tuple[str, ...],
    said: str,
) -> None:
    """Other endings, a missing folder and a stretch beyond the end: one message, nothing played, no file."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("played")

    monkeypatch.setattr(picture, "Pipeline", refuse)
    monkeypatch.setattr(topography, "play", refuse)
    done = CliRunner().invoke(app, [*words, str(tmp_path / name), *options])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert not (tmp_path / name).exists()
