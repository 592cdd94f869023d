"""The parts of a pretrained system become bundles that compute, live, what the parts compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_corpus import make
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from engine.adapt import fit  # noqa: E402
from engine.backends.onnxruntime import Config as OnnxRuntime  # noqa: E402
from engine.bundle import Bundle, load  # noqa: E402
from engine.listen import Listener, check  # noqa: E402
from engine.tokens import Tokenizer  # noqa: E402
from offline import export_part as exporting  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.export_graph import check_parity, describe, export_step, noise, probes, step_graph  # noqa: E402
from offline.export_part import codec_id, export_part  # noqa: E402
from offline.models import biocodec, brainrvq_tokenizer  # noqa: E402
from offline.pretrain.recipe import parse  # noqa: E402
from offline.runs import PretrainRun, write  # noqa: E402
from offline.systems import biocodec as biocodec_system  # noqa: E402
from offline.systems import brainrvq_tokenizer as brainrvq_system  # noqa: E402
from streamer.errors import BundleError, ConfigError  # noqa: E402
from streamer.types import Chunk, StreamInfo  # noqa: E402

SFREQ = 200.0
NAMES = ("C3", "Cz", "C4")
CODEC = biocodec_system.Config(model=biocodec.SMALL.model_copy(update={"memory": "none"}))


@pytest.fixture(scope="module")
def shards(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    make(corpus_dir, folder)
    return folder


def write_run(folder: Path, shards: Path, system: Any, seed: int = 0) -> Path:
    """Write the run folder of a system whose weights are as they were drawn."""
    recipe = parse(
        {
            "card": {"name": "tiny-codec", "version": "0.1", "title": "A tiny codec"},
            "system": system,
            "data": {"shards": [str(shards)], "validate": ["A3"], "crop_s": 1.0},
            "optim": {"steps": 4},
            "steps_per_epoch": 4,
            "output": folder,
        }
    )
    torch.manual_seed(seed)
    run = PretrainRun(
        recipe=recipe, sfreq=SFREQ, stype="EEG", unit="uV",
        dsp=({"kind": "bandpass", "low": 1.0, "high": 40.0, "order": 2},), montages=(NAMES,),
        subjects={"train": ("A1", "A2"), "validate": ("A3",)}, fingerprints={"train": (), "validate": ()},
        scores={}, steps=4, finished=True, hours=0.0, channel_hours=0.0, seconds=0.0, versions={}, machine={},
    )  # fmt: skip
    write(run, system.build(SFREQ))
    return folder


@pytest.fixture(scope="module")
def codec_run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("codec"), shards, CODEC)


@pytest.fixture(scope="module")
def codec(codec_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Export a part once."""
    made: dict[str, Bundle] = {}

    def exported(part: str) -> Bundle:
        if part not in made:
            made[part] = export_part(codec_run, part, tmp_path_factory.mktemp(part))
        return made[part]

    return exported


def test_a_tokenizer_takes_any_montage(codec: Callable[[str], Bundle]) -> None:
    """The bundle reads back as one of codes, for channels by themselves, behind the corpus's DSP list."""
    manifest = load(codec("tokenizer").folder).manifest
    assert manifest.product == "tokens"
    assert manifest.name == "tiny-codec"
    assert (manifest.input.per_channel, manifest.input.ch_names) == (True, ())
    assert [step.kind for step in manifest.input.dsp] == ["bandpass"]
    assert manifest.graph.bounded
    assert set(json.loads((codec("tokenizer").folder / "bundle.json").read_text())).isdisjoint(
        {"readout", "signal", "features"}
    )


def test_both_ends_share_their_codec(codec: Callable[[str], Bundle]) -> None:
    """Tokenizer and decoder of one run have one codec id, shapes and rate; their names tell them apart."""
    tokens, signal = codec("tokenizer").tokens, codec("decoder").signal
    assert tokens.codec == signal.codec
    assert (tokens.n_codebooks, tokens.codebook_size, tokens.n_gains) == (3, 32, 256)
    assert (signal.n_codebooks, signal.codebook_size, signal.n_gains) == (3, 32, 256)
    assert codec("decoder").manifest.name == "tiny-codec-decoder"
    assert codec("decoder").manifest.input.sfreq == pytest.approx(SFREQ / 12)


def test_other_weights_are_another_codec() -> None:
    """Any change of the decoder or its codebooks is another id; the same weights are the same one."""
    torch.manual_seed(0)
    system = CODEC.build(SFREQ)
    first = codec_id(system)
    assert codec_id(system) == first
    with torch.no_grad():
        system.model.tokenizer.rvq.levels[0].embed[0, 0] += 1e-3
    assert codec_id(system) != first


def test_live_equals_offline_at_both_ends(codec: Callable[[str], Bundle], codec_run: Path) -> None:
    """Through engine, chunk by chunk, the codes are torch's exactly, and so is what they decode to."""
    info = StreamInfo("amp", "amp", "EEG", SFREQ, NAMES, ("eeg",) * 3, "uV")
    bundle = codec("tokenizer")
    fitted = fit(bundle, info)
    sized, far = bundle.sized(NAMES), codec("decoder").sized(NAMES)
    data = (20 * np.random.default_rng(2).normal(size=(1200, 3))).astype(np.float32)
    made = Tokenizer(sized, OnnxRuntime().open(sized), info, fitted)
    frames = [f for a in range(0, 1200, 7) for f in made.process(piece(data, a, min(a + 7, 1200)))]
    filtered = fit(bundle, info).chain(piece(data, 0, 1200)).data
    codes, gain, wanted = torch_codec(codec_run, filtered)
    got = np.array([frame.values for frame in frames])
    assert np.array_equal(got[:, :9].reshape(-1, 3, 3), codes)
    assert np.array_equal(got[:, 9:], gain)

    rows = np.array([frame.row for frame in frames], dtype=np.float32)
    check(far, made.tokens, "codes")
    token_info = StreamInfo(
        "codes", "codes", "CODES", made.tokens.rate, made.tokens.columns, ("misc",) * rows.shape[1], "unknown"
    )
    listener = Listener(far, OnnxRuntime().open(far), token_info, made.tokens)
    waves = [
        w for a in range(0, len(rows), 4) for w in listener.process(piece(rows, a, min(a + 4, len(rows))))
    ]
    assert np.concatenate([w.data for w in waves]) == pytest.approx(wanted, abs=1e-3)


def piece(data: np.ndarray, a: int, b: int) -> Chunk:
    return Chunk(data[a:b], a, np.arange(a, b) / SFREQ, np.ones(b - a, dtype=bool))


def torch_codec(run: Path, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes (F, C, K), gains (F, C) and the decoded signal (T, C) of samples (T, C)."""
    model = exporting.load_system(run).model
    with torch.inference_mode():
        outputs, _ = model(torch.from_numpy(data.T[:, None].copy()), model.init_state(3))
        signal, _ = model.decode(outputs["codes"], outputs["gain"])  # (C, F, hop)
    codes, gain = outputs["codes"].transpose(0, 1).numpy(), outputs["gain"].T.numpy()
    return codes, gain, signal.flatten(1).T.numpy()


def test_a_part_with_a_montage_is_put_where_it_is_asked(shards: Path, tmp_path: Path) -> None:
    """BrainRVQ's tokenizer takes the channels it is given, and its bundle codes each of them."""
    config = brainrvq_system.Config(model=brainrvq_tokenizer.SMALL)
    run = write_run(tmp_path / "run", shards, config)
    bundle = export_part(run, "tokenizer", tmp_path / "bundle", ch_names=("Fz", "Pz"), version="2")
    assert bundle.manifest.input.ch_names == ("Fz", "Pz")
    assert bundle.manifest.graph.outputs[0].shape == (1, 1, 2, 6)
    assert bundle.tokens.n_gains is None
    assert bundle.manifest.version == "2"
    own = export_part(run, "tokenizer", tmp_path / "own")
    assert own.manifest.input.ch_names == config.model.encoder.ch_names
    with OnnxRuntime().open(bundle):
        pass


def test_a_part_that_is_not_there_lists_those_that_are(codec_run: Path, tmp_path: Path) -> None:
    """Nothing is written, and the choices are named, by function and by command."""
    with pytest.raises(ConfigError, match="no part 'head': --part is one of backbone, decoder, tokenizer"):
        export_part(codec_run, "head", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    code, document = call("export", codec_run, tmp_path / "bundle")
    assert code == 2
    assert "--part backbone or decoder or tokenizer" in document["error"]["message"]


def test_parity_is_looked_at_on_recordings_too(codec_run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Beside noise of one and of several channels, segments of the held-out subject go through both."""
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(exporting, "export_step", lambda module, n_chans: (b"", describe(module, n_chans)))
    monkeypatch.setattr(exporting, "check_parity", lambda *args: seen.extend(x.shape for x in args[3]))
    monkeypatch.setattr(exporting, "write", lambda *args: None)
    export_part(codec_run, "backbone", tmp_path)
    assert [shape[:2] for shape in seen] == [(1, 1), (3, 1), (4, 1)]
    assert seen[-1][2] == 792


def test_a_montage_for_a_part_without_one_is_refused(codec_run: Path, tmp_path: Path) -> None:
    """A codec that takes each channel by itself has no channel names to be given."""
    code, document = call(
        "export", codec_run, tmp_path / "bundle", "--part", "decoder", "--ch-names", "C3,C4"
    )
    assert code == 2
    assert "leave out --ch-names" in document["error"]["message"]


@pytest.mark.parametrize("names", ["C3,,C4", "C3,C3", ""])
def test_a_list_of_names_is_a_list_of_names(codec_run: Path, tmp_path: Path, names: str) -> None:
    """Empty and repeated names are refused."""
    code, document = call("export", codec_run, tmp_path, "--part", "backbone", "--ch-names", names)
    assert code == 2
    assert "each name once" in document["error"]["message"]


def call(*args: object) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, [str(arg) for arg in args] + ["--json"])
    return result.exit_code, json.loads(result.stdout)


class Rounding(torch.nn.Module):
    """Codes each channel's hop mean; told to, it reads the rows in a way that fixes them."""

    hop, left_context, delay, n_chans, per_channel = 4, 0, 0, 1, True

    def __init__(self, *, fixed: bool = False) -> None:
        super().__init__()
        self.fixed = fixed

    def init_state(self, batch: int) -> Any:
        return torch.zeros(batch, 1), torch.zeros(batch, 3, 0)

    def forward(self, x: Any, state: Any) -> Any:
        level, empty = state
        parts = x.unflatten(-1, (-1, self.hop)).mean(-1).transpose(1, 2)  # (B, F, 1)
        for frame in parts.unbind(1):
            level = 0.5 * level + frame
        if self.fixed:
            parts = parts.reshape(len(parts), -1, 1)
        return {"codes": parts.round().long()}, (level, empty)


def test_state_without_elements_is_no_tensor_of_the_graph() -> None:
    """A layer that needs no past does not show; values, state and codes are the model's at any rows."""
    model = Rounding().eval()
    graph, content = describe(model, 1), step_graph(model, 1)
    assert [state.shape for state in graph.state] == [(1, 1)]
    assert graph.outputs[0].dtype == "int64"
    assert check_parity(model, content, graph, [noise(model, 1, rows, 20.0) for rows in (1, 2, 5)]) < 1e-5


def test_a_graph_that_fixes_its_rows_is_refused() -> None:
    """What the exporter settles quietly for the rows of its example is not exported."""
    with pytest.raises(BundleError, match="fixes the first dimension"):
        step_graph(Rounding(fixed=True).eval(), 1)


@pytest.mark.parametrize(("fixed", "rows"), [(False, "free"), (True, "one")])
def test_the_manifest_says_whether_the_rows_are_free(fixed: bool, rows: str) -> None:
    """A part that is no channel's takes any number of streams, or where torch fixes them one stream."""
    model = Rounding(fixed=fixed).eval()
    model.per_channel = False
    content, graph = export_step(model, 1)
    assert graph.rows == rows
    signals = probes(model, 1, graph, 20.0)
    assert [len(signal) for signal in signals] == ([1, 3] if rows == "free" else [1])
    assert check_parity(model, content, graph, signals) < 1e-5


def test_one_other_code_is_refused() -> None:
    """Codes are compared as numbers, not as near enough."""
    model = Rounding().eval()
    graph, content = describe(model, 1), step_graph(model, 1)

    class Off(Rounding):
        def forward(self, x: Any, state: Any) -> Any:
            outputs, state = super().forward(x, state)
            codes = outputs["codes"].clone()
            codes[0, 7, 0] += 1
            return {"codes": codes}, state

    with pytest.raises(BundleError, match="1 of 20 integers of codes are not the model's"):
        check_parity(Off().eval(), content, graph, [noise(model, 1, 1, 20.0)])


def test_a_code_at_a_tie_may_be_either() -> None:
    """Where the mean lies on the border of two codes the graph may name the other one, once in a thousand."""

    class Up(Rounding):
        def forward(self, x: Any, state: Any) -> Any:
            mean = x.unflatten(-1, (-1, self.hop)).mean(-1).transpose(1, 2)
            outputs, state = super().forward(x, state)
            return {"codes": torch.where(mean == 2.5, 3, outputs["codes"])}, state  # round() gives 2

    model = Rounding().eval()
    graph, content = describe(model, 1), step_graph(model, 1)
    signal = np.repeat(np.arange(1000, dtype=np.float32) % 7, 4)[None, None]
    signal[..., 80:84] = 2.5
    check_parity(Up().eval(), content, graph, [signal])
    with pytest.raises(BundleError, match=r"2 of 1000 integers of codes .* 2 of them ties"):
        check_parity(
            Up().eval(), content, graph, [np.where(np.arange(4000) // 4 == 30, np.float32(2.5), signal)]
        )
