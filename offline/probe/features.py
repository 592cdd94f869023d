"""One vector per window from what a causal net, or a fixed transform, says while a recording is played.

A net is stepped over each recording from its first sample with carried state, and anew after every hole,
behind the DSP list it was pretrained with, exactly as live; its continuous latents are then pooled over the
frames of each window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline.data.segments import cleaned
from offline.probe.recipe import Task
from offline.probe.tasks import Windows
from streamer.chain import Chain
from streamer.dsp import StepConfig
from streamer.dsp.montage import Config as Montage
from streamer.dsp.resample import Config as Resample
from streamer.errors import ConfigError, RecordingError
from streamer.sources.recording import Recording
from streamer.types import Chunk, make_chunk

HOPS = 500  # per call of a net; any other number gives the same latents
ROWS = 256  # stretches of equal length that are stepped side by side; the same holds
FLOOR = 1e-6  # of a spread, so that its logarithm is finite where a latent stands still
Features = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Signal without a hole: ``data`` (n_times, n_chans) float32, ``times`` (n_times,) float64, s."""

    data: NDArray[np.float32]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True)
class Signal:
    """What a net looks at: the channels, the rate and the steps that lead there."""

    ch_names: tuple[str, ...]
    sfreq: float
    dsp: tuple[StepConfig, ...]

    def play(self, recording: Recording) -> Stretch:
        """Return a recording without holes behind the steps, from its first sample on.

        The order is that of a live session (`engine.adapt.fit`): montage, rate, then the list.

        Raises
        ------
        StreamMismatch
            A channel is not there, or a step cannot work on the recording.
        RecordingError
            It has holes.
        """
        if recording.breaks:
            raise RecordingError(
                f"{recording.info.name} has {len(recording.breaks)} holes: play its stretches one by one"
            )
        return self.stretches(recording)[0]

    def stretches(self, recording: Recording) -> list[Stretch]:
        """Return the stretches between a recording's holes, the steps reset before each.

        What is a hole is decided as live: one that `streamer.repair` fills is none.

        Raises
        ------
        StreamMismatch
            As `play`.
        """
        pick = Montage(ch_names=self.ch_names, min_present=len(self.ch_names))
        rate = [] if recording.info.sfreq == self.sfreq else [Resample(sfreq=self.sfreq)]
        chain = Chain([pick, *rate, *self.dsp], recording.info)
        whole = [make_chunk(recording.data, 0, recording.times)]
        played: list[list[Chunk]] = []
        for chunk in cleaned(recording) if recording.breaks else whole:
            if chunk.discontinuity or not played:
                chain.reset()
                played.append([])
            played[-1].append(chain(chunk))
        return [
            Stretch(np.concatenate([one.data for one in some]), np.concatenate([one.times for one in some]))
            for some in played
        ]


def of_task(task: Task) -> Signal:
    """Return the signal of the models that bring none of their own."""
    return Signal(task.ch_names, task.sfreq, task.dsp)


def pooled_latents(
    part: Any, signal: Signal, windows: Windows, progress: Progress = lambda done, total: None
) -> Features:
    """Return mean and log spread over each window's frames of every latent of every channel.

    Parameters
    ----------
    part : nn.Module
        On the state contract, with an output ``latent``; see `offline.systems`.

    Returns
    -------
    ndarray, shape (n_windows, 2 * n_chans * dim), float32
    """
    rows: list[Features] = []
    for i, session in enumerate(windows.sessions):
        latents, ends = _frames(part, signal, session.recording)
        mine = np.flatnonzero(windows.session == i)
        rows += [pool(latents[inside(ends, windows, k)]) for k in mine.tolist()]
        progress(i + 1, len(windows.sessions))
    return np.stack(rows)


def _frames(part: Any, signal: Signal, recording: Recording) -> tuple[Features, NDArray[np.float64]]:
    """Return the latents of a recording's frames, (F, n), and the time of each frame's last sample, (F,)."""
    stretches = [one for one in signal.stretches(recording) if len(one) >= part.hop]
    if not stretches:
        raise ConfigError(f"{recording.info.name} holds no frame of {part.hop} samples: take a shorter hop.")
    latents = np.concatenate(step_apart(part, [one.data for one in stretches]))
    return latents, np.concatenate([one.times[part.hop - 1 :: part.hop] for one in stretches])


def step_through(part: Any, data: NDArray[np.float32], hops: int = HOPS) -> Features:
    """Return the latents of every whole frame, (F, n): channel by channel, then dimension.

    Parameters
    ----------
    data : ndarray, shape (n_times, n_chans), float32
        At the part's rate.
    hops : int
        Per call: changes nothing but the memory used.
    """
    (latents,) = step_together(part, data[None], hops)
    return np.asarray(latents)


def step_apart(part: Any, stretches: Sequence[NDArray[np.float32]]) -> list[Features]:
    """Return the latents of stretches (n_times, n_chans) of a hop or more, each stepped from an empty past.

    A night of epochs is a thousand stretches: those of one length are the rows of a batch.
    """
    found: list[Features] = [np.empty(0, dtype=np.float32)] * len(stretches)
    lengths = np.array([len(stretch) for stretch in stretches])
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        for some in (places[i : i + ROWS] for i in range(0, len(places), ROWS)):
            rows = step_together(part, np.stack([stretches[k] for k in some]))
            for k, row in zip(some.tolist(), rows, strict=True):
                found[k] = row
    return found


def step_together(part: Any, data: NDArray[np.float32], hops: int = HOPS) -> Features:
    """Return the latents of every whole frame of each row, (R, F, n); ``data`` is (R, n_times, n_chans)."""
    return np.concatenate([latent.numpy() for latent in _calls(part, data, hops)], axis=1)


def _calls(part: Any, data: NDArray[np.float32], hops: int) -> Iterator[Tensor]:
    n_rows, n_times, _ = data.shape
    x = torch.from_numpy(np.ascontiguousarray(data.transpose(0, 2, 1)))  # (R, C, T)
    x = x.flatten(0, 1)[:, None] if part.per_channel else x  # channels are rows, or a row holds them all
    state, size = part.init_state(len(x)), hops * part.hop
    whole = n_times // part.hop * part.hop
    for start in range(0, whole, size):
        with torch.inference_mode():
            outputs, state = part(x[..., start : min(start + size, whole)], state)
        kept = [outputs["latent"], *([outputs["gain"]] if "gain" in outputs else [])]  # (rows, F, [C, [D]])
        framed = [each.float().unflatten(0, (n_rows, -1)).movedim(1, 2).flatten(2) for each in kept]
        yield torch.cat(framed, dim=2)  # (R, F, n)


def inside(times: NDArray[np.float64], windows: Windows, k: int) -> slice:
    """Return where ``times`` lie in window ``k``: after its start, up to and with its end.

    Raises
    ------
    ConfigError
        Nowhere: the window is shorter than a hop.
    """
    first, stop = np.searchsorted(times, (windows.start_s[k] + 1e-9, windows.stop_s[k] + 1e-9), side="right")
    if first == stop:
        raise ConfigError(
            f"A window of {windows.stop_s[k] - windows.start_s[k]:g} s holds no frame: make window_s longer "
            "than the hop."
        )
    return slice(int(first), int(stop))


def pool(latents: Features) -> Features:
    """Return the mean over frames and the log of the standard deviation, side by side; (F, n) -> (2 n,)."""
    spread = np.log(latents.std(axis=0) + FLOOR)
    return np.concatenate([latents.mean(axis=0), spread]).astype(np.float32)


def cut(signal: Signal, windows: Windows) -> Features:
    """Return the signal of each window, (n_windows, n_chans, n_times), all of the shortest one's length."""
    pieces = []
    for i, session in enumerate(windows.sessions):
        stretches = signal.stretches(session.recording)
        data = np.concatenate([one.data for one in stretches])
        times = np.concatenate([one.times for one in stretches])
        mine = np.flatnonzero(windows.session == i)
        pieces += [data[inside(times, windows, k)].T for k in mine.tolist()]
    n_times = min(piece.shape[1] for piece in pieces)
    return np.ascontiguousarray(np.stack([piece[:, -n_times:] for piece in pieces]))


def band_powers(x: Features, sfreq: float, bands: Sequence[tuple[float, float]]) -> Features:
    """Return the log power of each channel in each band; (n, C, T) -> (n, C * n_bands).

    Raises
    ------
    ConfigError
        A band that holds no frequency of a window this long.
    """
    spectrum = np.square(np.abs(np.fft.rfft(x * np.hanning(x.shape[-1]), axis=-1)))
    freqs = np.fft.rfftfreq(x.shape[-1], 1 / sfreq)
    columns = []
    for low, high in bands:
        within = (freqs >= low) & (freqs < high)
        if not within.any():
            raise ConfigError(
                f"Band {low:g}-{high:g} Hz holds no frequency of a window of {x.shape[-1] / sfreq:g} s: they "
                f"are {freqs[1]:g} Hz apart, up to {freqs[-1]:g} Hz. Widen the band."
            )
        columns.append(np.log(spectrum[..., within].mean(axis=-1) + 1e-12))
    return np.concatenate(columns, axis=-1).astype(np.float32)


def time_domain(x: Features) -> Features:
    """Return log root mean square, log waveform length and share of zero crossings; (n, C, T) -> (n, 3 C).

    Hudgins, Parker and Scott, IEEE Trans. Biomed. Eng. 40(1), 1993.
    """
    power = np.log(np.sqrt(np.square(x).mean(axis=-1)) + FLOOR)
    length = np.log(np.abs(np.diff(x, axis=-1)).mean(axis=-1) + FLOOR)
    crossings = (np.diff(np.signbit(x), axis=-1)).mean(axis=-1)
    return np.concatenate([power, length, crossings], axis=-1).astype(np.float32)


class RawFrames(nn.Module):
    """A net that passes its input on: the latent of a frame is its samples, channel by channel."""

    per_channel = True
    left_context = 0
    delay = 0

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.hop = hop

    def init_state(self, _batch: int) -> tuple[Tensor, ...]:
        """Return the state: none."""
        return ()

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Return the frames of ``x`` (B, 1, T) as latents (B, T / hop, hop)."""
        return {"latent": x.reshape(len(x), -1, self.hop)}, state
