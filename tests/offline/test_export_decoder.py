"""From a pretraining to live decisions: the bundle of a fine-tuning decides what the model does offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_corpus import make
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("onnxscript")
pytest.importorskip("sklearn")

from test_finetune import settings  # noqa: E402
from test_probe import CHANNELS  # noqa: E402

from engine.adapt import fit  # noqa: E402
from engine.answers import Answer, answer_of  # noqa: E402
from engine.bundle import load as load_bundle  # noqa: E402
from engine.config import parse as parse_run  # noqa: E402
from engine.live import Observer, run_config  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.finetune.run import is_finetuning, load_model, load_run  # noqa: E402
from offline.models import biocodec  # noqa: E402
from offline.pretrain.pretrain import pretrain  # noqa: E402
from offline.pretrain.recipe import parse as parse_pretraining  # noqa: E402
from offline.probe.features import Signal  # noqa: E402
from streamer.sources.recording import load as read_recording  # noqa: E402
from streamer.types import Decision, make_chunk  # noqa: E402


def call(*args: object) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, [*(str(arg) for arg in args), "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture(scope="module")
def folders(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A codec pretrained for two steps, fine-tuned behind an alignment by one step, and exported."""
    root = tmp_path_factory.mktemp("whole")
    make(corpus_dir, root / "shards")
    codec = biocodec.SMALL.model_copy(update={"memory": "none"})
    pretrain(
        parse_pretraining(
            {
                "card": {"name": "tiny", "version": "0.1", "title": "A tiny codec"},
                "system": {"kind": "biocodec", "model": codec.model_dump(), "n_ffts": [16]},
                "data": {
                    "shards": [str(root / "shards")],
                    "validate": ["A2"],
                    "exclude": ["A3"],
                    "crop_s": 1.0,
                    "channels": 2,
                },
                "optim": {"steps": 2, "batch_size": 4},
                "steps_per_epoch": 2,
                "output": root / "pretrained",
            }
        ),
        progress=False,
    )
    recipe = settings(
        corpus_dir,
        root / "pretrained",
        root / "tuned",
        task={"classes": ["rest", "left_fist", "right_fist"]},
        idle="rest",
        mode="full",
        adapt=[{"kind": "align"}],
        optim={"steps": 1, "batch_size": 4, "context_s": 0.3, "lr": 1e-3},
        decision={"smoothing_s": 0.0, "dwell_s": 0.0},
    )
    config = root / "recipe.yaml"
    config.write_text(json.dumps(recipe, default=str))
    code, document = call("finetune", config)
    assert code == 0, document
    code, document = call("export", root / "tuned", root / "bundle")
    assert code == 0, document
    assert document["puts_out"] == "readout"
    return {name: root / name for name in ("pretrained", "tuned", "bundle")} | {"corpus": corpus_dir}


def test_a_bundle_says_what_it_decides_and_whom_it_knows(folders: dict[str, Path]) -> None:
    """Classes, idle, temperature, montage and DSP list are the run's; recordings of every stage are named."""
    run, manifest = load_run(folders["tuned"]), load_bundle(folders["bundle"]).manifest
    assert is_finetuning(folders["tuned"])
    assert not is_finetuning(folders["pretrained"])
    assert manifest.readout.classes == ("rest", "left_fist", "right_fist")
    assert manifest.readout.idle == "rest"
    assert manifest.readout.temperature == run.temperature
    assert manifest.input.ch_names == tuple(CHANNELS)
    assert [step.kind for step in manifest.input.dsp] == ["bandpass", "align", "scale"]
    assert manifest.graph.left_context == load_model(folders["tuned"]).left_context
    listed = manifest.provenance["fingerprints"]
    assert {"train", "validate", "backbone_train", "backbone_validate"} <= set(listed)
    assert set(listed["train"]) <= set(listed["backbone_train"])
    assert "2 of 2 recordings under train were under train in pretraining" in manifest.provenance["notes"]


def test_a_bundle_says_when_in_a_trial_its_answers_are(folders: dict[str, Path]) -> None:
    """The engine looks at the windows that were learned from, and nothing of where they lie is written."""
    provenance = load_bundle(folders["bundle"]).manifest.provenance
    task = load_run(folders["tuned"]).recipe.task
    assert answer_of(provenance) == Answer(task.from_s, None, task.window_s)
    assert provenance["task"]["stype"] == task.stype
    assert "path" not in provenance["task"]["folder"]


def test_the_live_chain_is_the_training_chain(folders: dict[str, Path]) -> None:
    """Resampled, filtered, aligned and scaled, a recording in chunks comes out as training had it."""
    run, bundle = load_run(folders["tuned"]), load_bundle(folders["bundle"])
    recording = read_recording(folders["corpus"] / "A3" / "A3R1.npz")
    signal = Signal(run.recipe.task.ch_names, run.model.sfreq, run.dsp)
    (wanted,) = signal.stretches(recording)
    chain = fit(bundle, recording.info).chain
    pieces = [
        chain(make_chunk(recording.data[i : i + 37], i, recording.times[i : i + 37])).data
        for i in range(0, len(recording.times), 37)
    ]
    assert np.array_equal(np.concatenate(pieces), wanted.data)


def test_live_decisions_are_those_of_the_model(folders: dict[str, Path]) -> None:
    """Played into a session, every warm decision has the probabilities of torch over the whole recording."""
    run, model = load_run(folders["tuned"]), load_model(folders["tuned"])
    path = folders["corpus"] / "A3" / "A3R2.npz"
    heard: list[Decision] = []
    config = {
        "source": {"kind": "recording", "path": str(path)},
        "bundle": str(folders["bundle"]),
        "quality": None,
    }
    run_config(parse_run(config, "test"), extra=Observer(heard.append))
    signal = Signal(run.recipe.task.ch_names, run.model.sfreq, run.dsp)
    (chunk,) = signal.stretches(read_recording(path))
    x = torch.from_numpy(np.ascontiguousarray(chunk.data[: len(chunk) // model.hop * model.hop].T))[None]
    with torch.inference_mode():
        logits = model(x, model.init_state(1))[0]["logits"][0]
    wanted = (logits.double() / run.temperature).softmax(-1).numpy()
    got = {decision.index: decision.probabilities for decision in heard if decision.valid}
    assert len(got) > 0.8 * len(wanted)
    for index, probabilities in got.items():
        np.testing.assert_allclose(probabilities, wanted[(index + 1) // model.hop - 1], atol=1e-4)
    assert {decision.label for decision in heard} - {None} <= {"left_fist", "right_fist"}


def test_the_backbone_may_be_gone(folders: dict[str, Path], tmp_path: Path) -> None:
    """A fine-tuned folder is whole in itself: it exports when what it was made from is not there any more."""
    moved = folders["pretrained"].rename(tmp_path / "elsewhere")
    try:
        code, document = call("export", folders["tuned"], tmp_path / "bundle")
    finally:
        moved.rename(folders["pretrained"])
    assert code == 0, document
    first, again = (
        (folder / "step.onnx").read_bytes() for folder in (folders["bundle"], tmp_path / "bundle")
    )
    assert first == again


def test_a_finished_run_is_tested_by_the_same_command(folders: dict[str, Path]) -> None:
    """`--test` trains nothing, scores the people named, and refuses those who validated."""
    recipe, before = folders["tuned"].parent / "recipe.yaml", load_model(folders["tuned"]).state_dict()
    code, document = call("finetune", recipe, "--test", "A3")
    assert code == 0, document
    assert document["subjects"] == ["A3"]
    after = load_model(folders["tuned"]).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    code, document = call("finetune", recipe, "--test", "A2")
    assert code == 2
    assert "A2 trained or validated" in document["error"]["message"]


def test_a_decoder_has_one_model_for_one_montage(folders: dict[str, Path], tmp_path: Path) -> None:
    """A part or other channels are refused."""
    code, document = call("export", folders["tuned"], tmp_path / "bundle", "--ch-names", "C3,C4")
    assert code == 2
    assert "Leave out --part and --ch-names" in document["error"]["message"]
