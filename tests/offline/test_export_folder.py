"""Where a bundle may be written: over its own past, over nobody else's, and with no training but its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_bundle import toy_graph, toy_manifest, write_bundle
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("onnxscript")

from engine.bundle import load  # noqa: E402
from offline import export as exporting  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.personal.origin import TRAINING, keep_training, origin  # noqa: E402
from offline.personal.writing import personalise  # noqa: E402
from streamer.errors import ConfigError  # noqa: E402


def command(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail whatever begins to work."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("it went to work")

    monkeypatch.setattr(exporting, "real_probe", refuse)
    monkeypatch.setattr(exporting, "export_step", refuse)


@pytest.mark.usefixtures("idle")
def test_another_bundle_is_not_written_over(tiny_run: Any, tmp_path: Path) -> None:
    """Nor one whose manifest cannot be read; what lies there stays as it is."""
    graph = toy_graph()
    victim = write_bundle(tmp_path / "victim", toy_manifest(graph), graph)
    said = command("export", tiny_run.recipe.output, victim, code=2)
    assert f"{victim} holds bundle toy: name another folder" in said
    assert load(victim).manifest.name == "toy"
    assert not (victim / "MODEL_CARD.md").exists()
    (victim / "bundle.json").write_text("{")
    assert "cannot be read" in command("export", tiny_run.recipe.output, victim, code=2)


@pytest.mark.usefixtures("idle")
def test_a_bundle_is_not_put_between_other_files(tiny_run: Any, tmp_path: Path) -> None:
    """Nor into the folder of a run, nor beside somebody's work; the files are named."""
    (tmp_path / "work" / "letters").mkdir(parents=True)
    (tmp_path / "work" / "notes.txt").write_text("mine")
    said = command("export", tiny_run.recipe.output, tmp_path / "work", code=2)
    assert "holds no bundle but letters, notes.txt: name a new or an empty folder" in said
    run = tiny_run.recipe.output
    assert "holds no bundle" in command("export", run, run, code=2)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["letters", "notes.txt"]


def test_a_card_may_be_there_first(tiny_run: Any, tmp_path: Path) -> None:
    """It is kept, and so is what is hidden."""
    for name in ("MODEL_CARD.md", ".gitignore"):
        (tmp_path / name).write_text("mine")
    command("export", tiny_run.recipe.output, tmp_path)
    assert load(tmp_path).manifest.name == "tiny"
    assert {(tmp_path / name).read_text() for name in ("MODEL_CARD.md", ".gitignore")} == {"mine"}


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("where", ["file", "file/below", "/proc/bundle"])
def test_where_nothing_can_be_written_is_said_first(tiny_run: Any, tmp_path: Path, where: str) -> None:
    """A file, a folder below one, and a place that takes no files."""
    (tmp_path / "file").write_text("mine")
    said = command("export", tiny_run.recipe.output, tmp_path / where, code=2)
    assert "name a folder that can be written" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_bundle_of_ones_own_needs_a_place_too(
    tiny_run: Any, tiny_bundle: Any, corpus_dir: Path, tmp_path: Path
) -> None:
    """It is refused before anything is learned."""
    (tmp_path / "file").write_text("mine")
    one = origin(tiny_bundle.folder, tiny_run.recipe.output)
    settings: Any = None  # nothing comes as far as to ask for them
    with pytest.raises(ConfigError, match="name a folder that can be written"):
        personalise(one, corpus_dir, "A3", tmp_path / "file" / "me", settings)


def test_exported_again_a_bundle_keeps_no_training_but_its_own(tiny_run: Any, tmp_path: Path) -> None:
    """Its own stays, another's goes, or is replaced with --training."""
    run, folder = tiny_run.recipe.output, tmp_path / "bundle"
    kept = folder / TRAINING / "weights.safetensors"
    command("export", run, folder, "--training")
    own = kept.read_bytes()
    command("export", run, folder)
    assert kept.read_bytes() == own
    kept.write_bytes(b"another's")
    command("export", run, folder, "--training")
    assert kept.read_bytes() == own
    kept.write_bytes(b"another's")
    command("export", run, folder)
    assert not (folder / TRAINING).exists()
    assert load(folder).manifest.name == "tiny"


def test_a_training_is_kept_where_it_lies(tiny_run: Any, tmp_path: Path) -> None:
    """A bundle exported anew from its own training still carries it."""
    keep_training(tiny_run.recipe.output, tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / TRAINING).iterdir()}
    keep_training(tmp_path / TRAINING, tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / TRAINING).iterdir()} == before
