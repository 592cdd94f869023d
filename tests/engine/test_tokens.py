"""Codes depend on the samples alone: not on how they came, nor on which other channels there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_codec import CODEC, DIM, HOP, N_CODEBOOKS, SFREQ, write_decoder, write_tokenizer
from typer.testing import CliRunner

from engine.adapt import fit
from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, load
from engine.cli import app
from engine.config import TokensConfig, parse, parse_as
from engine.live import run_config
from engine.session import Observer
from engine.token_files import open_file
from engine.token_stream import LAST_FRAME, TokenFrame, TokenInfo, from_lsl, next_frame, to_lsl
from engine.tokens import Tokenizer, run_tokens
from streamer.errors import BciError, BundleError, ConfigError, StreamMismatch
from streamer.types import Chunk, StreamInfo

NAMES = ("Fz", "C3", "Cz", "C4")
N = 700


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load(write_tokenizer(tmp_path_factory.mktemp("codec") / "tokenizer"))


def stream(names: Sequence[str] = NAMES, sfreq: float = SFREQ, unit: str = "uV") -> StreamInfo:
    return StreamInfo("amp", "amp-1", "EEG", sfreq, tuple(names), ("eeg",) * len(names), unit)


def samples(n: int = N, n_chans: int = len(NAMES), seed: int = 3) -> np.ndarray:
    return (30 * np.random.default_rng(seed).normal(size=(n, n_chans))).astype(np.float32)


def chunks(data: np.ndarray, cuts: Sequence[int], start: int = 0, *, broken: bool = False) -> Iterator[Chunk]:
    for i, (a, b) in enumerate(pairwise([0, *sorted(cuts), len(data)])):
        times = (start + np.arange(a, b)) / SFREQ
        yield Chunk(data[a:b], start + a, times, np.ones(b - a, dtype=bool), broken and i == 0)


def tokenizer(bundle: Bundle, info: StreamInfo | None = None, publish: Any = "codes") -> Tokenizer:
    info = info or stream()
    fitted = fit(bundle, info)
    sized = bundle.sized(fitted.ch_names)
    return Tokenizer(sized, OnnxRuntime().open(sized), info, fitted, publish)


def coded(made: Tokenizer, parts: Iterator[Chunk]) -> list[tuple[Any, ...]]:
    return [
        (f.index, f.time, f.frame, f.invalid, *f.values.tolist())
        for part in parts
        for f in made.process(part)
    ]


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, N), max_size=40))
def test_any_chunking_gives_the_same_codes(bundle: Bundle, cuts: list[int]) -> None:
    """Whatever the chunks, every row is the same, stamps and counts included."""
    whole = coded(tokenizer(bundle), chunks(samples(), []))
    assert len(whole) == N // HOP
    assert coded(tokenizer(bundle), chunks(samples(), cuts)) == whole


@pytest.mark.parametrize("n_chans", [1, 4, 22])
def test_a_channel_is_coded_alike_in_any_montage(bundle: Bundle, n_chans: int) -> None:
    """With 1, 4 or 22 channels, the codes of each are those that it has alone."""
    data = samples(n_chans=22)[:, :n_chans]
    names = [f"E{i}" for i in range(n_chans)]
    together = coded(tokenizer(bundle, stream(names)), chunks(data, [100]))
    for i, name in enumerate(names):
        alone = coded(tokenizer(bundle, stream([name])), chunks(data[:, i : i + 1], []))
        first = 4 + i * N_CODEBOOKS
        gain = 4 + n_chans * N_CODEBOOKS + i
        assert [(*row[first : first + N_CODEBOOKS], row[gain]) for row in together] == [
            row[4:] for row in alone
        ]


def test_a_discontinuity_is_a_fresh_start_that_shows(bundle: Bundle) -> None:
    """After a hole the rows are those of a new tokenizer, counted from 0 again, and the reset is counted."""
    used = tokenizer(bundle)
    before = coded(used, chunks(5 * samples(500), []))
    after = coded(used, chunks(samples(), [77], start=25_000, broken=True))
    assert [row[2] for row in before] == list(range(500 // HOP))
    assert after == coded(tokenizer(bundle), chunks(samples(), [], start=25_000))
    assert after[0][2] == 0
    assert used.resets == 1


def test_a_row_is_stamped_with_the_last_sample_of_its_frame(bundle: Bundle) -> None:
    """Frame k ends at sample 12 k + 11."""
    for k, row in enumerate(coded(tokenizer(bundle), chunks(samples(), []))):
        assert row[:2] == (HOP * k + HOP - 1, pytest.approx((HOP * k + HOP - 1) / SFREQ))


def test_bad_samples_are_told_in_percent_rounded_up(bundle: Bundle) -> None:
    """One bad sample among the 48 that a code depends on is 3 percent for as long as it matters."""
    (chunk,) = chunks(samples(120), [])
    valid = chunk.valid.copy()
    valid[60] = False
    frames = list(tokenizer(bundle).process(replace(chunk, valid=valid)))
    assert [frame.row[-1] for frame in frames] == [0, 0, 0, 0, 0, 3, 3, 3, 3, 0]
    assert [frame.valid for frame in frames] == [True] * 5 + [False] * 4 + [True]


def test_the_count_never_returns_to_0_by_itself() -> None:
    """0 means a reset and nothing else, and every count fits into 16 bits."""
    assert next_frame(None) == 0
    assert next_frame(0) == 1
    assert next_frame(LAST_FRAME) == 1


def test_what_is_no_electrode_is_left_out(bundle: Bundle) -> None:
    """A trigger channel beside the electrodes is not coded, and that is said."""
    info = replace(stream((*NAMES, "TRIG")), ch_types=(*["eeg"] * len(NAMES), "stim"))
    made = tokenizer(bundle, info)
    assert made.tokens.ch_names == NAMES
    assert "channels picked by name" in made.notes
    data = np.column_stack([samples(), np.full(N, 1e4, np.float32)])
    assert coded(made, chunks(data, [])) == coded(tokenizer(bundle), chunks(samples(), []))


def test_unit_and_rate_are_adapted(bundle: Bundle) -> None:
    """A stream in mV at 500 Hz is scaled and resampled, as for decisions."""
    notes = " / ".join(tokenizer(bundle, stream(sfreq=500.0, unit="mV")).notes)
    assert "mV" in notes
    assert "500 to 250 Hz" in notes


def test_latents_are_published_as_they_are(bundle: Bundle) -> None:
    """With publish: latent, a row holds each channel's latent, and the stream is float32."""
    made = tokenizer(bundle, publish="latent")
    assert made.tokens.dtype == "float32"
    assert made.tokens.columns == (
        "Fz-1", "Fz-2", "C3-1", "C3-2", "Cz-1", "Cz-2", "C4-1", "C4-2", "frame", "invalid",
    )  # fmt: skip
    for row in coded(made, chunks(samples(), [])):
        assert row[4::2] == tuple(-value for value in row[5::2])


@pytest.mark.parametrize("publish", ["codes", "latent"])
def test_a_stream_describes_itself(bundle: Bundle, publish: Any) -> None:
    """What the far end reads in the stream's description is what was said."""
    import pylsl

    info = tokenizer(bundle, publish=publish).tokens
    described = to_lsl(info, "codes")
    assert from_lsl(described) == info
    assert described.nominal_srate() == pytest.approx(SFREQ / HOP)
    assert described.channel_format() == (pylsl.cf_int16 if publish == "codes" else pylsl.cf_float32)
    assert tuple(described.get_channel_labels()) == info.columns


def test_codes_beyond_16_bits_get_32() -> None:
    """The format is the smallest that holds every code."""
    info = TokenInfo(
        bundle="x", version="1", publish="codes", ch_names=("C3",), stype="EEG", unit="uV", sfreq=250.0,
        hop=10, codec=CODEC, n_codebooks=1, codebook_size=32768,
    )  # fmt: skip
    assert info.dtype == "int16"
    assert info.model_copy(update={"codebook_size": 32769}).dtype == "int32"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Eight seconds of noise in the project's own format."""
    path = tmp_path / "noise.npz"
    np.savez(
        path,
        data=np.round(10 * samples(2000)).astype(np.int16).T,
        scale=np.full(len(NAMES), 0.1),
        offset=np.zeros(len(NAMES)),
        sfreq=SFREQ,
        units="uV",
        ch_names=np.array(NAMES),
        ch_types=np.array(["eeg"] * len(NAMES)),
        meta=json.dumps({}),
    )
    return path


def config(bundle: Bundle | Path, recording: Path, **more: Any) -> TokensConfig:
    folder = bundle.folder if isinstance(bundle, Bundle) else bundle
    source = {"kind": "recording", "path": str(recording), **more.pop("source", {})}
    return parse_as(TokensConfig, {"source": source, "bundle": str(folder), "lsl": False, **more}, "test")


def test_files_hold_what_was_coded(bundle: Bundle, recording: Path, tmp_path: Path) -> None:
    """Lines and archive hold every row; whatever the chunks, the same bytes."""
    heard: list[TokenFrame] = []
    written = set()
    for chunk in (1, 7, 2000):
        lines = tmp_path / f"{chunk}.jsonl"
        more = {"source": {"chunk": chunk}, "file": str(lines)}
        report = run_tokens(config(bundle, recording, **more))
        assert report["frames"] == 2000 // HOP
        written.add(lines.read_bytes())
    (content,) = written
    header, *rows = map(json.loads, content.decode().splitlines())
    run_tokens(config(bundle, recording, file=str(tmp_path / "codes.npz")), extra=Observer(heard.append))
    archive = np.load(tmp_path / "codes.npz")
    assert TokenInfo.model_validate(header) == TokenInfo.model_validate_json(str(archive["info"]))
    assert [row["values"] for row in rows] == [frame.values.tolist() for frame in heard]
    assert archive["codes"].dtype == np.int16
    assert archive["codes"].shape == (2000 // HOP, len(NAMES), N_CODEBOOKS)
    both = np.concatenate([archive["codes"].reshape(len(rows), -1), archive["gain"]], axis=1)
    assert both.tolist() == [row["values"] for row in rows]
    assert archive["index"].tolist() == [row["index"] for row in rows]


def test_the_command_reports_in_one_document(bundle: Bundle, recording: Path, tmp_path: Path) -> None:
    """The bit rate and the counts stand in the report."""
    path = tmp_path / "tokens.yaml"
    path.write_text(f"source: {{kind: lsl}}\nbundle: {bundle.folder}\nlsl: false\n")
    result = CliRunner().invoke(app, ["tokens", str(path), "--file", str(recording), "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["bit_s"]["codes_per_channel"] == 500.0
    assert report["samples_in"] == 2000
    assert report["ended"] == "end of stream"


def test_the_person_is_told_the_rate(bundle: Bundle, recording: Path) -> None:
    """Before the first frame, what a channel and the whole stream cost."""
    lines: list[str] = []
    run_tokens(config(bundle, recording), say=lines.append)
    assert any("500 bit/s a channel" in line and "2.583 kbit/s" in line for line in lines)


def test_what_a_bundle_does_not_put_out_is_refused(
    bundle: Bundle, toy_folder: Path, recording: Path, tmp_path: Path
) -> None:
    """Each command names what the bundle is for and what was asked of it."""
    decoder = write_decoder(tmp_path / "decoder")
    with pytest.raises(BundleError, match=r"toy 1 puts out decisions.*; codes are asked"):
        run_tokens(config(toy_folder, recording))
    with pytest.raises(BundleError, match="puts out a waveform from codes, for `bcistream listen`"):
        run_tokens(config(decoder, recording))
    with pytest.raises(BundleError, match="no latent: leave out publish: latent"):
        run_tokens(config(toy_folder, recording, publish="latent"))
    with pytest.raises(BundleError, match="puts out codes, for `bcistream tokens`; decisions are asked"):
        run_config(parse({"source": {"kind": "recording", "path": str(recording)},
                          "bundle": str(bundle.folder)}, "test"))  # fmt: skip


def test_too_many_channels_are_refused(bundle: Bundle) -> None:
    """A bundle for any montage has a limit, and says which."""
    with pytest.raises(StreamMismatch, match="takes 1 to 512 channels; there are 513"):
        tokenizer(bundle, stream([f"E{i}" for i in range(513)]))


@pytest.mark.parametrize("publish", ["codes", "latent"])
def test_a_session_without_a_frame_leaves_an_empty_archive(
    bundle: Bundle, tmp_path: Path, publish: Any
) -> None:
    """Stopped before its first frame, a session closes in order, and its file keeps the shapes."""
    info = tokenizer(bundle, publish=publish).tokens
    open_file(tmp_path / "none.npz", info).close()
    width = N_CODEBOOKS if publish == "codes" else DIM
    assert np.load(tmp_path / "none.npz")[publish].shape == (0, len(NAMES), width)


def test_a_file_that_is_there_is_not_written_over(bundle: Bundle, recording: Path, tmp_path: Path) -> None:
    """An archive of an earlier session stays what it is."""
    path = tmp_path / "codes.npz"
    path.write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"cannot be written to .*codes\.npz.*Choose another 'file'"):
        run_tokens(config(bundle, recording, file=str(path)))
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"file": "codes.csv"}, ".jsonl or .npz"),
        ({"publish": "words"}, "publish"),
        ({"sinks": []}, "'sinks' is a key for `bcistream run`, not for this command"),
        ({"bundel": "x"}, "Did you mean 'bundle'?"),
        ({"max_gap_s": 5}, "max_gap_s"),
    ],
)
def test_a_wrong_config_is_refused_in_words(
    bundle: Bundle, recording: Path, more: dict[str, Any], said: str
) -> None:
    """The message names the place of the fault and what to write instead."""
    with pytest.raises(BciError) as error:
        config(bundle, recording, **more)
    assert said in str(error.value)
