"""Whether two ways of running a bundle compute the same: outputs, final state, codes and labels.

Compiled code is not trusted before it was compared.  The yardstick is ONNX Runtime on the CPU in float32,
on a signal that went through the bundle's own filters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from engine.adapt import fit_contract
from engine.backends import Arrays, Running
from engine.bundle import Bundle
from engine.framer import Framer
from streamer.errors import EndOfStream
from streamer.repair import Repair
from streamer.types import Chunk, StreamInfo, make_chunk

Frames = NDArray[np.float32]  # (n, *graph.input.shape)

MIN_FRAMES, MAX_FRAMES = 64, 512
NOISE = {"uV": 20.0, "mV": 0.02, "V": 20e-6}  # EEG and EMG of everyday size
NOISE_POLE = 0.95  # mostly slow, as both are
ROW_SHIFT = 7  # frames by which the rows of a batch differ


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two runs lie apart.

    Attributes
    ----------
    values, state : float
        Largest difference of an output, and of a state at the end, as a share of the largest value there;
        infinite where something is not finite, or a state of whole numbers differs.
    codes : float or None
        Share of equal codes, in the output where it is lowest; None: no output is of whole numbers.
    labels : float or None
        Share of steps with the same most likely class; None for a bundle that does not decide.
    """

    values: float
    state: float
    codes: float | None = None
    labels: float | None = None


def compare(bundle: Bundle, reference: Running, other: Running, frames: Frames) -> Agreement:
    """Run both over the frames, from a fresh start."""
    manifest = bundle.manifest
    floats = {t.name: _Distance() for t in manifest.graph.outputs if t.dtype == "float32"}
    whole = {t.name: [0, 0] for t in manifest.graph.outputs if t.dtype != "float32"}
    logits = manifest.readout.logits if manifest.readout is not None else None
    same_label = []
    reference.reset()
    other.reset()
    for frame in frames:
        one, two = _stepped(reference, frame), _stepped(other, frame)
        for name, distance in floats.items():
            distance.add(one[name], two[name])
        for name, count in whole.items():
            count[0] += int(np.count_nonzero(one[name] == two[name]))
            count[1] += one[name].size
        if logits is not None:
            same_label.append(np.mean(one[logits].argmax(-1) == two[logits].argmax(-1)))
    state = [_state_distance(a, b) for a, b in zip(reference.snapshot(), other.snapshot(), strict=True)]
    return Agreement(
        values=max((d.share for d in floats.values()), default=0.0),
        state=max(state, default=0.0),
        codes=min((equal / n for equal, n in whole.values()), default=None),
        labels=float(np.mean(same_label)) if same_label else None,
    )


def shortfalls(found: Agreement, bar: Agreement) -> list[str]:
    """Return where an agreement misses the bar, in words; empty when it does not."""
    wrong = []
    for name in ("values", "state"):
        share, most = getattr(found, name), getattr(bar, name)
        if not share <= most:
            wrong.append(f"{name} differ by {share:.2g} of their range, at most {most:g} is allowed")
    for name in ("codes", "labels"):
        equal, least = getattr(found, name), getattr(bar, name)
        if equal is not None and least is not None and equal < least:
            wrong.append(f"{equal:.2%} of the {name} agree, at least {least:.2%} must")
    return wrong


def noise_frames(bundle: Bundle, seed: int = 0) -> Frames:
    """Return frames of noise through the bundle's filters, or of codes; more than its context holds."""
    graph = bundle.manifest.graph
    n = min(max(MIN_FRAMES, math.ceil(1.25 * graph.left_context / graph.hop)), MAX_FRAMES)
    rng = np.random.default_rng(seed)
    if bundle.manifest.signal is not None:
        return _codes(bundle, rng, n)
    return _rows(bundle, _through(bundle, _stream(bundle), _noise(bundle, rng), n))


def recording_frames(bundle: Bundle, file: Path) -> Frames:
    """Return the frames of a recording, as a run would see them, `MAX_FRAMES` at most.

    Raises
    ------
    RecordingError, StreamMismatch
        It cannot be read, or does not fit the bundle.
    """
    from streamer.sources.recording import Config as Recording

    with Recording(path=file).open() as source:
        repair = Repair(source.info)

        def chunks() -> Iterator[Chunk]:
            while True:
                try:
                    chunk = source.read(0.0)
                except EndOfStream:
                    return
                if chunk is not None:
                    yield repair(chunk)

        return _rows(bundle, _through(bundle, source.info, chunks(), MAX_FRAMES))


@dataclass(slots=True)
class _Distance:
    """Largest difference and largest value of one output, over all steps."""

    difference: float = 0.0
    size: float = 0.0

    def add(self, one: NDArray[Any], two: NDArray[Any]) -> None:
        gap = float(np.abs(one - two).max())
        self.difference = max(self.difference, gap) if math.isfinite(gap) else math.inf
        self.size = max(self.size, float(np.abs(one).max()))

    @property
    def share(self) -> float:
        return self.difference / self.size if self.size else self.difference


def _stepped(runner: Running, frame: NDArray[np.float32]) -> Arrays:
    runner.input[:] = frame
    return runner.step()


def _state_distance(one: NDArray[Any], two: NDArray[Any]) -> float:
    if one.dtype != np.float32:
        return 0.0 if np.array_equal(one, two) else math.inf
    distance = _Distance()
    distance.add(one, two)
    return distance.share


def _stream(bundle: Bundle) -> StreamInfo:
    """Return the stream that fits the bundle without any adaptation."""
    contract = bundle.manifest.input
    names = contract.ch_names or tuple(f"C{i}" for i in range(bundle.manifest.graph.input.shape[0]))
    types = (contract.stype.lower(),) * len(names)
    return StreamInfo("noise", "noise", contract.stype, contract.sfreq, names, types, contract.unit)


def _noise(bundle: Bundle, rng: np.random.Generator) -> Iterator[Chunk]:
    info, index = _stream(bundle), 0
    past = np.zeros((1, info.n_chans))
    while True:
        white = rng.standard_normal((max(1, round(info.sfreq)), info.n_chans))
        slow, past = lfilter([math.sqrt(1 - NOISE_POLE**2)], [1.0, -NOISE_POLE], white, axis=0, zi=past)
        times = (index + np.arange(len(slow))) / info.sfreq
        yield make_chunk((NOISE[info.unit] * slow).astype(np.float32), index, times)
        index += len(slow)


def _through(bundle: Bundle, info: StreamInfo, chunks: Iterator[Chunk], n: int) -> Frames:
    """Return at most n frames, (n, rows or 1, C, hop): what the chain makes of these chunks."""
    contract, shape = bundle.manifest.input, bundle.manifest.graph.input.shape
    if contract.per_channel:  # any montage will do, whichever this bundle was sized for
        contract = contract.model_copy(update={"ch_names": ()})
    chain = fit_contract(contract, f"bundle {bundle.label}", info).chain
    rows = chain.info.n_chans if contract.per_channel else 1
    buffer = np.zeros((rows, *shape[1:]), dtype=np.float32)
    framer, frames = Framer(buffer, 0), []
    for chunk in chunks:
        for _ in framer.frames(chain(chunk)):
            frames.append(buffer.copy())
            if len(frames) == n:
                return np.stack(frames)
    return np.stack(frames) if frames else np.zeros((0, *buffer.shape), dtype=np.float32)


def _rows(bundle: Bundle, frames: Frames) -> Frames:
    """Return the frames with as many rows as the graph has: what is missing is the same, at other times."""
    n = bundle.manifest.graph.input.shape[0]
    copies = [np.roll(frames, ROW_SHIFT * i, axis=0) for i in range(math.ceil(n / max(frames.shape[1], 1)))]
    return np.concatenate(copies, axis=1)[:, :n]


def _codes(bundle: Bundle, rng: np.random.Generator, n: int) -> Frames:
    """Return frames of codes drawn at random: (n, rows, codes and gain, hop)."""
    signal, shape = bundle.signal, bundle.manifest.graph.input.shape
    frames = rng.integers(0, signal.codebook_size, (n, *shape)).astype(np.float32)
    if signal.n_gains is not None:
        gains = frames.reshape(n, shape[0], -1, signal.n_rows, shape[2])  # (n, rows, C, codes and gain, hop)
        gains[..., -1, :] = rng.integers(0, signal.n_gains, gains[..., -1, :].shape)
    return frames


def halves(frames: Frames) -> tuple[Frames, Frames]:
    """Return the earlier and the later half: ranges are taken from one, and judged on the other."""
    middle = len(frames) // 2
    return frames[:middle], frames[middle:]


def at_rows(bundle: Bundle, rows: int) -> Bundle:
    """Return the bundle with the shapes of so many rows: channels, or streams."""
    if not bundle.manifest.input.per_channel:
        return bundle.batched(rows)
    return bundle.sized([f"C{i}" for i in range(rows)])
