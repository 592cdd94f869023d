"""What travels between the two ends of a codec: the rows of a token stream, and how it describes itself.

A row is one frame::

    codes                                   latent
    C3-1 C3-2 ... C4-K   every channel      C3-1 ... C4-D
    C3-gain ... C4-gain  where there is one
    frame                0 after every reset of the model, then counting; 32767 is followed by 1
    invalid              share of the signal under it that was repaired or bad, percent, rounded up

``frame`` is how the far end knows, without looking at a clock, that the model behind the codes started
afresh, or that rows are missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt, ValidationError

from engine.faults import faults
from engine.manifest import CodecId
from streamer.components import Config
from streamer.errors import StreamMismatch

STYPES = {"codes": "Codes", "latent": "Latent"}
TAIL = ("frame", "invalid")
LAST_FRAME = 32767  # of the counter: the largest int16
ALL = "all"  # name of the one row of a model that merges its channels
NODE = "tokens"  # of the LSL description


class TokenInfo(Config):
    """What a stream of codes or latents is: constant for a session.

    Attributes
    ----------
    bundle, version : str
        What made it.
    publish : "codes" or "latent"
    ch_names : tuple of str
        Electrodes, one per row of codes; ``("all",)`` for a model that merges them.
    stype, unit, sfreq, hop
        Of the signal that was coded: LSL content type, unit, Hz, samples per frame.
    codec : str or None
        Fingerprint of the codec, see `engine.manifest.Codec`; None for latents.
    n_codebooks, codebook_size, n_gains : int or None
        As in `engine.manifest.Codec`.
    dim : int or None
        Numbers per row of a latent.
    """

    bundle: str
    version: str
    publish: Literal["codes", "latent"]
    ch_names: tuple[str, ...]
    stype: str
    unit: str
    sfreq: PositiveFloat
    hop: PositiveInt
    codec: CodecId | None = None
    n_codebooks: PositiveInt | None = None
    codebook_size: PositiveInt | None = None
    n_gains: PositiveInt | None = None
    dim: PositiveInt | None = None

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.sfreq / self.hop

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of a row's numbers, in order."""
        width = (self.n_codebooks if self.publish == "codes" else self.dim) or 0
        names = [f"{name}-{i}" for name in self.ch_names for i in range(1, width + 1)]
        gains = [f"{name}-gain" for name in self.ch_names] if self.n_gains else []
        return (*names, *gains, *TAIL)

    @property
    def dtype(self) -> Literal["int16", "int32", "float32"]:
        """LSL's format: the smallest that holds every code."""
        if self.publish == "latent":
            return "float32"
        return "int16" if max(self.codebook_size or 0, self.n_gains or 0) <= LAST_FRAME + 1 else "int32"


@dataclass(frozen=True, slots=True)
class TokenFrame:
    """One row.

    Attributes
    ----------
    index : int
        Sample index, at the model's rate, of the last sample of the frame.
    time : float
        Its stamp, s on the local LSL clock.
    frame : int
        As in the stream.
    invalid : float
        Share of invalid samples under the frame, 0 to 1.
    values : ndarray, shape (n_columns - 2,), int64 or float32
        Codes, channel by channel, then gain codes; or latents.
    """

    index: int
    time: float
    frame: int
    invalid: float
    values: NDArray[Any]

    @property
    def valid(self) -> bool:
        """Whether nothing under the frame was repaired or bad."""
        return self.invalid == 0

    @property
    def row(self) -> list[float]:
        """The numbers that are sent."""
        return [*self.values.tolist(), self.frame, math.ceil(100 * self.invalid)]


def next_frame(frame: int | None) -> int:
    """Return the count that follows; the first one after a reset is 0."""
    return 0 if frame is None else frame % LAST_FRAME + 1


def channel_major(n_chans: int, n_codebooks: int, *, gain: bool) -> NDArray[np.intp]:
    """Return the columns of a row in a decoder's order: per channel its codes, then its gain code.

    Returns
    -------
    ndarray, shape (n_chans * (n_codebooks + gain),), intp
    """
    codes = np.arange(n_chans * n_codebooks).reshape(n_chans, n_codebooks)
    if not gain:
        return codes.reshape(-1)
    gains = n_chans * n_codebooks + np.arange(n_chans)
    return np.column_stack([codes, gains]).reshape(-1)


def to_lsl(info: TokenInfo, name: str) -> Any:
    """Return the pylsl StreamInfo that says all of it."""
    from streamer.lsl import load

    columns = info.columns
    made = load().StreamInfo(
        name, STYPES[info.publish], len(columns), info.rate, info.dtype, f"{name}-{info.publish}"
    )
    made.desc().append_child_value("manufacturer", "bcistream")
    made.set_channel_labels(list(columns))
    made.set_channel_types([*["misc"] * (len(columns) - len(TAIL)), *TAIL])
    node = made.desc().append_child(NODE)
    for key, value in info.model_dump(exclude_none=True, exclude={"ch_names"}).items():
        node.append_child_value(key, repr(value) if isinstance(value, float) else str(value))
    electrodes = node.append_child("ch_names")
    for electrode in info.ch_names:
        electrodes.append_child_value("name", electrode)
    return made


def from_lsl(described: Any) -> TokenInfo:
    """Read what a full pylsl StreamInfo says of its tokens.

    Raises
    ------
    StreamMismatch
        It is no stream of tokens, or of another version of the project.
    """
    node = described.desc().child(NODE)
    if node.empty():
        raise StreamMismatch(
            f"LSL stream {described.name()!r} (type {described.type()}) carries no codes. Name one that "
            "`bcistream tokens` publishes."
        )
    told: dict[str, Any] = {key: node.child_value(key) for key in TokenInfo.model_fields}
    told = {key: value for key, value in told.items() if value} | {"ch_names": _children(node, "ch_names")}
    try:
        info = TokenInfo.model_validate(told)
    except ValidationError as error:
        raise StreamMismatch(
            f"LSL stream {described.name()!r} describes its codes in a way that is not understood; is it of "
            f"another version of bcistream?\n{faults(error)}"
        ) from error
    if described.channel_count() != len(info.columns):
        raise StreamMismatch(
            f"LSL stream {described.name()!r} says {len(info.columns)} columns and has "
            f"{described.channel_count()}: it is damaged or of another version of bcistream."
        )
    return info


def _children(node: Any, key: str) -> Sequence[str]:
    names = []
    child = node.child(key).first_child()
    while not child.empty():
        names.append(child.child_value())
        child = child.next_sibling()
    return tuple(names)
