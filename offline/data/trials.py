"""Recordings as the model meets them: preprocessed as live, cut around the cues, labelled at every hop."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor
from torch.utils.data import Dataset

from offline.data.corpus import Recording
from streamer.chain import Chain
from streamer.components import Config
from streamer.dsp import StepConfig
from streamer.dsp.align import Config as Align
from streamer.dsp.montage import Config as Montage
from streamer.errors import RecordingError
from streamer.types import Samples, make_chunk

IGNORE = -100  # hops that teach nothing: torch's own default for cross-entropy
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
Span = tuple[int, int, int]


class Window(Config):
    """What is cut around a cue, seconds.

    Attributes
    ----------
    before_s, after_s : float
        Signal before the cue and after it.
    from_s, to_s : float
        The trial's answer is the mean over the hops in between.  For as long as ``from_s`` after any marker
        nobody has begun, or stopped, and hops are not scored.
    settle_s : float
        At the start of the window, where the model's past is cut off, no hop is scored; at least its left
        context.  With less, the net tells time by the cut: .80 of the hops right in windows, .47 live.
    jitter_s : float
        Windows start this much earlier or later, at random.
    """

    before_s: float = 3.6
    after_s: float = 5.0
    from_s: float = 0.5
    to_s: float = 3.0
    settle_s: float = 2.1
    jitter_s: float = 2.0

    @model_validator(mode="after")
    def _holds_the_answer(self) -> Self:
        if self.after_s - self.jitter_s < self.to_s:
            raise ValueError("after_s - jitter_s must reach to_s: else a shifted window cuts the answer off")
        if self.before_s - self.jitter_s + self.from_s < self.settle_s:
            raise ValueError("before_s - jitter_s + from_s must reach settle_s: else the answer is unsettled")
        return self


class Augment(Config):
    """Random changes that leave the label true, or change it knowingly.

    Attributes
    ----------
    mirror : float
        Share of windows whose hemispheres and hands are swapped.
    gain, channel_gain : float
        SD of the log gain of a window and of each channel.
    drop_channel : float
        Share of channels set to zero.
    noise : float
        SD of added white noise; the signal's is about 1.
    """

    mirror: float = 0.5
    gain: float = 0.15
    channel_gain: float = 0.1
    drop_channel: float = 0.08
    noise: float = 0.05


@dataclass(frozen=True, slots=True)
class Prepared:
    """A preprocessed recording.

    Attributes
    ----------
    subject : str
    data : ndarray, shape (n_times, n_chans), float32
        About unit variance.
    spans : tuple of (int, int, int)
        What was asked for, rest included: first sample, sample after the last, class.
    """

    subject: str
    data: Samples
    spans: tuple[Span, ...]


def prepare(
    recording: Recording, ch_names: Sequence[str], dsp: Sequence[StepConfig], classes: Sequence[str]
) -> Prepared:
    """Run the bundle's DSP list over a recording from its first sample, as the engine does."""
    data = filtered(recording, ch_names, dsp)
    sfreq = recording.info.sfreq
    spans = [
        (round(m.time * sfreq), round((m.time + m.duration) * sfreq), list(classes).index(m.label))
        for m in recording.cues(classes)
    ]
    return Prepared(recording.subject, data, tuple(spans))


def filtered(recording: Recording, ch_names: Sequence[str], dsp: Sequence[StepConfig]) -> Samples:
    """Return the recording's ``ch_names`` behind the DSP list, (n_times, n_chans)."""
    pick = Montage(ch_names=tuple(ch_names), min_present=len(ch_names))
    chain = Chain([pick, *dsp], recording.info)
    times = np.arange(len(recording)) / recording.info.sfreq
    return chain(make_chunk(recording.data, 0, times)).data


def with_prior(
    recordings: Iterable[Recording], ch_names: Sequence[str], dsp: Sequence[StepConfig]
) -> tuple[StepConfig, ...]:
    """Give an `align` step that has no prior the population's covariance at its place in the list.

    The mean over recordings of the covariance at trace 1, times the median trace: no loud recording counts
    for more than a quiet one.
    """
    steps = list(dsp)
    places = [i for i, step in enumerate(steps) if isinstance(step, Align) and step.prior is None]
    if not places:
        return tuple(steps)
    place = places[0]
    filtered_signals = (filtered(one, ch_names, steps[:place]).astype(np.float64) for one in recordings)
    prior = population(x.T @ x / len(x) for x in filtered_signals)
    steps[place] = steps[place].model_copy(update={"prior": prior})
    return tuple(steps)


def population(covs: Iterable[NDArray[np.float64]]) -> tuple[tuple[float, ...], ...]:
    """Return the covariance to start from: the mean of the shapes at trace 1, times the median trace.

    Parameters
    ----------
    covs : iterable of ndarray, shape (n_chans, n_chans), float64
        One per recording.
    """
    each = list(covs)
    traces = [np.trace(cov) for cov in each]
    shapes = [cov / trace for cov, trace in zip(each, traces, strict=True)]
    prior = np.mean(shapes, axis=0) * np.median(traces)
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in (prior + prior.T) / 2)


def mirror(ch_names: Sequence[str]) -> list[int]:
    """Return the order of channels that swaps the hemispheres: 10-20 numbers are odd left, even right.

    Raises
    ------
    RecordingError
        A channel has no counterpart.
    """
    order = []
    for name in ch_names:
        twin = re.sub(r"\d+$", lambda m: str(int(m[0]) + (1 if int(m[0]) % 2 else -1)), name)
        if twin not in ch_names:
            raise RecordingError(f"Channel {name} has no counterpart {twin} to mirror with; set mirror to 0.")
        order.append(list(ch_names).index(twin))
    return order


class TrialBatches(Dataset[Batch]):
    """Batches of windows around cues, drawn anew each epoch; an item is a whole batch.

    A batch is ``x`` (B, C, T) float32, ``hops`` (B, T / hop) int64 class of each hop or `IGNORE`, ``side``
    (B,) int64 class of the trial minus 1, and ``answer`` (B, T / hop) float32, 1 where the trial's answer
    is taken.  The draw depends on ``seed`` and ``epoch`` alone, so a resumed training sees the same batches.

    Parameters
    ----------
    augment : Augment or None
        None: cues in order, no jitter, nothing random; what validation uses.
    """

    def __init__(
        self,
        prepared: Sequence[Prepared],
        window: Window,
        *,
        sfreq: float,
        hop: int,
        batch_size: int,
        augment: Augment | None = None,
        mirror_order: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        self._prepared, self._window, self._augment = prepared, window, augment
        self._hop, self._sfreq, self._mirror = hop, sfreq, list(mirror_order)
        self._seed, self._batch_size = seed, batch_size
        self._before = round(window.before_s * sfreq / hop) * hop
        self._length = self._before + round(window.after_s * sfreq / hop) * hop
        last = round(window.to_s * sfreq)
        self.trials = [
            (i, span)
            for i, p in enumerate(prepared)
            for span in p.spans
            if span[2] > 0 and span[0] + last <= len(p.data)
        ]
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw for this epoch from now on."""
        self._epoch = epoch
        shuffled = np.random.default_rng((self._seed, epoch)).permutation(len(self.trials))
        self._order = shuffled if self._augment else np.arange(len(self.trials))

    def __len__(self) -> int:
        full, rest = divmod(len(self.trials), self._batch_size)
        return max(full, 1) if self._augment else full + bool(rest)

    def subjects(self) -> list[str]:
        """Return the subject of each trial, in order."""
        return [self._prepared[i].subject for i, _ in self.trials]

    def __getitem__(self, item: int) -> Batch:
        if not 0 <= item < len(self):
            raise IndexError(item)
        rng = np.random.default_rng((self._seed, self._epoch, item))
        rows = self._order[item * self._batch_size : (item + 1) * self._batch_size]
        windows = [self._cut(index, cue, rng) for index, cue in (self.trials[row] for row in rows)]
        x, hops, side, answer = (np.stack(parts) for parts in zip(*windows, strict=True))
        x = np.ascontiguousarray(x.transpose(0, 2, 1))  # (B, C, T)
        if self._augment:
            x, hops, side = augmented(x, hops, side, self._augment, self._mirror, rng)
        return torch.from_numpy(x), torch.from_numpy(hops), torch.from_numpy(side), torch.from_numpy(answer)

    def _cut(
        self, index: int, cue: Span, rng: np.random.Generator
    ) -> tuple[Samples, NDArray[np.int64], NDArray[np.int64], Samples]:
        """Return x (T, C), hops (T / hop,), side () and answer (T / hop,) of one trial."""
        w, data = self._window, self._prepared[index].data
        jitter = round(w.jitter_s * self._sfreq) if self._augment else 0
        start = cue[0] - self._before + int(rng.integers(-jitter, jitter + 1))
        x = np.zeros((self._length, data.shape[1]), dtype=np.float32)
        low, high = max(start, 0), min(start + self._length, len(data))
        x[low - start : high - start] = data[low:high]
        ends = start + np.arange(self._hop, self._length + 1, self._hop) - 1  # last sample of each hop
        since = (ends - cue[0]) / self._sfreq  # seconds since the cue
        answer = ((since > w.from_s) & (since <= w.to_s)).astype(np.float32)
        hops = self._labels(self._prepared[index].spans, ends)
        hops[((ends - start) / self._sfreq < w.settle_s) | (ends < 0) | (ends >= len(data))] = IGNORE
        return x, hops, np.array(cue[2] - 1, dtype=np.int64), answer

    def _labels(self, spans: Sequence[Span], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class asked for at these samples, `IGNORE` where none is or it has just changed."""
        wait = self._window.from_s * self._sfreq
        labels = np.full(len(ends), IGNORE, dtype=np.int64)
        for first, after, name in spans:
            labels[(ends - first > wait) & (ends < after)] = name
        return labels


def augmented(
    x: Samples,
    hops: NDArray[np.int64],
    side: NDArray[np.int64],
    config: Augment,
    mirror_order: Sequence[int],
    rng: np.random.Generator,
) -> tuple[Samples, NDArray[np.int64], NDArray[np.int64]]:
    """Return changed copies of ``x`` (B, C, T), ``hops`` (B, T / hop) and ``side`` (B,)."""
    n, n_chans, _ = x.shape
    if config.mirror:
        flip: NDArray[np.bool_] = np.less(rng.random(n), config.mirror)
        x[flip] = x[flip][:, list(mirror_order)]
        other = np.where(hops > 0, 3 - hops, hops)
        hops, side = np.where(flip[:, None], other, hops), np.where(flip, 1 - side, side)
    gain = np.exp(rng.normal(0, config.gain, (n, 1, 1)) + rng.normal(0, config.channel_gain, (n, n_chans, 1)))
    kept = rng.random((n, n_chans, 1)) >= config.drop_channel
    noise = rng.standard_normal(x.shape, dtype=np.float32) * np.float32(config.noise)
    return x * (gain * kept).astype(np.float32) + noise, hops, side
