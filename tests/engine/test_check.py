"""What is checked is what the config's own command would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_codec import CODEC, HOP, SFREQ, write_decoder, write_tokenizer
from typer.testing import CliRunner

from engine.bundle import load
from engine.cli import app
from engine.token_stream import to_lsl
from engine.tokens import describe

NAMES = ("C3", "Cz", "C4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("codec")
    write_tokenizer(made / "tokenizer")
    write_decoder(made / "decoder")
    return made


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Four seconds at twice the codec's rate."""
    path = tmp_path / "noise.npz"
    np.savez(
        path,
        data=np.zeros((len(NAMES), 2000), np.int16),
        scale=np.ones(len(NAMES)),
        offset=np.zeros(len(NAMES)),
        sfreq=2 * SFREQ,
        units="uV",
        ch_names=np.array(NAMES),
        ch_types=np.array(["eeg"] * len(NAMES)),
        meta=json.dumps({}),
    )
    return path


def checked(tmp_path: Path, text: str, *args: object) -> tuple[int, dict[str, Any]]:
    """Check a config with this text; return exit code and document."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["check", str(path), *map(str, args), "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("more", ["", "lsl: false\n", "publish: latent\n"])
def test_a_config_of_tokens_is_checked(folder: Path, recording: Path, tmp_path: Path, more: str) -> None:
    """Told by its bundle or its keys: how the stream is adapted, what comes out, and how late."""
    text = f"source: {{kind: lsl}}\nbundle: {folder / 'tokenizer'}\n{more}"
    code, report = checked(tmp_path, text, "--file", recording)
    assert code == 0
    assert report["command"] == "bcistream tokens"
    assert (report["channels"], report["sfreq"]) == (len(NAMES), 2 * SFREQ)
    assert report["adapted"] == ["resampled from 500 to 250 Hz"]
    assert report["algorithmic_delay"]["hop_ms"] == 1e3 * HOP / SFREQ


def test_nothing_is_written(folder: Path, recording: Path, tmp_path: Path) -> None:
    """The file that a session would keep is not touched."""
    kept = tmp_path / "codes.npz"
    text = f"source: {{kind: lsl}}\nbundle: {folder / 'tokenizer'}\nfile: {kept}\n"
    assert checked(tmp_path, text, "--file", recording)[0] == 0
    assert not kept.exists()


@pytest.mark.usefixtures("lsl_session")
def test_a_config_of_listening_is_checked(folder: Path, tmp_path: Path) -> None:
    """The token stream is looked at: whose codes, how many channels, at which rate."""
    import pylsl

    info = describe(load(folder / "tokenizer").sized(NAMES), "codes")
    outlet = pylsl.StreamOutlet(to_lsl(info, "codes-to-check"))
    text = f"source: {{kind: lsl, name: codes-to-check}}\nbundle: {folder / 'decoder'}\n"
    code, report = checked(tmp_path, text)
    del outlet
    assert code == 0
    assert report["command"] == "bcistream listen"
    assert (report["codec"], report["ch_names"]) == (CODEC, list(NAMES))


@pytest.mark.parametrize(
    ("bundle", "more", "kind", "said"),
    [
        ("decoder", "publish: codes\n", "BundleError", "codes are asked"),
        ("tokenizer", "sinks: []\n", "BundleError", "decisions are asked"),
        ("decoder", "", "ConfigError", "A recording holds no codes"),
        ("tokenizer", "bundel: x\n", "ConfigError", "Did you mean 'bundle'?"),
        ("nothing", "", "BundleError", "No bundle"),
    ],
)
def test_what_would_not_run_is_refused(
    folder: Path, recording: Path, tmp_path: Path, bundle: str, more: str, kind: str, said: str
) -> None:
    """With the message of the command itself."""
    text = f"source: {{kind: lsl}}\nbundle: {folder / bundle}\n{more}"
    code, document = checked(tmp_path, text, "--file", recording)
    assert code == 2
    assert document["error"]["type"] == kind
    assert said in document["error"]["message"]
