"""A made-up corpus small enough to train on in seconds, and what comes of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHANNELS = ("FC3", "FCz", "FC4", "C3", "Cz", "C4", "CP3", "CPz", "CP4")
CODES = {0: "rest", 1: "left_fist", 2: "right_fist"}
TRIAL_S = 4.0


def write_run(
    path: Path,
    *,
    seed: int,
    n_trials: int = 6,
    sfreq: float = 160.0,
    channels: tuple[str, ...] = CHANNELS,
    units: str = "uV",
    task: str = "imagery",
    cut_s: float = 0.0,
) -> Path:
    """Write a run of rest and cued trials in turn; 12 Hz is weak on the side that is imagined."""
    rng = np.random.default_rng(seed)
    n = round(TRIAL_S * sfreq)
    codes = np.array([0 if i % 2 == 0 else 1 + (i // 2 + seed) % 2 for i in range(2 * n_trials)])
    events = np.array([[i * n, n, code] for i, code in enumerate(codes)], dtype=np.int32)
    time = np.arange(n * len(codes)) / sfreq
    data = rng.normal(0, 4, (len(channels), len(time)))
    for i, name in enumerate(channels):
        side = {"3": 2, "4": 1}.get(name[-1])  # left hemisphere desynchronises for the right hand
        loud = np.repeat(np.where(codes == side, 4.0, 14.0), n)
        drift = np.cumsum(rng.normal(0, 0.2, len(time)))  # each site keeps its own time
        data[i] += loud * np.sin(2 * np.pi * 12 * time + drift)
    data = data[:, : data.shape[1] - round(cut_s * sfreq)]
    per_unit = {"uV": 1.0, "V": 1e-6}[units]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        data=np.round(10 * data).astype(np.int16),
        scale=np.full(len(channels), 0.1 * per_unit),
        offset=np.zeros(len(channels)),
        sfreq=sfreq,
        units=units,
        ch_names=np.array(channels),
        ch_types=np.array(["eeg"] * len(channels)),
        events=events,
        event_codes=json.dumps({str(code): name for code, name in CODES.items()}),
        meta=json.dumps({"task": task}),
    )
    return path


@pytest.fixture(scope="session")
def run_writer() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects with two runs each: A trains, B validates, C is new."""
    folder = tmp_path_factory.mktemp("corpus")
    for i, subject in enumerate(("A1", "A2", "A3")):
        for run in (1, 2):
            write_run(folder / subject / f"{subject}R{run}.npz", seed=10 * i + run)
    return folder


def recipe_of(corpus: Path, output: Path, **optim: Any) -> Any:
    """Return a recipe of two short epochs on the made-up corpus."""
    from offline.train.recipe import parse

    return parse(
        {
            "card": {"name": "tiny", "version": "0.1", "title": "A made-up task"},
            "data": {"folders": [{"path": corpus}], "train": ["A1"], "validate": ["A2"]},
            "classes": list(CODES.values()),
            "idle": "rest",
            "sfreq": 160.0,
            "ch_names": CHANNELS,
            "min_present": 5,
            "dsp": [{"kind": "bandpass", "low": 4.0, "high": 30.0, "order": 2}, {"kind": "align"}],
            "cut": {"kind": "trials"},
            "augment": {
                "mirror": 0.5,
                "gain": 0.15,
                "channel_gain": 0.1,
                "drop_channel": 0.08,
                "noise": 0.05,
            },
            "model": {"kind": "motor_imagery", "n_chans": 9, "members": 2, "filters": 4, "slow": 2, "dim": 6},
            "optim": {"epochs": 2, "batch_size": 4, **optim},
            "output": output,
        }
    )


@pytest.fixture(scope="session")
def make_recipe(corpus_dir: Path) -> Callable[..., Any]:
    pytest.importorskip("lightning")
    return lambda output, **optim: recipe_of(corpus_dir, output, **optim)


@pytest.fixture(scope="session")
def tiny_run(make_recipe: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished training."""
    from offline.train.train import train

    return train(make_recipe(tmp_path_factory.mktemp("run")), progress=False)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its bundle."""
    from offline.export import export

    with warnings.catch_warnings():
        return export(tiny_run, tmp_path_factory.mktemp("bundle"))
