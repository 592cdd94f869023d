"""Reconstruction reports: what is measured is what the far end would hear."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import write_run
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from offline import reconstruct as module  # noqa: E402
from offline.blocks.quantize import CodeUse  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.data.sources import Folder  # noqa: E402
from offline.probe.features import Signal  # noqa: E402
from offline.probe.tasks import read_sessions  # noqa: E402
from offline.reconstruct import Codec, Tally, decode, encode, measure, reconstruct, report, shared  # noqa: E402
from streamer.errors import ConfigError, RecordingError  # noqa: E402

CHANNELS = ("C3", "Cz", "C4")
HOP, STEP_UV = 4, 0.5


class Linear:
    """A tokenizer whose codes are the samples in steps of `STEP_UV`, offset to be positive."""

    per_channel, hop, n_codebooks, codebook_size = True, HOP, HOP, 1024

    def init_state(self, _rows: int) -> tuple[()]:
        return ()

    def __call__(self, x: Any, state: Any) -> Any:
        codes = (x[:, 0] / STEP_UV).round().long() + 512
        codes = codes.clamp(0, 1023).reshape(len(x), -1, HOP)
        return {"codes": codes, "gain": torch.zeros(codes.shape[:2], dtype=torch.int64)}, state


class Inverse:
    """Its decoder; codes that are not sent are silence."""

    def init_state(self, _rows: int) -> tuple[()]:
        return ()

    def __call__(self, x: Any, state: Any) -> Any:
        signal = torch.zeros(len(x), x.shape[-1], HOP)
        signal[..., : x.shape[1] - 1] = (x[:, :-1].transpose(1, 2) - 512) * STEP_UV
        return {"signal": signal}, state


class Run:
    """What the measurement asks a run for."""

    stype, sfreq = "EEG", 160.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, run_writer: Callable[..., Path]) -> Path:
    """Two subjects with one run each, the second quieter by half."""
    folder = tmp_path_factory.mktemp("recordings")
    for i, subject in enumerate(("B1", "B2")):
        run_writer(folder / subject / f"{subject}R1.npz", seed=70 + i, n_trials=2, channels=CHANNELS)
    return folder


@pytest.fixture
def perfect() -> Codec:
    return Codec(Run(), Linear(), Inverse(), Signal(CHANNELS, 160.0, ()))  # type: ignore[arg-type]


def measured(codec: Codec, corpus: Path) -> dict[str, Any]:
    tally = Tally(CodeUse(codec.tokenizer.codebook_size))
    for session in read_sessions(Folder(path=corpus), ["B1-B2"], "EEG"):
        measure(codec, session, tally)
    return report(codec, tally)


def test_a_perfect_codec_scores_so(perfect: Codec, corpus: Path) -> None:
    """Half a microvolt of rounding leaves r at 1 and little distortion; fewer levels are worse."""
    figures = measured(perfect, corpus)
    assert figures["pearson_r"]["mean"] > 0.9995
    assert figures["si_sdr"]["mean"] > 30
    assert figures["lsd"]["mean"] < 1.0
    assert min(figures["r_by_band"].values()) > 0.99
    rs = [level["pearson_r"] for level in figures["levels"]]
    assert rs == sorted(rs)
    assert rs[0] < 0.9


def test_any_electrodes_can_be_scored(corpus: Path) -> None:
    """Scored are the channels trained on where every recording has them, else those that all share."""
    sessions = read_sessions(Folder(path=corpus), ["B1-B2"], "EEG")
    assert shared(("C4", "C3"), sessions) == ("C4", "C3")
    assert shared(("TP9", "C3"), sessions) == CHANNELS


def test_bits_are_counted(perfect: Codec, corpus: Path) -> None:
    """The rate sent is levels times bits times frames; a constant gain carries no information."""
    figures = measured(perfect, corpus)
    assert figures["bit_rate"]["codes"] == 4 * 10 * 40
    assert figures["levels"][1]["bit_rate"] == 2 * 10 * 40
    sums = sum(np.log2(level["perplexity"]) for level in figures["levels"])
    assert figures["bit_rate"]["entropy"] == pytest.approx(sums * 40, rel=1e-2)
    assert all(0 < level["used"] <= 1 for level in figures["levels"])


def test_worst_is_worst(perfect: Codec, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that is decoded badly is named as the worst in every measure, and drags its mean down."""

    class Bad(Inverse):
        def __call__(self, x: Any, state: Any) -> Any:
            outputs, state = super().__call__(x, state)
            noise = torch.randn(outputs["signal"][1].shape, generator=torch.Generator().manual_seed(0))
            outputs["signal"][1] += 20 * noise
            return outputs, state

    figures = measured(Codec(perfect.run, perfect.tokenizer, Bad(), perfect.signal), corpus)
    for name in ("pearson_r", "si_sdr", "lsd"):
        assert figures[name]["worst_channel"] == "Cz"
        assert figures[name]["worst_channel_mean"] == figures["per_channel"]["Cz"][name]
    assert figures["per_channel"]["C3"]["pearson_r"] > 0.999


def test_silent_stretches_are_counted_not_scored(perfect: Codec, corpus: Path, tmp_path: Path) -> None:
    """Zero padding at the end of a recording has no correlation: it is left out of the means and counted."""
    source = corpus / "B1" / "B1R1.npz"
    with np.load(source) as file:
        content = dict(file)
    content["data"] = np.concatenate([content["data"], np.zeros_like(content["data"])], axis=1)
    (tmp_path / "B1").mkdir()
    np.savez(tmp_path / "B1" / "B1R1.npz", **content)
    (session,) = read_sessions(Folder(path=tmp_path), ["B1"], "EEG")
    tally = Tally(CodeUse(1024))
    measure(perfect, session, tally)
    assert tally.silent >= 3 * 2  # channels, whole segments of padding
    assert report(perfect, tally)["pearson_r"]["mean"] > 0.9995


@pytest.fixture(scope="module")
def tiny_codec(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what writes the run folder of a tiny untrained codec that has seen these recordings."""
    from offline.models import biocodec

    def make(fingerprints: tuple[str, ...], kind: str = "biocodec") -> Path:
        return write_run(
            tmp_path_factory.mktemp("codec"),
            {"kind": kind, "model": biocodec.SMALL.model_dump(), "n_ffts": [16]},
            sfreq=160.0,
            ch_names=CHANNELS,
            dsp=[{"kind": "bandpass", "low": 2.0, "high": 30.0, "order": 2}],
            fingerprints=fingerprints,
        )

    return make


def test_the_stepped_codec_is_the_whole_codec(
    tiny_codec: Callable[..., Path], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coded and decoded a few frames at a time, codes and signal are those of one call."""
    codec = module.load_codec(tiny_codec(()))
    session = read_sessions(Folder(path=corpus), ["B1"], "EEG")[0]
    original, codes, gain = encode(codec, session)
    signal = decode(codec, codes, gain)
    monkeypatch.setattr(module, "HOPS", 7)
    again, codes_again, gain_again = encode(codec, session)
    assert torch.equal(original, again)
    assert torch.equal(codes, codes_again)
    assert torch.equal(gain, gain_again)
    torch.testing.assert_close(decode(codec, codes, gain), signal, atol=1e-3, rtol=1e-4)
    assert signal.shape == original.shape


def test_recordings_trained_on_are_left_out(tiny_codec: Callable[..., Path], corpus: Path) -> None:
    """What had a part in the weights is known by its content, listed, and alone is nothing to measure."""
    known = read_sessions(Folder(path=corpus), ["B1"], "EEG")[0].fingerprint
    document = reconstruct(tiny_codec((known,)), Folder(path=corpus), ["B1-B2"])
    assert document["excluded"] == ["B1/B1R1"]
    assert list(document["per_subject"]) == ["B2"]
    with pytest.raises(RecordingError, match="All 1 recordings had a part"):
        reconstruct(tiny_codec((known,)), Folder(path=corpus), ["B1"])


def test_recordings_without_a_segment_are_named_not_scored(
    tiny_codec: Callable[..., Path], corpus: Path, run_writer: Callable[..., Path], tmp_path: Path
) -> None:
    """A recording of less than a segment is left out by name; where there is no other, that is the error."""
    run_writer(tmp_path / "B1" / "B1R1.npz", seed=80, n_trials=1, channels=CHANNELS, cut_s=6.0)
    shutil.copytree(corpus / "B2", tmp_path / "B2")
    document = reconstruct(tiny_codec(()), Folder(path=tmp_path), ["B1-B2"], picture=tmp_path / "codec.png")
    assert document["too_short"] == ["B1/B1R1"]
    assert (document["n_recordings"], list(document["per_subject"])) == (1, ["B2"])
    with pytest.raises(RecordingError, match="of signal: nothing to judge"):
        reconstruct(tiny_codec(()), Folder(path=tmp_path), ["B1"])


def test_the_command_reports_and_draws(tiny_codec: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    """The command prints one JSON document and writes the picture it is asked for."""
    picture = tmp_path / "codec.png"
    arguments = [str(tiny_codec(())), "--data", str(corpus), "--subjects", "B1-B2", "--picture", str(picture)]
    result = CliRunner().invoke(app, ["reconstruct", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["n_recordings"] == 2
    assert len(document["levels"]) == 3
    assert picture.stat().st_size > 20_000


def test_options_that_cannot_be_used_are_refused(corpus: Path) -> None:
    """A pattern that is none, or a step of no microvolts, is one message and exit code 2."""
    for option, value in (("--subject-pattern", "(S"), ("--uv-per-count", "-1")):
        arguments = ["runs/none", "--data", str(corpus), "--subjects", "B1", option, value]
        result = CliRunner().invoke(app, ["reconstruct", *arguments, "--json"])
        assert result.exit_code == 2
        assert "options cannot be used" in json.loads(result.stdout)["error"]["message"]


def test_a_run_that_is_no_codec_is_refused(
    tiny_codec: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system without a decoder cannot give a signal back, and the message says what it has."""

    class Mute:
        def parts(self) -> dict[str, Any]:
            return {"backbone": None}

    folder = tiny_codec(())
    monkeypatch.setattr(module, "load_system", lambda _folder: Mute())
    with pytest.raises(ConfigError, match="with the parts backbone"):
        module.load_codec(folder)
