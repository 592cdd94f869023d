"""What commands say when the system refuses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.output import EXIT_ERROR, Output


def test_a_folder_that_cannot_be_made_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the system names its file, on one line or in the one document, and ends in code 2."""
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "folder"
    for as_json in (False, True):
        with pytest.raises(SystemExit) as ended, Output(json=as_json).errors():
            inside.mkdir()
        assert ended.value.code == EXIT_ERROR
        printed = capsys.readouterr()
        said = json.loads(printed.out)["error"]["message"] if as_json else printed.err
        assert str(inside) in said
        assert len(said.strip().splitlines()) == 1
