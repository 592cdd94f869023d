"""One vector per window from what a causal net, or a fixed transform, says while a recording is played.

A net is stepped over each recording from its first sample with carried state, behind the DSP list it was
pretrained with, exactly as live; its continuous latents are then pooled over the frames of each window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline.probe_recipe import Task
from offline.probe_tasks import Windows
from streamer.chain import Chain
from streamer.dsp import StepConfig
from streamer.dsp.montage import Config as Montage
from streamer.dsp.resample import Config as Resample
from streamer.errors import ConfigError
from streamer.sources.recording import Recording
from streamer.types import Chunk, make_chunk

HOPS = 500  # per call of a net; any other number gives the same latents
FLOOR = 1e-6  # of a spread, so that its logarithm is finite where a latent stands still
Features = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Signal:
    """What a net looks at: the channels, the rate and the steps that lead there."""

    ch_names: tuple[str, ...]
    sfreq: float
    dsp: tuple[StepConfig, ...]

    def play(self, recording: Recording) -> Chunk:
        """Return the recording behind the steps, from its first sample on.

        The order is that of a live session (`engine.adapt.fit`): montage, rate, then the list.

        Raises
        ------
        StreamMismatch
            A channel is not there, or a step cannot work on the recording.
        """
        pick = Montage(ch_names=self.ch_names, min_present=len(self.ch_names))
        rate = [] if recording.info.sfreq == self.sfreq else [Resample(sfreq=self.sfreq)]
        chain = Chain([pick, *rate, *self.dsp], recording.info)
        return chain(make_chunk(recording.data, 0, recording.times))


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
        chunk = signal.play(session.recording)
        latents = step_through(part, chunk.data)  # (F, n)
        ends = chunk.times[part.hop - 1 :: part.hop][: len(latents)]  # time of each frame's last sample
        mine = np.flatnonzero(windows.session == i)
        rows += [pool(latents[inside(ends, windows, k)]) for k in mine.tolist()]
        progress(i + 1, len(windows.sessions))
    return np.stack(rows)


def step_through(part: Any, data: NDArray[np.float32], hops: int = HOPS) -> Features:
    """Return the latents of every whole frame, (F, n): channel by channel, then dimension.

    Parameters
    ----------
    data : ndarray, shape (n_times, n_chans), float32
        At the part's rate.
    hops : int
        Per call: changes nothing but the memory used.
    """
    return np.concatenate([latent.numpy() for latent in _calls(part, data, hops)])


def _calls(part: Any, data: NDArray[np.float32], hops: int) -> Iterator[Tensor]:
    x = torch.from_numpy(np.ascontiguousarray(data.T))  # (C, T)
    x = x[:, None] if part.per_channel else x[None]  # channels are rows, or one row holds them all
    state, size = part.init_state(len(x)), hops * part.hop
    whole = x.shape[-1] // part.hop * part.hop
    for start in range(0, whole, size):
        with torch.inference_mode():
            outputs, state = part(x[..., start : min(start + size, whole)], state)
        kept = [outputs["latent"], *([outputs["gain"]] if "gain" in outputs else [])]  # (B, F, [C, [D]])
        yield torch.cat([each.movedim(1, 0).flatten(1).float() for each in kept], dim=1)  # (F, n)


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
        chunk = signal.play(session.recording)
        mine = np.flatnonzero(windows.session == i)
        pieces += [chunk.data[inside(chunk.times, windows, k)].T for k in mine.tolist()]
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
