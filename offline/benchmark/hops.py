"""A recording as a classical decoder meets it: behind the DSP list, a window every hop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.adapt import fit_contract
from engine.framer import Frame, Framer
from engine.manifest import InputContract
from offline.evaluate.played import CHUNK, QUALITY, chunks, repair_as_run
from offline.probe.tasks import Index, Session
from streamer.chain import Chain
from streamer.dsp import StepConfig
from streamer.types import Chunk, StreamInfo, concatenate


@dataclass(frozen=True, slots=True)
class Behind:
    """A recording behind DSP steps.

    Attributes
    ----------
    info : StreamInfo
        Of the signal there.
    stretches : tuple of Chunk
        From hole to hole.
    notes : tuple of str
        How the recording was adapted.
    """

    info: StreamInfo
    stretches: tuple[Chunk, ...]
    notes: tuple[str, ...]

    def through(self, steps: Sequence[StepConfig]) -> Behind:
        """Return the recording behind more steps, begun anew at every hole."""
        if not steps:
            return self
        chain = Chain(steps, self.info)
        found = []
        for stretch in self.stretches:
            chain.reset()
            found.append(chain(stretch))
        return Behind(chain.info, tuple(found), self.notes)


def behind(contract: InputContract, label: str, session: Session, chunk: int = CHUNK) -> Behind:
    """Return a recording behind a contract's steps, quality checks included, as a live session has it.

    Parameters
    ----------
    label : str
        Who takes the signal, for messages.
    chunk : int
        Samples that are fed at a time; any number gives the same.

    Raises
    ------
    StreamMismatch
        The recording does not fit.
    """
    fitted = fit_contract(contract, label, session.recording.info, QUALITY)
    stretches: list[list[Chunk]] = []
    repair = repair_as_run(session.recording, fitted.chain)
    for piece in chunks(session.recording, chunk, repair):
        if piece.discontinuity:
            fitted.chain.reset()
        if piece.discontinuity or not stretches:
            stretches.append([])
        stretches[-1].append(replace(fitted.chain(piece), discontinuity=False))
    return Behind(fitted.chain.info, tuple(concatenate(some) for some in stretches), fitted.notes)


@dataclass(frozen=True, slots=True)
class Hops:
    """Where a decoder looks, and what there is; arrays have one entry per hop.

    Attributes
    ----------
    frames : tuple of Frame
    times : ndarray, shape (n,), float64
        Stamp of each hop's last sample, s.
    stretch, place : ndarray, shape (n,), int64
        Which stretch between holes, and which hop of it.
    data : tuple of ndarray, shape (C, window + n_times), float32
        Of each stretch, zeros before its first sample.
    window, hop : int
        Samples.
    """

    frames: tuple[Frame, ...]
    times: NDArray[np.float64]
    stretch: Index
    place: Index
    data: tuple[NDArray[np.float32], ...]
    window: int
    hop: int

    def __len__(self) -> int:
        return len(self.frames)

    def windows(self, rows: Index) -> NDArray[np.float32]:
        """Return the windows that end with these hops, (n, C, window); copies."""
        stops = (self.place[rows] + 1) * self.hop + self.window
        cut = [
            self.data[i][:, stop - self.window : stop]
            for i, stop in zip(self.stretch[rows], stops, strict=True)
        ]
        return np.stack(cut)

    def earlier(self, rows: Index, windows: int) -> Index:
        """Return the hops so many whole windows before these; the stretch's first where that is before it."""
        back = np.minimum(self.place[rows], windows * (self.window // self.hop))
        found: Index = rows - back
        return found


def hops_of(signal: Behind, window: int, hop: int) -> Hops:
    """Return the hops of a recording: the framer's, so that they are those of a live session."""
    framer = Framer(np.zeros((1, signal.info.n_chans, hop), dtype=np.float32), window - hop)
    frames: list[Frame] = []
    stretch: list[int] = []
    place: list[int] = []
    data = []
    for number, chunk in enumerate(signal.stretches):
        framer.reset()
        mine = list(framer.frames(chunk))
        frames += mine
        stretch += [number] * len(mine)
        place += range(len(mine))
        data.append(np.pad(chunk.data.T, ((0, 0), (window, 0))))
    return Hops(
        tuple(frames),
        np.array([frame.time for frame in frames], dtype=np.float64),
        np.array(stretch, dtype=np.int64),
        np.array(place, dtype=np.int64),
        tuple(data),
        window,
        hop,
    )
