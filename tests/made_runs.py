"""Run folders as a pretraining leaves them, made up for tests: weights are as they were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Step = dict[str, Any]


def write_run(
    folder: Path,
    system: dict[str, Any],
    *,
    sfreq: float,
    ch_names: Sequence[str],
    dsp: Sequence[Step] = (),
    fingerprints: Sequence[str] = (),
) -> Path:
    """Write the run of a system with these settings, behind a DSP list, and return its folder."""
    import torch

    from offline import runs
    from offline.pretrain.recipe import parse

    recipe = parse(
        {
            "card": {"name": "tiny", "version": "0.1", "title": "A tiny net"},
            "system": system,
            "data": {"shards": ["none"], "validate": ["nobody"], "crop_s": 1.0},
            "optim": {"steps": 1},
            "steps_per_epoch": 1,
            "output": folder,
        }
    )
    torch.manual_seed(5)
    nobody: dict[str, tuple[str, ...]] = {"train": (), "validate": ()}
    run = runs.PretrainRun(
        recipe=recipe, sfreq=sfreq, stype="EEG", unit="uV", dsp=tuple(dsp), montages=(tuple(ch_names),),
        subjects=nobody, fingerprints=nobody | {"train": tuple(fingerprints)},
        scores={}, steps=1, finished=True, hours=0.0, channel_hours=0.0, seconds=0.0, versions={}, machine={},
    )  # fmt: skip
    runs.write(run, recipe.system.build(sfreq))
    return folder
