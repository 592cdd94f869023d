"""Which patches to hide: at random, in blocks, or by importance with a curriculum (BrainRVQ).

Everything random about a row comes from that row's own generator, so a row is masked alike wherever, and in
whatever company, it is processed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from offline.systems import Segments
from streamer.components import Config as BaseConfig
from streamer.errors import ConfigError

Mask = NDArray[np.bool_]
Scores = NDArray[np.float64]
TINY = 1e-12
BENT = 3  # samples that a second difference takes


class Bands(NamedTuple):
    """Frequencies (Hz) that a modality lives on, and those that are noise; None: up to Nyquist."""

    low: float
    high: float | None
    noise_below: float
    noise_above: float | None


# The published bands are those of EEG: by them the muscle's own band scores lowest.
BANDS = {"EEG": Bands(4.0, 30.0, 2.0, 45.0), "EMG": Bands(20.0, 450.0, 10.0, None)}


class Config(BaseConfig):
    """Settings.

    Attributes
    ----------
    kind : str
        ``random``: patches drawn evenly.  ``block``: runs of ``block_frames`` frames, on a share
        ``block_channels`` of the channels each.  ``importance``: see `importance_mask`.
    ratio : float
        Share to hide, before ``punch`` and ``longest_run``; the log has the effective share.
    block_frames : int
    block_channels : float
        1 hides whole frames: what is left to a causal net is the past alone.
    punch : float
        Share of the hidden patches opened again; ``importance`` only, like the following.
    longest_run : int
        Longer runs of hidden patches in one channel are broken.
    temperature : float
        Of the softmax over standardised scores.
    start, rise : float
        Weight of importance against chance: ``start + rise * progress``.
    """

    kind: Literal["random", "block", "importance"] = "importance"
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    block_frames: PositiveInt = 10
    block_channels: Annotated[float, Field(gt=0, le=1)] = 1.0
    punch: Annotated[float, Field(ge=0, lt=1)] = 0.1
    longest_run: PositiveInt = 5
    temperature: PositiveFloat = 0.8
    start: Annotated[float, Field(ge=0, le=1)] = 0.2
    rise: Annotated[float, Field(ge=0, le=1)] = 0.5


def mask(config: Config, batch: Segments, hop: int, sfreq: float, stype: str, progress: float) -> Tensor:
    """Draw the mask of a batch.

    Returns
    -------
    Tensor, shape (B, C, F), bool, on the batch's device
        True is hidden; at least one patch of every row is, and at least one is not.
    """
    rngs = [batch.rng(row) for row in range(len(batch.x))]
    n_chans, n_frames = batch.x.shape[1], batch.x.shape[-1] // hop
    if n_chans * n_frames < 2:
        raise ConfigError("A segment of one patch has nothing to hide: make crop_s longer.")
    if config.kind == "importance":
        scores = importance(batch.x, hop, sfreq, stype).cpu().numpy()
        weight = config.start + config.rise * progress
        drawn = [importance_mask(config, s, weight, rng) for s, rng in zip(scores, rngs, strict=True)]
    elif config.kind == "block":
        drawn = [_blocks(config, n_chans, n_frames, rng) for rng in rngs]
    else:
        drawn = [_draw(np.zeros((n_chans, n_frames)), config.ratio, rng) for rng in rngs]
    return torch.from_numpy(np.stack(drawn)).to(batch.x.device)


def importance(x: Tensor, hop: int, sfreq: float, stype: str) -> Tensor:
    """Score patches by what they may hold: BrainRVQ's five terms, each spread over 0..1 within the row.

    .30 share of power in the useful band + .25 share outside the noise bands + .20 Hjorth complexity
    + .15 irregularity (of the slope's absolute value) + .10 Hjorth mobility.

    Parameters
    ----------
    x : Tensor, shape (B, C, T), µV
    stype : str
        Whose bands.

    Returns
    -------
    Tensor, shape (B, C, F), float32, 0 to 1
    """
    if hop < BENT:
        raise ConfigError(
            f"Patches of {hop} samples have no curvature: importance needs {BENT}, choose another mask."
        )
    patch = x.float().reshape(*x.shape[:2], -1, hop)  # (B, C, F, hop)
    terms = [*_band_terms(patch, sfreq, BANDS[stype.upper()]), *_shape_terms(patch)]
    return sum(
        (w * _spread(t) for w, t in zip((0.30, 0.25, 0.20, 0.15, 0.10), terms, strict=True)), x.new_zeros(())
    )


def importance_mask(config: Config, scores: Scores, weight: float, rng: np.random.Generator) -> Mask:
    """Draw the mask of one row by its scores, as published.

    ``weight`` of importance and the rest of chance, standardised, softmax, drawn without replacement; then
    some hidden patches are opened again and long runs are broken (along each channel; the release breaks
    them along the flattened order, across the border of two channels).
    """
    mixed = weight * scores + (1 - weight) * rng.random(scores.shape)
    standard = (mixed - mixed.mean()) / (mixed.std() + TINY)
    hidden = _draw(standard / config.temperature, config.ratio, rng)
    places = np.flatnonzero(hidden)
    n_opened = min(round(config.punch * len(places)), len(places) - 1)
    opened = rng.choice(places, size=n_opened, replace=False)
    hidden.flat[opened] = False
    return _broken(hidden, config.longest_run)


def bridged(x: Tensor, mask: Tensor) -> Tensor:
    """Return ``x`` (B, C, T) with straight lines over its hidden patches, mask (B, C, F).

    A line runs from the last sample before to the first after; at an end of the segment it is level.
    """
    hop, n_times = x.shape[-1] // mask.shape[-1], x.shape[-1]
    visible = ~mask.repeat_interleave(hop, dim=-1)  # (B, C, T)
    place = torch.arange(n_times, device=x.device).expand_as(x)
    before = torch.where(visible, place, -1).cummax(dim=-1).values
    after = torch.where(visible, place, n_times).flip(-1).cummin(dim=-1).values.flip(-1)
    before, after = torch.where(before < 0, after, before), torch.where(after >= n_times, before, after)
    before, after = before.clamp(0, n_times - 1), after.clamp(0, n_times - 1)
    share = (place - before) / (after - before).clamp(min=1)
    start, end = x.gather(-1, before), x.gather(-1, after)
    return torch.where(visible, x, start + (end - start) * share)


def _draw(logits: Scores, ratio: float, rng: np.random.Generator) -> Mask:
    """Draw a share of the places without replacement, by softmax of the logits.

    The largest of logits + Gumbel noise are such a draw (Vieira 2014; Kool et al. 2019, arXiv:1903.06059).
    """
    n = min(max(round(ratio * logits.size), 1), logits.size - 1)
    order = np.argsort(logits.ravel() + rng.gumbel(size=logits.size))
    hidden = np.zeros(logits.shape, dtype=bool)
    hidden.flat[order[-n:]] = True
    return hidden


def _broken(hidden: Mask, longest: int) -> Mask:
    """Open one patch wherever ``longest`` hidden ones precede it in its channel."""
    hidden = hidden.copy()
    run = np.zeros(len(hidden), dtype=int)
    for frame in range(hidden.shape[1]):
        hidden[:, frame] &= run < longest
        run = np.where(hidden[:, frame], run + 1, 0)
    return hidden


def _blocks(config: Config, n_chans: int, n_frames: int, rng: np.random.Generator) -> Mask:
    """Hide runs of frames until the share is reached; the last run is cut to fit."""
    length = min(config.block_frames, max(n_frames // 2, 1))
    width = max(round(config.block_channels * n_chans), 1)
    wanted = min(max(round(config.ratio * n_frames * n_chans), 1), n_frames * n_chans - 1)
    hidden = np.zeros((n_chans, n_frames), dtype=bool)
    while hidden.sum() < wanted:
        start = int(rng.integers(1 - length, n_frames))
        run = range(max(start, 0), min(start + length, n_frames))
        channels = rng.permutation(n_chans)[:width]
        for frame in run:
            hidden[channels, frame] = True
            if hidden.sum() >= wanted:
                break
    return hidden


def _band_terms(patch: Tensor, sfreq: float, bands: Bands) -> Sequence[Tensor]:
    """Return the share of power in the useful band, and that outside the noise bands."""
    power = torch.fft.rfft(patch).abs().square()  # (B, C, F, K)
    hertz = torch.fft.rfftfreq(patch.shape[-1], 1 / sfreq, device=patch.device)
    useful = (hertz >= bands.low) & (hertz <= (bands.high or sfreq))
    noise = (hertz < bands.noise_below) | (hertz >= (bands.noise_above or sfreq))
    total = power.sum(dim=-1) + TINY
    return power[..., useful].sum(dim=-1) / total, 1 - power[..., noise].sum(dim=-1) / total


def _shape_terms(patch: Tensor) -> Sequence[Tensor]:
    """Return Hjorth complexity, irregularity and Hjorth mobility (Hjorth 1970)."""
    slope = patch.diff(dim=-1)
    bend = slope.diff(dim=-1)
    variance = [each.var(dim=-1, correction=0) + TINY for each in (patch, slope, bend)]
    mobility = (variance[1] / variance[0]).sqrt()
    complexity = (variance[2] / variance[1]).sqrt() / mobility
    irregularity = slope.abs().diff(dim=-1).abs().mean(dim=-1) / (slope.abs().mean(dim=-1) + TINY)
    return complexity, irregularity, mobility


def _spread(term: Tensor) -> Tensor:
    """Return the term between 0 and 1 within each row of the batch."""
    low, high = term.amin(dim=(1, 2), keepdim=True), term.amax(dim=(1, 2), keepdim=True)
    return (term - low) / (high - low + TINY)
