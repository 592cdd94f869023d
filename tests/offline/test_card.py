"""A card is put into a bundle with its hash, edited in place or taken from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from toy_bundle import CHANNELS, toy_graph, toy_manifest, write_bundle
from typer.testing import CliRunner

from engine.bundle import load
from offline.card import operated_anew, put
from offline.cli import app
from offline.operate import operate
from streamer.errors import BundleError


def test_an_edited_card_does_not_spoil_the_bundle(tmp_path: Path) -> None:
    """Edited alone the bundle is refused; put in, it loads and holds the new text; all else is as it was."""
    graph = toy_graph()
    folder = Path(write_bundle(tmp_path / "toy", toy_manifest(graph), graph))
    own, other = folder / "MODEL_CARD.md", tmp_path / "other.md"
    other.write_text("# First\n")
    before = put(folder, other).manifest
    own.write_text("# Edited\n")
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md"):
        load(folder)
    other.write_text("# Another\n")
    for text in (own, other):
        result = CliRunner().invoke(app, ["card", str(folder), str(text)])
        assert result.exit_code == 0, result.output
        after = load(folder).manifest
        assert own.read_text() == text.read_text()
        assert after.model_copy(update={"files": before.files}) == before


def test_what_cannot_be_put_in_is_said(tmp_path: Path) -> None:
    """No such card, no bundle: a message and exit code 2, and nothing is written."""
    (tmp_path / "card.md").write_text("# Card\n")
    for card, said in (("none.md", "cannot be read"), ("card.md", "holds no bundle")):
        result = CliRunner().invoke(app, ["card", str(tmp_path), str(tmp_path / card)])
        assert (result.exit_code, said in result.output) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.md"]


def test_a_card_says_that_its_figures_are_of_the_settings_before(
    tmp_path: Path, run_writer: Callable[..., Path]
) -> None:
    """Once, however often the bundle is operated, and of whom it was last; all else stays as it was."""
    folder = write_bundle(tmp_path / "toy", toy_manifest(toy_graph()), toy_graph())
    card = "# Toy\n\n.86 false activations a minute.\n\n## Limits\n\nMany.\n"
    (tmp_path / "card.md").write_text(card)
    put(folder, tmp_path / "card.md")
    for seed, name in enumerate(("P1", "P2")):
        run_writer(tmp_path / "data" / name / "one.npz", seed=seed, channels=CHANNELS)
    for people, whom in ((["P1"], "1 person"), (["P1", "P2"], "2 people")):
        operate(folder, tmp_path / "data", folder, people)
        told = (folder / "MODEL_CARD.md").read_text()
        assert told.startswith(card)
        section = told.removeprefix(card)
        assert section.count("## Operated anew") == 1
        for said in (
            whom,
            "decisions of this bundle",
            "settings before",
            "`bcistream check`",
        ):
            assert said in section
        load(folder)  # with its hash


@pytest.mark.parametrize("end", ["", "\n## In int8\n\nFigures.\n"])
def test_what_stands_behind_the_section_stays(end: str) -> None:
    """An earlier section goes, wherever it is, and nothing else."""
    about = {"temperature_of": "nets of the same recipe", "subjects": ["P1"]}
    first = operated_anew(b"# Toy\n", about)
    again = operated_anew(first + end.encode(), about)
    assert again == b"# Toy\n" + end.encode() + first.removeprefix(b"# Toy\n")
