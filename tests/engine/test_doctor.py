"""What the doctor says of a GPU and of what runs on it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fake_gpu import CARD

from engine import doctor
from engine.backends import _cuda


@pytest.mark.parametrize(
    ("there", "status", "said"),
    [
        (set(), "missing", "not installed"),
        ({"pycuda", "onnx"}, "missing", "not installed"),
        ({"tensorrt_rtx", "onnx"}, "missing", "no pycuda (memory on the GPU)"),
        ({"tensorrt", "pycuda", "onnx"}, "missing", "no cuda-bindings (CUDA graphs)"),
        ({"tensorrt", "pycuda", "cuda.bindings", "onnx"}, "ok", "tensorrt"),
    ],
)
def test_what_tensorrt_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, there: set[str], status: str, said: str
) -> None:
    """All of it is well, part of it is named with what it is for, and none of it is optional."""
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: SimpleNamespace() if name in there else None
    )
    found = doctor._tensorrt()
    assert found.status == status
    assert said in found.detail
    assert ("pip install 'bcistream[tensorrt]'" in found.fix) == ("no " in found.detail)


@pytest.mark.parametrize(
    ("library", "gpu", "count", "status", "said"),
    [
        (None, None, 0, "missing", "no NVIDIA driver"),
        ("driver", None, 0, "missing", "no device that it can use"),
        ("driver", CARD, 1, "ok", "Fake RTX, compute capability 8.9, CUDA 13.0"),
        ("driver", CARD, 3, "ok", "and 2 more"),
    ],
)
def test_a_gpu_is_named(
    monkeypatch: pytest.MonkeyPatch, library: Any, gpu: Any, count: int, status: str, said: str
) -> None:
    """No driver, a driver without a device, and a GPU are three different findings."""
    monkeypatch.setattr(_cuda, "driver", lambda: library)
    monkeypatch.setattr(_cuda, "gpu", lambda library: gpu)
    monkeypatch.setattr(_cuda, "gpu_count", lambda library: count)
    found = doctor._gpu()
    assert found.status == status
    assert said in found.detail
