"""Codes or latents in a file: JSON lines as they come, or one npz at the end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.token_stream import TokenFrame, TokenInfo
from streamer.errors import ConfigError
from streamer.lines import JsonLines

log = logging.getLogger(__name__)

ADVICE = "Choose another 'file'."


def open_file(path: Path, info: TokenInfo) -> TokenLines | TokenArchive:
    """Return what keeps frames in ``path``, by its ending; `ConfigError` when it cannot be written."""
    return TokenArchive(path, info) if path.suffix == ".npz" else TokenLines(path, info)


class TokenLines(JsonLines):
    """One line that describes the stream, then ``{"index", "time", "frame", "invalid", "values"}`` per frame.

    ``values`` are in the order of the stream's columns: codes channel by channel, then the gain codes.
    """

    def __init__(self, path: Path, info: TokenInfo) -> None:
        super().__init__(path, info.model_dump(mode="json"), info.publish, ADVICE)

    def write(self, frame: TokenFrame) -> None:
        """Append one line."""
        self.append(
            {
                "index": frame.index,
                "time": frame.time,
                "frame": frame.frame,
                "invalid": frame.invalid,
                "values": frame.values.tolist(),
            }
        )


class TokenArchive:
    """Keeps frames in memory and writes them when closed.

    Arrays of the file: ``codes`` (F, C, K) and ``gain`` (F, C), int16 or int32, or ``latent`` (F, C, D)
    float32; ``index`` (F,) int64, ``time`` (F,) float64, ``frame`` (F,) int16, ``invalid`` (F,) float32;
    ``info``, the stream's description as JSON.

    Attributes
    ----------
    lost : int
        Frames that are not in the file.
    """

    def __init__(self, path: Path, info: TokenInfo) -> None:
        self.lost = 0
        self.path, self._info = path, info
        self._frames: list[TokenFrame] = []
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)  # what a session of an hour ago kept is not written over
        except OSError as error:
            raise ConfigError(f"Codes cannot be written to {path}: {error.strerror}. {ADVICE}") from error

    def write(self, frame: TokenFrame) -> None:
        """Keep one frame."""
        self._frames.append(frame)

    def close(self) -> None:
        """Write the file; may be called twice."""
        if self._closed:
            return
        self._closed = True
        content: dict[str, Any] = {**self._arrays(), "info": self._info.model_dump_json()}
        try:
            np.savez_compressed(self.path, **content)
        except OSError as error:
            self.lost = len(self._frames)
            log.error("%d frames cannot be written to %s (%s)", self.lost, self.path, error.strerror)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        frames, info = self._frames, self._info
        return {
            **self._split(),
            "index": np.array([frame.index for frame in frames], dtype=np.int64),
            "time": np.array([frame.time for frame in frames], dtype=np.float64),
            "frame": np.array([frame.frame for frame in frames], dtype=np.int16),
            "invalid": np.array([frame.invalid for frame in frames], dtype=np.float32),
            "ch_names": np.array(info.ch_names),
        }

    def _split(self) -> dict[str, NDArray[Any]]:
        info, n = self._info, len(self._info.ch_names)
        width = len(info.columns) - 2
        values = np.array([frame.values for frame in self._frames], dtype=info.dtype).reshape(-1, width)
        if info.publish == "latent":
            return {"latent": values.reshape(len(values), n, width // n)}
        n_codes = n * (info.n_codebooks or 0)
        arrays = {"codes": values[:, :n_codes].reshape(len(values), n, n_codes // n)}
        return arrays | ({"gain": values[:, n_codes:]} if info.n_gains else {})
