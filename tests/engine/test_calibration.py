"""A calibration is for one bundle and one person: anything else is refused in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_bundle import CHANNELS
from toy_head import LATENTS, head, source, write_headed

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.bundle import Bundle, load
from engine.calibration import Calibration, MadeOf, check, read, tied_to, write
from engine.head import Head, pack, source_head
from engine.pipeline import Pipeline
from streamer.errors import BciError, BundleError, ConfigError
from streamer.types import Chunk, Decision, StreamInfo

SFREQ = 160.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load(write_headed(tmp_path_factory.mktemp("headed") / "bundle"))


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Iterator[OnnxRuntimeBackend]:
    with OnnxRuntime().open(bundle) as opened:
        yield opened


def made(bundle: Bundle, new: Head | None) -> Calibration:
    return Calibration(
        bundle=tied_to(bundle),
        method="tested",
        reason="a test",
        made_of=MadeOf(stream="s", seconds=1.0, trials={"left_fist": 2}),
        weight=tuple(map(tuple, new.weight.tolist())) if new else None,
        bias=tuple(new.bias.tolist()) if new else None,
    )


def decide(
    bundle: Bundle, backend: OnnxRuntimeBackend, chunk: int, new: Calibration | None
) -> list[Decision]:
    info = StreamInfo("amp", "amp", "EEG", SFREQ, CHANNELS, ("eeg",) * len(CHANNELS), "uV")
    data = (20 * np.random.default_rng(3).normal(size=(900, len(CHANNELS)))).astype(np.float32)
    pipeline = Pipeline(bundle, backend, info, calibration=new)
    decisions = []
    for start in range(0, len(data), chunk):
        part = data[start : start + chunk]
        times = (start + np.arange(len(part))) / SFREQ
        decisions += list(pipeline.process(Chunk(part, start, times, np.ones(len(part), dtype=bool))))
    return decisions


def test_the_head_of_the_file_is_the_head_of_the_graph(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """A calibration with the bundle's own head gives the bundle's own probabilities."""
    own = decide(bundle, backend, 32, None)
    same = decide(bundle, backend, 32, made(bundle, source_head(bundle).head))
    for one, other in zip(own, same, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_another_head_decides_alike_in_any_chunks(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """With a calibration, too, the chunks do not matter, bit for bit; and it does decide otherwise."""
    turned = Head(-head().weight, head().bias)
    new = made(bundle, turned)
    whole = decide(bundle, backend, 900, new)
    assert decide(bundle, backend, 7, new) == whole
    assert decide(bundle, backend, 7, None) != whole


def test_a_kept_head_changes_no_bit(bundle: Bundle, backend: OnnxRuntimeBackend) -> None:
    """A file that kept the bundle's head decides as no file does."""
    assert decide(bundle, backend, 32, made(bundle, None)) == decide(bundle, backend, 32, None)


def test_a_file_comes_back_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    """Every digit of the head survives the file, and nothing else is left beside it."""
    one = made(bundle, head())
    write(one, tmp_path / "new" / "calibration.json")
    assert read(tmp_path / "new" / "calibration.json") == one
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["calibration.json"]


def test_a_calibration_of_another_bundle_is_refused(
    bundle: Bundle, backend: OnnxRuntimeBackend, tmp_path: Path
) -> None:
    """Other weights of the same name are another bundle; another card is not."""
    other = load(write_headed(tmp_path / "other", pack(source(centred=True))))
    with pytest.raises(ConfigError, match=r"toy 1 .*not for toy 1 of other content"):
        decide(bundle, backend, 32, made(other, head()))
    folder = write_headed(tmp_path / "card")
    (folder / "MODEL_CARD.md").write_text("# changed")
    manifest = json.loads((folder / "bundle.json").read_bytes())
    manifest["title"] = "changed"
    (folder / "bundle.json").write_text(json.dumps(manifest))
    check(made(bundle, head()), load(folder))


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"temperature": 2.0}, True),
        ({"classes": ["rest", "right_fist", "left_fist"]}, True),
        ({"idle": None}, True),
        ({"decision": {"kind": "evidence"}}, False),
        ({"operating": [{"false_per_min": 1.0, "bound": 0.5, "hits": 0.5, "wrong": 0.1}]}, False),
    ],
)
def test_what_the_logits_mean_ties_a_calibration(
    bundle: Bundle, tmp_path: Path, changed: dict[str, object], refused: bool
) -> None:
    """With another temperature, other classes or idle a head is refused; how it is decided is free."""
    folder = write_headed(tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_bytes())
    manifest["readout"] |= changed
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="of other content") if refused else nullcontext():
        check(made(bundle, head()), load(folder))


def test_a_head_of_another_shape_is_refused(bundle: Bundle) -> None:
    """A file that was tied to the bundle by hand still has to fit its latent."""
    with pytest.raises(ConfigError, match=r"head is \(3, 5\), bundle toy 1 takes \(3, 3\)"):
        check(made(bundle, Head(np.zeros((3, 5)), np.zeros(3))), bundle)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_file_gives_a_message(
    bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut short, overwritten or with other values: nothing but a message, or a file that is sound."""
    content = bytearray(made(bundle, head()).model_dump_json().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=6))
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(ConfigError):
        check(read(path), bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format '2', expected 1"),
        ({"format": True}, "format 'True'"),
        ({"weight": None}, "go together"),
        ({"weight": [[1, 2], [1], [0]]}, "rows of"),
        ({"weight": []}, "rows of"),
        ({"bias": [1, 2, float("nan")]}, "finite"),
        ({"bundle": "toy"}, "bundle"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_each_fault_is_named(bundle: Bundle, tmp_path: Path, change: dict[str, object], message: str) -> None:
    """What is wrong with a file stands in the message."""
    content = json.loads(made(bundle, head()).model_dump_json()) | change
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """No file, a folder and an array are told apart from a calibration."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match="no calibration that this version reads"):
        read(tmp_path / "list.json")


def test_the_head_file_comes_back(bundle: Bundle) -> None:
    """Weight and bias are exact; what is only a prior is kept in single precision."""
    found = source_head(bundle)
    np.testing.assert_array_equal(found.head.weight, head().weight)
    np.testing.assert_allclose(found.covariance, source().covariance, rtol=1e-6)
    assert found.n_source == 4
    assert found.centred is None


def broken_heads() -> dict[str, bytes]:
    """Head files that are none."""
    import io

    def packed(**arrays: object) -> bytes:
        with np.load(io.BytesIO(pack(source()))) as file:
            kept = {name: file[name] for name in file}
        stream = io.BytesIO()
        np.savez(stream, **{k: v for k, v in (kept | arrays).items() if v is not None})
        return stream.getvalue()

    return {
        "is no npz": b"PK\x03\x04 not really",
        "is no npz of": pack(source())[:200],
        "lacks bias": packed(bias=None),
        "lacks centred_bias": packed(centred_weight=np.eye(LATENTS)),
        "weight is": packed(weight=np.zeros((2, LATENTS))),
        "covariance is": packed(covariance=np.full((LATENTS, LATENTS), np.nan)),
        "bias is <U3": packed(bias=np.array(["one", "two", "six"])),
        "Object arrays cannot be loaded": packed(means=np.array([{}, [], None], dtype=object)),
    }


@pytest.mark.parametrize("message", broken_heads())
def test_a_head_file_that_is_none_is_refused(tmp_path: Path, message: str) -> None:
    """Nothing is unpickled, and shape and finiteness are checked."""
    bundle = load(write_headed(tmp_path / "bundle", broken_heads()[message]))
    with pytest.raises(BundleError, match=message):
        source_head(bundle)


def test_a_bundle_without_a_head_says_so(toy: Bundle) -> None:
    """Such a bundle decides, and cannot be calibrated."""
    with pytest.raises(BciError, match="carries no head that could be refitted"):
        source_head(toy)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"head": "other.npz"}, "has no hash under files"), ({"latent": None}, "readout.latent must name it")],
)
def test_a_manifest_that_misses_its_head_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    """The head file is hashed as every file, and it reads a latent."""
    folder = write_headed(tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_bytes())
    manifest["readout"] |= change
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        load(folder)
