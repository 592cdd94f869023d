"""The recipes on MOABB's data sets, end to end on the one that MOABB makes up itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from braindecode_at_hand import braindecode_at_hand

torch = pytest.importorskip("torch")
pytest.importorskip("moabb")

from offline.data.sources import Moabb, find  # noqa: E402
from offline.export import export  # noqa: E402
from offline.train.recipe import Recipe, parse  # noqa: E402
from offline.train.train import train  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = ["fake1", "fake2", "fake3"]
SITES = ["C3", "Cz", "C4"]
SMALL_NET = {"members": 1, "filters": 2, "slow": 2, "dim": 4, "dilations": [1], "n_classes": 3, "n_chans": 3}
SMALL_WINDOW = {
    "net": "EEGNet",
    "params": {},
    "pretrained": None,
    "ch_names": SITES,
    "n_classes": 3,
    "n_chans": 3,
}


def small(config: str, model: dict[str, Any], output: Path) -> Recipe:
    """The recipe of a config, on three people that do not exist and for a few steps."""
    raw = yaml.safe_load((CONFIGS / config).read_text())
    raw["data"] = {
        "moabb": [{"dataset": "FakeDataset", "include": [1, 2]}],
        "train": ["FakeDataset_001"],
        "validate": ["FakeDataset_002"],
    }
    raw |= {"classes": CLASSES, "ch_names": SITES, "min_present": 3, "output": str(output)}
    raw["model"] |= model
    if raw["cut"]["kind"] == "windows":
        raw["cut"] |= {"from_s": 2.0, "to_s": 3.0}  # as long as these trials are
    raw["optim"] = {"epochs": 1, "steps": 2, "batch_size": 8, "average": 0.5}
    return parse(raw)


def test_cues_are_markers() -> None:
    """Each trial of MOABB is a marker with its class, and as long as the data set says."""
    (subject,) = find([], [Moabb(dataset="FakeDataset", include=(3,))])
    read = [recording() for _, recording in subject.openers()]
    assert len(read) == 4, "two sessions of two runs"
    for recording, _ in read:
        markers = recording.markers
        assert len(markers) == 60
        assert {marker.label for marker in markers} == set(CLASSES)
        assert {marker.duration for marker in markers} == {3.0}
        stim = recording.data[:, recording.info.ch_names.index("stim")]
        for marker in markers:
            assert stim[round(marker.time * recording.info.sfreq)] > 0


def test_the_recipe_of_our_net_runs(tmp_path: Path) -> None:
    """Recordings from MOABB are read, learned from, validated on and exported by the 2a recipe."""
    run = train(small("train_imagery_2a.yaml", SMALL_NET, tmp_path / "run"), progress=False)
    bundle = export(run, tmp_path / "bundle")
    assert bundle.readout.classes == tuple(CLASSES)
    assert run.subjects == {"train": ("FakeDataset_001",), "validate": ("FakeDataset_002",)}


def test_the_recipe_of_a_windowed_net_runs(tmp_path: Path) -> None:
    """So does that of a net of braindecode, its state the window."""
    braindecode_at_hand()
    recipe = small("train_foundation_2a.yaml", SMALL_WINDOW, tmp_path / "run")
    bundle = export(train(recipe, progress=False), tmp_path / "bundle")
    assert bundle.manifest.graph.state[0].shape == (1, 3, recipe.model.window - recipe.model.hop)
