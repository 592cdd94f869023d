"""The full-size backbone as a TensorRT plan, built on the CPU; skipped where the wheel is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("tensorrt_rtx")

from engine.backends._plan import compare, header
from engine.backends._trt_build import Order, build, library
from offline.cost import of_recipe
from offline.export_graph import describe, step_graph

RECIPE = Path(__file__).parents[2] / "configs" / "pretrain_brainrvq.yaml"
N_CHANS = 22


def test_twelve_blocks_of_200_build() -> None:
    """The step of 12 x 200 with random weights parses and becomes a plan with the tensors of its state."""
    model, _ = of_recipe(RECIPE)
    trt = library(with_gpu=False)
    built = build(trt, Order(step_graph(model, N_CHANS), 1, capability="8.9"))
    assert header(built.plan)[0] == "tensorrt_rtx"
    compare(built.tensors, describe(model, N_CHANS), "backbone")
