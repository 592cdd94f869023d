"""`bcistream check`: does this stream fit this bundle, without running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.bundle import load
from engine.config import RunConfig
from engine.pipeline import Pipeline


def check(config: RunConfig, file: Path | None = None) -> dict[str, Any]:
    """Look at the stream, build the pipeline, and say how the stream is adapted; sinks stay closed.

    Raises
    ------
    BciError
        Whatever would have stopped the run before its first sample.
    """
    if file is not None:
        from streamer.sources.recording import Config as Recording

        config = config.model_copy(update={"source": Recording(path=file)})
    bundle = load(config.bundle)
    with config.backend.open(bundle) as backend:
        info = config.source.look()
        pipeline = Pipeline(bundle, backend, info, quality=config.quality, decision=config.decision)
        return {
            "fits": True,
            "stream": info.name,
            "n_chans": info.n_chans,
            "ch_names": list(info.ch_names),
            "sfreq": info.sfreq,
            "unit": info.unit,
            "backend": backend.name,
            **pipeline.describe(),
        }
