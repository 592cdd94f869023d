"""What the answers should be: computed from the same samples, without a stream."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bench.figures import Reference
from engine.bench.job import Stream, expected, pushed
from engine.bundle import Bundle
from engine.config import RunConfig
from engine.pipeline import Pipeline
from streamer.types import StreamInfo, make_chunk


def windows(stream: Stream) -> Reference:
    """Return the windows by SciPy's filter over the whole signal."""
    return lambda ends: expected(stream, ends)


def decisions(bundle: Bundle, stream: Stream) -> Reference:
    """Return the probabilities of the same bundle over the same samples, in one chunk, by ONNX Runtime."""
    types = (stream.stype.lower(),) * stream.n_chans
    info = StreamInfo(stream.name, "", stream.stype, stream.sfreq, stream.ch_names, types, "uV")
    ratio = stream.sfreq / bundle.manifest.input.sfreq

    def right(ends: Sequence[int]) -> list[NDArray[np.float64]]:
        n = max(ends)
        with OnnxRuntime().open(bundle) as backend:
            pipeline = Pipeline(bundle, backend, info, quality=RunConfig.model_fields["quality"].default)
            whole = make_chunk(pushed(stream, 0, n), 0, np.arange(n) / stream.sfreq)
            found = {math.floor(d.index * ratio) + 1: d.probabilities for d in pipeline.process(whole)}
        return [np.array(found.get(end, ())) for end in ends]

    return right
