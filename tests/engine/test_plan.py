"""A plan is loaded only where it belongs; everything here is without TensorRT."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_gpu import CARD, HEADER, HERE

from engine.backends import _cache, _cuda
from engine.backends._plan import Here, Sidecar, compare, header, read, read_sidecar, sidecar_of
from engine.bundle import Bundle, digest
from streamer.errors import PlanError

GRAPH, PLAN = digest(b"graph"), HEADER + b"kernels"


def beside(**changes: Any) -> Sidecar:
    settings = {
        "status": "ready", "bundle": "toy 1", "plan_sha256": digest(PLAN), "onnx_sha256": GRAPH,
        "flavour": HERE.flavour, "version": HERE.version, "capability": CARD.capability, "gpu": CARD,
        "precision": "fp32", "rows": (1, 1, 1), "tensors": {},
    }  # fmt: skip
    return Sidecar.model_validate(settings | changes)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "toy.plan"
    _cache.save(path, PLAN, beside())
    return path


def test_the_header_tells_who_wrote_a_plan() -> None:
    """Flavour and version are read from the plan's own first bytes."""
    assert header(HEADER) == ("tensorrt_rtx", "1.7.1.116")
    assert header(b"ftrt" + bytes(20) + bytes([10, 13, 3, 9])) == ("tensorrt", "10.13.3.9")


@pytest.mark.parametrize("content", [b"", b"ftrt", b"ONNX" + bytes(40)])
def test_what_is_no_plan_is_said_to_be_none(content: bytes) -> None:
    """An empty file, one cut short and one of another kind are no plans."""
    with pytest.raises(PlanError, match="not a TensorRT plan"):
        header(content)


def test_a_plan_that_belongs_here_is_read(saved: Path) -> None:
    """What was saved comes back, bytes and description."""
    assert read(saved, HERE, GRAPH) == (PLAN, beside())


@pytest.mark.parametrize(
    ("here", "graph", "said"),
    [
        (replace(HERE, flavour="tensorrt", version="11.4.0.106"), GRAPH, "built by tensorrt_rtx 1.7.1.116"),
        (replace(HERE, version="1.6.1.120"), GRAPH, "here is version 1.6.1.120"),
        (replace(HERE, gpu=None), GRAPH, "here is no GPU"),
        (replace(HERE, gpu=CARD.model_copy(update={"capability": "12.0"})), GRAPH, "here is 12.0"),
        (replace(HERE, gpu=CARD.model_copy(update={"name": "Other"})), GRAPH, "timed elsewhere"),
        (
            replace(HERE, gpu=CARD.model_copy(update={"multiprocessors": 84})),
            GRAPH,
            r"46 multi.*84",
        ),
        (HERE, "0" * 64, "another step graph"),
    ],
)
def test_a_foreign_plan_is_refused_in_words(saved: Path, here: Here, graph: str, said: str) -> None:
    """Another TensorRT, version, GPU or bundle: the message says what is here and what it was built for."""
    with pytest.raises(PlanError, match=said) as error:
        read(saved, here, graph)
    assert str(saved) in str(error.value)
    assert "Compile it again" in str(error.value)


def test_another_build_of_the_same_version_is_taken(saved: Path) -> None:
    """The fourth number of a version changes nothing about its plans."""
    assert read(saved, replace(HERE, version="1.7.1.200"), GRAPH)


def test_every_reason_is_given_at_once(saved: Path) -> None:
    """A plan with three things wrong is refused for all three."""
    other = Here("tensorrt", "11.4.0.106", CARD.model_copy(update={"capability": "12.0"}))
    with pytest.raises(PlanError) as error:
        read(saved, other, "0" * 64)
    assert str(error.value).count("  - ") == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "not validated"}, "never validated"),
        ({"gpu": None}, "built without a GPU, for compute capability 8.9"),
    ],
)
def test_a_plan_that_nobody_ran_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Without a validation on this GPU it is not loaded, whatever else fits."""
    _cache.save(tmp_path / "toy.plan", PLAN, beside(**changes))
    with pytest.raises(PlanError, match=said):
        read(tmp_path / "toy.plan", HERE, GRAPH)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def garble(path: Path) -> None:
    sidecar_of(path).write_text('{"format": 1}')


def newer(path: Path) -> None:
    sidecar_of(path).write_text(sidecar_of(path).read_text().replace('"format": 1', '"format": 2'))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "damaged, cut short or changed"),
        (flip, "damaged, cut short or changed"),
        (garble, "does not describe a plan"),
        (newer, "does not describe a plan"),
        (lambda path: sidecar_of(path).unlink(), "cannot be read"),
        (lambda path: path.unlink(), "cannot be read"),
    ],
)
def test_a_damaged_plan_is_refused(saved: Path, damage: Callable[[Path], None], said: str) -> None:
    """A bit, the end, the description or either file missing: it is not loaded."""
    damage(saved)
    with pytest.raises(PlanError, match=said):
        read(saved, HERE, GRAPH)


def test_a_plan_of_something_else_is_refused(tmp_path: Path) -> None:
    """A hash that fits does not make a plan of a file that is none."""
    _cache.save(tmp_path / "toy.plan", b"text", beside(plan_sha256=digest(b"text")))
    with pytest.raises(PlanError, match="not a TensorRT plan"):
        read(tmp_path / "toy.plan", HERE, GRAPH)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits": ("float16", (1, 1, 3))}, "'logits' is float16"),
        ({"x": ("float32", (1, 8, 12))}, "'x' is float32"),
        ({"state_9": ("float32", (1, 3))}, "absent in the manifest"),
        ({"logits": None}, "absent in the plan"),
    ],
)
def test_tensors_must_be_the_manifests(toy: Bundle, change: dict[str, Any], said: str) -> None:
    """A name, dtype or shape that is not the manifest's is refused; a free first dimension fits."""
    ends: dict[str, Any] = {
        "x": ("float32", (-1, 8, 10)), "logits": ("float32", (1, 1, 3)),
        "state_0": ("float32", (1, 3)), "state_0_out": ("float32", (1, 3)),
    }  # fmt: skip
    compare(ends, toy.manifest.graph, toy.label)
    ends |= change
    with pytest.raises(PlanError, match=said):
        compare({name: end for name, end in ends.items() if end is not None}, toy.manifest.graph, toy.label)


def test_the_cache_is_the_users_and_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that is given comes before the variable, that before the platform's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv(_cache.VARIABLE, raising=False)
    monkeypatch.setattr(_cache.platform, "system", lambda: "Linux")
    assert _cache.root() == tmp_path / "xdg" / "bcistream" / "plans"
    monkeypatch.setenv(_cache.VARIABLE, str(tmp_path / "mine"))
    assert _cache.root() == tmp_path / "mine"
    assert _cache.root(tmp_path / "given") == tmp_path / "given"


def test_each_gpu_and_version_has_a_folder(tmp_path: Path) -> None:
    """No two TensorRTs, versions or GPUs share one."""
    others = [
        HERE,
        replace(HERE, flavour="tensorrt"),
        replace(HERE, version="1.8.0.0"),
        replace(HERE, gpu=CARD.model_copy(update={"name": "Other"})),
        replace(HERE, gpu=CARD.model_copy(update={"multiprocessors": 84})),
        replace(HERE, gpu=None),
    ]
    assert len({_cache.folder(here, "8.9", tmp_path) for here in others}) == len(others)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last step fails the old content stands, and nothing is left beside it."""
    path = tmp_path / "a.plan"
    _cache.write(path, b"old")

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(_cache.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        _cache.write(path, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.plan", b"old")]


def test_a_plan_and_its_description_never_disagree(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that is interrupted after the plan leaves one without description, which is not loaded."""

    def interrupted(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        path.write_bytes(content)

    monkeypatch.setattr(_cache, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _cache.save(saved, PLAN + b"more", beside())
    with pytest.raises(PlanError, match="cannot be read"):
        read_sidecar(saved)


class FakeDriver:
    """Answers as libcuda does: a status, and values through pointers."""

    def __init__(self, count: int = 1, status: int = 0) -> None:
        self.count, self.status = count, status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return self.status

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return self.status

    def cuDeviceGetName(self, name: Any, size: int, handle: Any) -> int:
        ctypes.memmove(name, b"NVIDIA H200\0", 12)
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13020
        return self.status

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = {75: 9, 76: 0, 16: 132}[attribute]
        return self.status


def test_the_driver_tells_which_gpu_it_is() -> None:
    """Name, compute capability, multiprocessors and CUDA version come from the driver alone."""
    found = _cuda.gpu(FakeDriver())
    assert found is not None
    assert found.model_dump() == {
        "name": "NVIDIA H200", "capability": "9.0", "multiprocessors": 132, "driver": "13.2"
    }  # fmt: skip


@pytest.mark.parametrize("library", [None, FakeDriver(count=0), FakeDriver(status=100)])
def test_no_driver_or_no_device_is_no_gpu(library: Any) -> None:
    """No library, no device, and a driver that answers with errors are all the same: none."""
    assert _cuda.gpu(library) is None
