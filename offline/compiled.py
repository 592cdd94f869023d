"""A model compiled for ONNX Runtime on one thread, in its two forms: stepping, and over a whole window."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.manifest import FREE_ROWS
from offline.export_graph import OPSET, export_step, streamlined
from offline.quiet import EXPORTER, quiet

LEVEL_UV = 20.0  # of the noise that is fed in
Array = NDArray[np.float32]


class Stepper:
    """A model stepped through ONNX Runtime as it is exported; the state goes from each call to the next."""

    def __init__(self, model: Any) -> None:
        self.hop, self.n_chans, self.frames = model.hop, n_chans(model), frames(model)
        content, graph = export_step(streamlined(model, self.n_chans), self.n_chans)
        self._run = _session(content)
        self._n_outputs = len(graph.outputs)
        self._state: list[NDArray[Any]] = [np.zeros(s.shape, dtype=s.dtype) for s in graph.state]
        self._x = noise(self.n_chans, self.hop)

    def step(self, x: Array) -> list[NDArray[Any]]:
        """Return the outputs (1, 1, ...) of one hop ``x`` (1, C, hop)."""
        values = self._run([x, *self._state])
        self._state = values[self._n_outputs :]
        return values[: self._n_outputs]

    def again(self) -> None:
        """Compute one decision more."""
        self.step(self._x)


class Window:
    """The same model without a state: (1, C, samples) -> outputs of the last hop, (1, 1, ...)."""

    def __init__(self, model: Any) -> None:
        self.samples = frames(model) * model.hop
        self._x = noise(n_chans(model), self.samples)
        whole = streamlined(model, n_chans(model))
        self._run = _compiled(_LastFrame(whole), (torch.from_numpy(self._x),))

    def last(self, x: Array) -> list[NDArray[Any]]:
        """Return the outputs of the last hop of ``x``."""
        return self._run([x])

    def again(self) -> None:
        """Compute one decision more."""
        self.last(self._x)


def n_chans(model: Any) -> int:
    """Return the rows of the model's input."""
    return int(model.n_chans if hasattr(model, "n_chans") else model.config.n_chans)


def frames(model: Any) -> int:
    """Return the frames that a decision depends on: the left context, and its own."""
    return -(-int(model.left_context) // int(model.hop)) + 1


def noise(n_chans: int, samples: int, seed: int = 0) -> Array:
    """Return white noise (1, n_chans, samples), µV."""
    return np.random.default_rng(seed).normal(0, LEVEL_UV, (1, n_chans, samples)).astype(np.float32)


class _LastFrame(nn.Module):
    """A model from an empty state; only the last frame leaves."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs, _ = self.model(x, self.model.init_state(1))
        return tuple(value[:, -1:] for value in outputs.values())


def _compiled(module: nn.Module, args: tuple[Tensor, ...]) -> Callable[[list[Any]], list[NDArray[Any]]]:
    """Return the module as a function of its inputs in order, run by ONNX Runtime on one thread."""
    with warnings.catch_warnings(), quiet(EXPORTER):
        # The exporter's own use of torch's and onnxscript's deprecated names is no concern of the user.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), args, dynamo=True, opset_version=OPSET, verbose=False, external_data=False
        )
    assert program is not None
    return _session(program.model_proto.SerializeToString())


def _session(content: bytes) -> Callable[[list[Any]], list[NDArray[Any]]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_free_dimension_override_by_name(FREE_ROWS, 1)  # as a live session settles it
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda values: list(session.run(None, dict(zip(names, values, strict=True))))
