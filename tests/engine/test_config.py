"""A YAML is taken whole, or every fault in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import read
from streamer.errors import ConfigError

GOOD = """
source: {kind: lsl, stype: EEG}
bundle: motor-imagery
sinks: [{kind: lsl}]
"""


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_good_config_has_defaults(tmp_path: Path) -> None:
    """Three lines suffice."""
    config = read(written(tmp_path, GOOD))
    assert config.backend.kind == "onnxruntime"
    assert config.late == "catch_up"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected keys"),
        ("just words", "expected keys"),
        ("a: [1, 2", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        (b"\xff\xfe\x00", "not a text file"),
        ("a: 2024-13-45", "is not YAML"),
        (GOOD + "name: ''", "name"),
        (GOOD.replace("bundle: motor-imagery", ""), "bundle"),
        (GOOD + "bundel: x", "Did you mean 'bundle'?"),
        (GOOD.replace("kind: lsl, stype", "kind: lsll, stype"), "lsll"),
        (GOOD.replace("stype: EEG", "stipe: EEG"), "source.stipe"),
        (GOOD + "max_gap_s: -1", "max_gap_s"),
        (GOOD + "late: never", "late"),
        (GOOD + "decision: {threshold: 0.3, release: 0.9}", "must not exceed"),
        (GOOD.replace("[{kind: lsl}]", "[{kind: lsl}, {kind: jsonl}]"), "sinks[1].path"),
        (GOOD + "backend: {kind: onnxruntime, threads: 0}", "backend.threads"),
    ],
)
def test_a_bad_config_is_refused_in_words(tmp_path: Path, text: str | bytes, said: str) -> None:
    """The message names the file and the place of the fault."""
    with pytest.raises(ConfigError) as error:
        read(written(tmp_path, text))
    assert "run.yaml" in str(error.value)
    assert said in str(error.value)


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Three faults give three lines."""
    with pytest.raises(ConfigError) as error:
        read(written(tmp_path, "source: {kind: lsl, x: 1}\nbundle: 3\nmax_gap_s: soon\n"))
    assert all(path in str(error.value) for path in ("source.x", "bundle", "max_gap_s"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """No such file is one sentence."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.yaml")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(GOOD) - 1), junk=st.text(max_size=4))
def test_any_mutation_is_refused_or_harmless(tmp_path: Path, at: int, junk: str) -> None:
    """Whatever is typed into the file, nothing but ConfigError comes out."""
    path = written(tmp_path, (GOOD[:at] + junk + GOOD[at + 1 :]).encode("utf-8", "surrogatepass"))
    try:
        read(path)
    except ConfigError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is fine
