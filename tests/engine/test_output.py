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


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_figure_of_a_table_is_cut(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However narrow the terminal, each figure stands there whole, in lines that are no longer."""
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("accuracy", "balanced_accuracy", "kappa", "macro_f1", "auroc", "auc_pr", "ece", "note")
    rows = [
        {
            "model": model,
            **{name: 0.1001 * (k + 1) + at for k, name in enumerate(names[:-1])},
            "note": "a b c",
        }
        for at, model in ((0.0, "EEGNet + alignment"), (0.0123, "tangent space"), (1e-5, "[extra]"))
    ]
    Output(json=False).table("figures", rows)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert all(len(line) <= width for line in printed.splitlines())
    assert "[extra]" in printed
    for row in rows:
        for name in names[:-1]:
            assert any(f" {row[name]:.4g} " in line for line in printed.splitlines())
    assert printed.count("note") == 1
    assert (printed.count("model") == 1) == (width == 200)


@pytest.mark.parametrize("width", [30, 60, 80])
@pytest.mark.parametrize("wide", ["first", "second", "both"])
@pytest.mark.parametrize("text", ["-", "eight left_fist, seven right_fist, and so on for a line or two"])
def test_a_word_wider_than_the_terminal_is_folded_and_nothing_of_it_lost(
    width: int, wide: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line by line below each other its pieces are the word again, in either column, beside a text too."""
    monkeypatch.setenv("COLUMNS", str(width))
    words = {"first": "S1", "second": "x", "note": text, "figure": "0.1234"}
    words |= {key: f"{key}-{'0123456789' * 9}-END" for key in ("first", "second") if wide in (key, "both")}
    Output(json=False).table("t", [words])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width for line in lines)
    assert all(line[-1] in "│┃┓┩┘" for line in lines if line.strip() != "t")
    pieces: dict[str, str] = {}
    for line in lines:
        if line[0] == "┃":
            names = [cell.strip() for cell in line.strip("┃").split("┃")]
            pieces |= dict.fromkeys(names, "")
        elif line[0] == "│":
            for name, cell in zip(names, line.strip("│").split("│"), strict=True):
                pieces[name] += cell.strip()
    assert {name: "".join(word.split()) for name, word in words.items()} == {
        name: "".join(piece.split()) for name, piece in pieces.items()
    }
