"""Labelled recordings as a fine-tuned net meets them: played as live, and cut into its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline.data.trials import population
from offline.models.decoder import Decoder
from offline.probe.features import Signal, inside
from offline.probe.tasks import Index, Session, Windows
from streamer.dsp import StepConfig
from streamer.dsp.align import Config as Align
from streamer.dsp.scale import Config as Scale

HOPS = 64  # per call of a net; any other number gives the same answers
Samples = NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Frames:
    """Labelled frames; all arrays have one entry per frame.

    Attributes
    ----------
    window : ndarray of int
        Place of the window that it ends in.
    session : ndarray of int
        Place of the recording.
    place : ndarray of int
        Number of the frame in its recording, the stretches between holes one after the other.
    last : ndarray of bool
        No other frame of its window comes after it.
    """

    window: Index
    session: Index
    place: Index
    last: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.window)

    def take(self, rows: Index | NDArray[np.bool_]) -> Frames:
        """Return some of them."""
        return Frames(self.window[rows], self.session[rows], self.place[rows], self.last[rows])


class Labelled:
    """Recordings behind a DSP list, and where their labelled windows lie among a net's frames.

    Attributes
    ----------
    windows : Windows
    hop : int
        Samples per frame.
    """

    def __init__(self, signal: Signal, windows: Windows, hop: int) -> None:
        self.windows, self.hop = windows, hop
        self._stretches: list[list[Samples]] = []  # per recording, (C, T) each, T whole hops
        self._inside: dict[int, slice] = {}  # per window, its frames
        self._first: dict[int, int] = {}  # and the first frame of the stretch that they are in
        for i, session in enumerate(windows.sessions):
            chunks = [chunk for chunk in signal.stretches(session.recording) if len(chunk) >= hop]
            whole = [len(chunk) // hop * hop for chunk in chunks]
            self._stretches.append(
                [np.ascontiguousarray(chunk.data[:n].T) for chunk, n in zip(chunks, whole, strict=True)]
            )
            ends = np.concatenate([np.empty(0), *(chunk.times[hop - 1 :: hop] for chunk in chunks)])
            firsts = np.cumsum([0, *(n // hop for n in whole)])
            for k in np.flatnonzero(windows.session == i).tolist():
                span = self._inside[k] = inside(ends, windows, k)
                self._first[k] = int(firsts[firsts < span.stop][-1])

    def frames(self, rows: Index) -> Frames:
        """Return every frame that ends in one of these windows."""
        spans = [(k, self._inside[k]) for k in rows.tolist()]
        place = np.concatenate([np.arange(span.start, span.stop) for _, span in spans])
        window = np.repeat([k for k, _ in spans], [span.stop - span.start for _, span in spans])
        last = place == np.repeat(
            [span.stop - 1 for _, span in spans], [span.stop - span.start for _, span in spans]
        )
        return Frames(window, self.windows.session[window], place, last)

    def drawn(self, rows: Index, rng: np.random.Generator, past: int) -> Frames:
        """Return one frame of each of these windows, drawn among those with ``past`` frames before them.

        Frames before a hole do not count; of a window without any such frame it is the last.
        """
        spans, firsts = zip(*[(self._inside[k], self._first[k]) for k in rows.tolist()], strict=True)
        lows = [
            min(max(span.start, first + past), span.stop - 1)
            for span, first in zip(spans, firsts, strict=True)
        ]
        place = rng.integers(lows, [span.stop for span in spans])
        last = place == np.array([span.stop - 1 for span in spans])
        return Frames(rows, self.windows.session[rows], place, last)

    def labels(self, frames: Frames) -> Index:
        """Return the class of each frame."""
        return self.windows.labels[frames.window]

    def crops(self, frames: Frames, n_frames: int) -> Tensor:
        """Return the signal of so many frames up to each of these, (n, C, T) float32, zeros before it."""
        size = n_frames * self.hop
        n_chans = next(len(stretch) for some in self._stretches for stretch in some)
        x = np.zeros((len(frames), n_chans, size), dtype=np.float32)
        for row, (session, place) in enumerate(zip(frames.session, frames.place, strict=True)):
            stretch, stop = self._locate(int(session), int(place))
            piece = stretch[:, max(0, stop - size) : stop]
            x[row, :, size - piece.shape[1] :] = piece
        return torch.from_numpy(x)

    def read(
        self, net: Decoder, frames: Frames, say: Callable[[Tensor], Tensor], progress: Progress | None = None
    ) -> Tensor:
        """Return what is said, (n, ...), of the net's features at these frames, stepped as live.

        Parameters
        ----------
        say : callable
            From features (m, 2 p) to (m, ...).
        """
        found: Tensor | None = None
        sessions = np.unique(frames.session).tolist()
        for done, i in enumerate(sessions):
            if progress is not None:
                progress("reading recordings", done, len(sessions))
            mine = np.flatnonzero(frames.session == i)
            for first, features in self._steps(net, i):
                here = mine[(frames.place[mine] >= first) & (frames.place[mine] < first + len(features))]
                if not len(here):
                    continue
                with torch.no_grad():
                    said = say(features[torch.from_numpy(frames.place[here] - first)]).cpu()
                if found is None:
                    found = said.new_zeros(len(frames), *said.shape[1:])
                found[torch.from_numpy(here)] = said
        assert found is not None, "a window holds a frame"
        return found

    def stretch(self, session: int, n_frames: int) -> Samples:
        """Return the first frames of a recording, (1, C, T)."""
        return self._stretches[session][0][None, :, : n_frames * self.hop]

    def _steps(self, net: Decoder, session: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the features (F, 2 p) of a few hops at a time, and the number of the first of them."""
        first, size = 0, HOPS * self.hop
        for stretch in self._stretches[session]:
            state = net.init_state(1)
            for start in range(0, stretch.shape[1], size):
                x = torch.from_numpy(stretch[None, :, start : start + size]).to(net.head.weight.device)
                with torch.no_grad():
                    features, state = net.features(x, state)
                yield first, features[0]
                first += features.shape[1]

    def _locate(self, session: int, place: int) -> tuple[Samples, int]:
        """Return the stretch of a frame, and the sample behind its last one."""
        for stretch in self._stretches[session]:
            n_frames = stretch.shape[1] // self.hop
            if place < n_frames:
                return stretch, (place + 1) * self.hop
            place -= n_frames
        raise AssertionError("a frame lies in a stretch")


def adapted(
    sessions: Sequence[Session], signal: Signal, steps: Sequence[StepConfig]
) -> tuple[StepConfig, ...]:
    """Return the DSP list of ``signal`` with these steps behind it, `align` with what it needs to know.

    An `align` without a prior gets that of these recordings, made by `offline.data.trials.population`.  What
    leaves it is of about unit variance, where a pretrained net was fed microvolts: a `scale` behind it
    multiplies by the root mean square of the prior, the level at which those recordings were.
    """
    dsp = list(signal.dsp)
    for step in steps:
        if not isinstance(step, Align):
            dsp.append(step)
            continue
        prior = step.prior
        if prior is None:
            so_far = Signal(signal.ch_names, signal.sfreq, tuple(dsp))
            prior = population((_covariance(so_far, session) for session in sessions), step.groups)
        level = float(np.sqrt(np.trace(prior) / len(prior)))
        dsp.append(step.model_copy(update={"prior": prior}))
        dsp.append(Scale(unit="uV", assume="uV", factor=float(f"{level:.6g}")))
    return tuple(dsp)


def adapted_prior(sessions: Sequence[Session], signal: Signal) -> tuple[StepConfig, ...]:
    """Return the DSP list of ``signal``, its first `align` without a prior with that of these recordings."""
    steps = list(signal.dsp)
    places = [(i, step) for i, step in enumerate(steps) if isinstance(step, Align) and step.prior is None]
    for place, align in places[:1]:
        so_far = Signal(signal.ch_names, signal.sfreq, tuple(steps[:place]))
        prior = population((_covariance(so_far, session) for session in sessions), align.groups)
        steps[place] = align.model_copy(update={"prior": prior})
    return tuple(steps)


def _covariance(signal: Signal, session: Session) -> NDArray[np.float64]:
    """Return the second moments of a recording's channels behind the steps, (C, C)."""
    x = np.concatenate([chunk.data for chunk in signal.stretches(session.recording)]).astype(np.float64)
    cov: NDArray[np.float64] = x.T @ x / len(x)
    return cov
