"""ONNX Runtime's providers: what is not there is said, never replaced in silence."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import toy_codec

from engine.backends.onnxruntime import ORDER, PROVIDERS, Config, OnnxRuntimeBackend, _started
from engine.bundle import Bundle, load
from streamer.errors import BundleError, MissingDependency

CPU = ["CPUExecutionProvider"]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_in_this_build(
    monkeypatch: pytest.MonkeyPatch, toy: Bundle, provider: str
) -> None:
    """It is a missing dependency, with what is there and what to install."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: CPU)
    with pytest.raises(MissingDependency, match=r"has cpu\. .*pip install onnxruntime-gpu"):
        Config(provider=provider).open(toy)


def test_a_provider_that_does_not_start() -> None:
    """ONNX Runtime goes on with the CPU where CUDA's libraries are missing; here that is an error."""
    _started("cuda", ["CUDAExecutionProvider", *CPU])
    with pytest.raises(MissingDependency, match="does not start here"):
        _started("cuda", CPU)


def test_codes_need_tf32_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CUDA is told so; the TensorRT provider cannot be, and takes no bundle that puts out codes."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    bundle = load(toy_codec.write_tokenizer(tmp_path / "codec"))
    with pytest.raises(BundleError, match="has no setting for TF32"):
        OnnxRuntimeBackend(bundle, provider="tensorrt")
    assert dict(ORDER["cuda"])[PROVIDERS["cuda"]] == {"use_tf32": "0"}


def test_every_provider_ends_on_the_cpu() -> None:
    """What a GPU provider does not take, the CPU does."""
    assert all(order[0][0] == PROVIDERS[name] for name, order in ORDER.items())
    assert all(order[-1][0] == CPU[0] for order in ORDER.values())
