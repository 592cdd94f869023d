"""`bcitrain draw`: what it draws, and what it refuses before it plays anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_bundle
from toy_bundle import CHANNELS, toy_graph, toy_manifest, write_bundle
from typer.testing import CliRunner

pytest.importorskip("matplotlib")

from offline import picture
from offline.cli import app
from offline.evaluate import topography

HANDS = ("C3", "C4")


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


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved, to be looked at."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    save = Figure.savefig

    def keep(figure: Any, *args: Any, **options: Any) -> None:
        save(figure, *args, **options)
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


@pytest.mark.parametrize(
    ("names", "shown"), [(CHANNELS, HANDS), (tuple(f"E{i}" for i in range(8)), ("E0", "E1", "E2", "E3"))]
)
def test_what_the_bundle_looks_at_is_drawn_one_under_the_other(
    tmp_path: Path,
    run_writer: Callable[..., Path],
    drawn: list[Any],
    names: tuple[str, ...],
    shown: tuple[str, ...],
) -> None:
    """The hand areas or else its own first channels, although the recording has hand areas as well."""
    channels = names if set(HANDS) <= set(names) else (*HANDS, *names)
    recording = run_writer(tmp_path / "P1" / "one.npz", seed=1, channels=channels)
    manifest = toy_manifest(toy_graph())
    manifest["input"]["ch_names"] = list(names)
    bundle = write_bundle(tmp_path / "toy", manifest, toy_graph())
    done = CliRunner().invoke(app, ["draw", str(bundle), str(recording), str(tmp_path / "x.png")])
    assert done.exit_code == 0, done.output
    above = drawn[0].axes[0]
    assert tuple(text.get_text().strip() for text in above.texts) == shown
    lines = [np.asarray(line.get_ydata()) for line in above.lines]
    apart = [np.median(one) - np.median(other) for one, other in pairwise(lines)]
    assert len(lines) == len(shown)
    assert min(apart) > max(np.std(one) for one in lines)


def test_the_legend_lies_over_no_curve(
    tmp_path: Path, run_writer: Callable[..., Path], drawn: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends above the panel of probabilities and below that of the signal, with a second row as well."""
    monkeypatch.setattr(toy_bundle, "CLASSES", ("rest", "left_fist", "right_fist", "feet", "tongue"))
    bundle = write_bundle(tmp_path / "toy", toy_manifest(toy_graph()), toy_graph())
    recording = run_writer(tmp_path / "P1" / "one.npz", seed=1, channels=CHANNELS)
    done = CliRunner().invoke(app, ["draw", str(bundle), str(recording), str(tmp_path / "x.png")])
    assert done.exit_code == 0, done.output
    above, below = drawn[0].axes
    legend = below.get_legend().get_window_extent()
    assert below.get_window_extent().y1 <= legend.y0
    assert legend.y1 <= above.get_window_extent().y0


@pytest.mark.parametrize(
    ("gain", "kept_s", "said"),
    [
        (1e6, 48, "8 channels too large"),
        (0, 48, "8 channels flat"),
        (1, 0.05, "s of good signal without a hole first"),
    ],
)
def test_where_most_is_undecided_it_is_said_why(
    words: list[str], tmp_path: Path, drawn: list[Any], gain: float, kept_s: float, said: str
) -> None:
    """In the picture and on the screen, by what was said of the signal, or as too short."""
    content = dict(np.load(words[2]))
    content["scale"] = content["scale"] * gain
    content["data"] = content["data"][:, : round(kept_s * content["sfreq"])]
    content["events"] = content["events"][:1]
    np.savez(words[2], **content)
    done = CliRunner().invoke(app, [*words, str(tmp_path / "x.png"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["undecided"]
    assert said in told
    assert ("the unit is wrong" in told) == (gain > 1)
    assert said in drawn[0].axes[1].texts[0].get_text()


def test_where_most_was_decided_no_reason_is_told(words: list[str], tmp_path: Path, drawn: list[Any]) -> None:
    """Neither in the picture nor on the screen."""
    done = CliRunner().invoke(app, [*words, str(tmp_path / "x.png"), "--json"])
    assert "undecided" not in json.loads(done.stdout)
    assert not drawn[0].axes[1].texts


@pytest.mark.parametrize("idle_told", [True, False])
def test_cues_without_a_duration_are_drawn(
    words: list[str], tmp_path: Path, drawn: list[Any], idle_told: bool
) -> None:
    """Shaded where idle says when they end, else, as of the last one, a line in both panels and a name."""
    content = dict(np.load(words[2]))
    events = content["events"]
    asked = int((events[:, 2] > 0).sum())
    events[:, 1] = 0
    content["events"] = events if idle_told else events[events[:, 2] > 0]
    np.savez(words[2], **content)
    done = CliRunner().invoke(app, [*words, str(tmp_path / "x.png")])
    assert done.exit_code == 0, done.output
    above, below = drawn[0].axes
    names = [text.get_text().strip() for text in above.texts if text.get_text().strip() not in HANDS]
    points = [sum(len(line.get_xdata()) == 2 for line in axes.lines) for axes in (above, below)]
    shaded = [sum(patch.get_width() > 0 for patch in axes.patches) for axes in (above, below)]
    lines = 1 if idle_told else asked
    assert (points, shaded) == ([lines] * 2, [asked - lines] * 2)
    assert len(names) == lines
    assert set(names) <= {"left fist", "right fist"}


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
