"""A bundle's files take the place of older ones together."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_files import Killed, half_written

from engine.bundle_folder import replace_files

OLD = {"a": b"old a", "b": b"old b", "c": b"same"}
NEW = {"a": b"new a", "b": b"new b", "c": b"same", "d": b"more"}


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_interrupted_at_any_file_the_old_ones_are_all_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    """However many are written already, and nothing half written is left."""
    replace_files(tmp_path / "new" / "folder", OLD)
    folder, write, left = tmp_path / "new" / "folder", Path.write_bytes, iter([True] * whole)
    monkeypatch.setattr(
        Path,
        "write_bytes",
        lambda path, content: (write if next(left, False) else half_written)(path, content),
    )
    with pytest.raises(Killed):
        replace_files(folder, NEW)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == OLD


def test_what_is_the_same_stays_and_the_last_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest, which names the others, takes its place behind them."""
    replace_files(tmp_path, OLD)
    replaced, replace = [], Path.replace

    def told(path: Path, target: Path) -> Path:
        replaced.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", told)
    replace_files(tmp_path, NEW)
    assert replaced == ["a", "b", "d"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == NEW
