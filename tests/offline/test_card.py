"""A card is put into a bundle with its hash, edited in place or taken from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_bundle import toy_graph, toy_manifest, write_bundle
from typer.testing import CliRunner

from engine.bundle import load
from offline.card import put
from offline.cli import app
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
