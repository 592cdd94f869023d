"""Ctrl-C during a long command: what is kept, and how to go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from offline.cli import app

for needed in ("torch", "sklearn", "pyriemann", "webdataset", "matplotlib"):
    pytest.importorskip(needed)

KEPT, ANEW = "is kept. Go on: the same command", "nothing is kept. The same command begins anew"
CONFIGS = Path(__file__).parents[2] / "configs"
LONG: dict[str, tuple[str, Sequence[str], str]] = {
    "train": ("offline.train.train.train", ["train_gestures.yaml"], "nothing is kept"),
    "finetune": (
        "offline.finetune.finetune.finetune", ["finetune_neuro2vec_workload.yaml"], "nothing is kept"
    ),
    "benchmark": ("offline.benchmark.benchmark.benchmark", ["benchmark_imagery.yaml"], KEPT),
    "crossval": ("offline.crossval.crossval.crossval", ["crossval_mcsp.yaml"], KEPT),
    "probe": ("offline.probe.probe.probe", ["probe_imagery.yaml"], KEPT),
    "data prepare": ("offline.data.prepare.prepare", ["prepare_sleep_100.yaml"], "are kept. Go on"),
    "evaluate": (
        "offline.evaluate.run.evaluate_all", ["motor-rhythms", "--data", "."], "with --output FOLDER"
    ),
    "evaluate --output new": ("offline.evaluate.run.evaluate_all", ["motor-rhythms", "--data", "."], KEPT),
    "operate": ("offline.operate.operate", ["motor-rhythms", "--data", ".", "-o", "new"], ANEW),
    "personalise": ("offline.personal.scoring.score_people", ["motor-imagery", "--data", "."], ANEW),
    "export": ("offline.export_folder.drop_others_training", [".", "new"], ANEW),
}  # fmt: skip


@pytest.mark.parametrize("command", LONG)
def test_ctrl_c_says_what_is_kept(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every long command ends with exit code 130 and one message, for scripts as one document."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    place, words, kept = LONG[command]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, interrupted)
    monkeypatch.setattr("offline.commands.export._written", interrupted)
    given = [str(CONFIGS / word) if word.endswith(".yaml") else word for word in words]
    for json_too in (False, True):
        done = CliRunner().invoke(app, [*command.split(), *given, *["--json"] * json_too])
        assert done.exit_code == 130
        assert kept in (json.loads(done.stdout)["error"]["message"] if json_too else done.stderr)
