"""A simulated subject: sources in a head, mixed to electrodes, with what disturbs a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.montage import positions
from streamer.sources._head import lead_field
from streamer.sources._noise import Bursts, Coloured, band, pink
from streamer.sources._trials import Trials

Array = NDArray[np.float64]
Part = Callable[[Array], Array]  # times (n_times,) s -> µV (n_times, n_chans)

BLOCK_S = 1.0  # samples are made in blocks of this length, however they are read
WARM_UP = 8  # blocks thrown away, until the slowest filter has forgotten its start

# Places in radii of the head.  Hands: under C3 and C4; a patch is some 2 cm wide.
HANDS = ((-0.58, 0.04, 0.54), (0.58, 0.04, 0.54))
POSTERIOR = ((-0.25, -0.66, 0.38), (0.25, -0.66, 0.38), (0.0, -0.58, 0.54))
EYES = ((-0.3, 0.8, -0.12), (0.3, 0.8, -0.12))
TEMPLES = ("T7", "T8")
EARS = ("A1", "A2")  # linked, the reference
PATCH, PATCH_WIDTH = 12, 0.1
N_CORTICAL, N_DEEP = 64, 8
WIDE = 1.5  # deep over cortical: an electrode pair far apart correlates at 0.5, as in EEGMMIDB
SCALED_ON = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "Fz", "Cz", "Pz", "T7", "T8")


@dataclass(frozen=True)
class Strengths:
    """How strong each part of the recording is.

    Attributes
    ----------
    background_uv : float
        Rms from 4 to 40 Hz, mean over the head, µV.
    alpha_uv, mu_uv, beta_uv : float
        Rms at Pz of alpha, at C3 and C4 of the rhythms of the hand areas at rest, µV.
    sensor_uv, drift_uv, line_uv : float
        Rms of each channel's own white noise and slow drift, and of the line, µV.
    blink_uv, emg_uv : float
        Peak of a blink at Fp1 and Fp2, rms of a muscle burst at T7 or T8, µV.
    blinks_per_min, bursts_per_min : float
        How often.
    line_freq : float
        Hz.
    """

    background_uv: float
    alpha_uv: float
    mu_uv: float
    beta_uv: float
    sensor_uv: float
    drift_uv: float
    line_uv: float
    blink_uv: float
    emg_uv: float
    blinks_per_min: float
    bursts_per_min: float
    line_freq: float


class Subject:
    """One person with electrodes on, block by block.

    Parameters
    ----------
    ch_names : sequence of str
        Electrodes of the 10-05 system.
    sfreq : float
        Hz.
    seed : int
        Of the person and of everything that happens: the same seed gives the same samples bit for bit.
    trials : Trials
        What the person is asked to do.
    strengths : Strengths
        Of the parts.
    """

    def __init__(
        self, ch_names: Sequence[str], sfreq: float, seed: int, trials: Trials, strengths: Strengths
    ) -> None:
        self._sfreq = sfreq
        self._n_block = round(BLOCK_S * sfreq)
        self._next = -WARM_UP * self._n_block
        head = _Head(ch_names, np.random.default_rng((seed, 0)))
        rngs = [np.random.default_rng((seed, 1, part)) for part in range(6)]
        s = strengths
        self._parts: list[Part] = [
            _background(head, rngs[0], sfreq, s.background_uv),
            _rhythms(head, rngs[1], sfreq, trials, s),
            _blinks(head, rngs[2], sfreq, s),
            _muscles(head, rngs[3], sfreq, s),
            _amplifier(head, rngs[4], sfreq, s),
            _line(head, rngs[5], s),
        ]
        for _ in range(WARM_UP):
            self.block()

    def block(self) -> NDArray[np.float32]:
        """Return the next second of samples, µV, shape (n_times, n_chans), float32."""
        times = (self._next + np.arange(self._n_block)) / self._sfreq
        self._next += self._n_block
        total = self._parts[0](times)
        for part in self._parts[1:]:
            total += part(times)
        return total.astype(np.float32)


class _Head:
    """Where the electrodes are, and what sources make there; against linked ears."""

    def __init__(self, ch_names: Sequence[str], rng: np.random.Generator) -> None:
        self.n_chans = len(ch_names)
        self.rng = rng
        self.names = (*ch_names, *SCALED_ON)
        self.electrodes = positions((*self.names, *EARS))

    def potential(self, places: Array, moments: Array) -> Array:
        """Return what dipoles (n_dipoles, 3) make, shape (n_dipoles, n_names), against the reference."""
        field = lead_field(self.electrodes, places, moments).T
        ears = field[:, len(self.names) :].mean(axis=1, keepdims=True)
        return np.asarray(field[:, : len(self.names)] - ears)

    def patch(self, place: Array, tilt: float) -> Array:
        """Return what a patch of cortex around a place makes, shape (n_names,).

        Its dipoles point outwards, but for a ``tilt`` at random: 0 the crown of a gyrus, 1 any fold.
        """
        depth = np.linalg.norm(place)
        places = place + PATCH_WIDTH * depth * self.rng.standard_normal((PATCH, 3))
        places *= (depth / np.linalg.norm(places, axis=1))[:, None]
        moment = place / depth + tilt * self.rng.standard_normal(3)
        return np.asarray(self.potential(places, np.tile(moment, (PATCH, 1))).mean(axis=0))

    def scale(self, fields: Array, rms: float, at: tuple[str, ...]) -> Array:
        """Return the fields (n_sources, n_names) of independent sources of 1 as (n_sources, n_chans) of µV.

        Together they make ``rms`` at the electrodes ``at``, on average.
        """
        columns = [self.n_chans + SCALED_ON.index(name) for name in at]
        power = np.square(fields[:, columns]).sum(axis=0).mean()
        return np.ascontiguousarray(rms / np.sqrt(power) * fields[:, : self.n_chans])


def _background(head: _Head, rng: np.random.Generator, sfreq: float, rms: float) -> Part:
    """1/f activity of patches all over the cortex, and of deep upright sources that reach everywhere."""
    cortical = head.rng.standard_normal((N_CORTICAL, 3))
    cortical[:, 2] = np.abs(cortical[:, 2]) - 0.3
    cortical *= (head.rng.uniform(0.65, 0.8, N_CORTICAL) / np.linalg.norm(cortical, axis=1))[:, None]
    narrow = np.array([head.patch(place, tilt=1.0) for place in cortical])
    deep, tilts = head.rng.standard_normal((2, N_DEEP, 3)) * [[[0.17]], [[0.4]]]
    wide = head.potential(deep, np.array([0.0, 0.0, 1.0]) + tilts)
    wide *= WIDE * np.linalg.norm(narrow) / np.linalg.norm(wide)
    mixing = head.scale(np.concatenate([narrow, wide]), rms, SCALED_ON)
    # All sources have the same spectrum: coloured after mixing, 22 filters do for 72.
    colour = Coloured(pink(sfreq), head.n_chans)

    def part(times: Array) -> Array:
        return colour(rng.standard_normal((len(times), len(mixing))) @ mixing)

    return part


def _rhythms(head: _Head, rng: np.random.Generator, sfreq: float, trials: Trials, s: Strengths) -> Part:
    """Posterior alpha, and mu and beta of the hand areas, which follow the trials."""
    peak = head.rng.uniform(9.5, 10.5)
    posterior = np.array([head.patch(np.array(place), tilt=0.3) for place in POSTERIOR])
    hands = np.array([head.patch(np.array(place), tilt=0.2) for place in HANDS])
    alpha_field = head.scale(posterior, s.alpha_uv, ("Pz",))
    mu_field = head.scale(hands, s.mu_uv, ("C3", "C4"))
    beta_field = head.scale(hands, s.beta_uv, ("C3", "C4"))
    alpha = Coloured(band(peak - 1.0, peak + 1.0, sfreq), len(POSTERIOR))
    mu = Coloured(band(10.0, 12.5, sfreq), 2)
    beta = Coloured(band(18.0, 25.0, sfreq), 2)

    def part(times: Array) -> Array:
        mu_power, beta_power = trials.power(times)
        n_times = len(times)
        total = alpha(rng.standard_normal((n_times, len(POSTERIOR)))) @ alpha_field
        total += (np.sqrt(mu_power) * mu(rng.standard_normal((n_times, 2)))) @ mu_field
        total += (np.sqrt(beta_power) * beta(rng.standard_normal((n_times, 2)))) @ beta_field
        return total

    return part


def _blinks(head: _Head, rng: np.random.Generator, sfreq: float, s: Strengths) -> Part:
    """Blinks: positive in front, as the eyes turn up."""
    field = head.potential(np.array(EYES), np.tile([0.0, 1.0, 0.3], (2, 1))).sum(axis=0, keepdims=True)
    topography = head.scale(field, s.blink_uv, ("Fp1", "Fp2"))
    lids = Bursts(rng, s.blinks_per_min, 0.25, 0.4, sfreq)

    def part(times: Array) -> Array:
        return lids(len(times))[:, None] @ topography

    return part


def _muscles(head: _Head, rng: np.random.Generator, sfreq: float, s: Strengths) -> Part:
    """Bursts of the temporal muscles, each side by itself: broad-band, strongest close by."""
    cosine = head.electrodes[: head.n_chans] @ positions(TEMPLES).T
    topography = s.emg_uv * np.exp(-np.square(np.arccos(np.clip(cosine, -1, 1)) / 0.5)).T  # (2, n_chans)
    bursts = [Bursts(rng, s.bursts_per_min / 2, 0.3, 1.0, sfreq) for _ in TEMPLES]
    noise = Coloured(band(20.0, min(120.0, 0.45 * sfreq), sfreq), 2)

    def part(times: Array) -> Array:
        envelope = np.stack([burst(len(times)) for burst in bursts], axis=1)
        return (envelope * noise(rng.standard_normal((len(times), 2)))) @ topography

    return part


def _amplifier(head: _Head, rng: np.random.Generator, sfreq: float, s: Strengths) -> Part:
    """White noise and slow drift, each channel by itself."""
    slow = Coloured(band(0.02, 0.2, sfreq), head.n_chans)

    def part(times: Array) -> Array:
        white, drift = rng.standard_normal((2, len(times), head.n_chans))
        return np.asarray(s.sensor_uv * white + s.drift_uv * slow(drift))

    return part


def _line(head: _Head, rng: np.random.Generator, s: Strengths) -> Part:
    """Mains hum, in phase everywhere, stronger where the contact is worse."""
    amplitude = np.sqrt(2) * s.line_uv * np.exp(0.5 * rng.standard_normal(head.n_chans))

    def part(times: Array) -> Array:
        return np.asarray(np.sin(2 * np.pi * s.line_freq * times)[:, None] * amplitude)

    return part
