from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import signal

from streamer.errors import EndOfStream
from streamer.sources import Source
from streamer.sources._head import RADII, lead_field
from streamer.sources.synthetic import CH_NAMES, Config, SyntheticSource
from streamer.types import Chunk, Marker, concatenate

SFREQ = 250.0


def play(source: Source) -> Chunk:
    """Return everything until the stream ends."""
    chunks = []
    while True:
        try:
            chunk = source.read(0.0)
        except EndOfStream:
            return concatenate(chunks)
        assert chunk is not None
        chunks.append(chunk)


def samples(**settings: Any) -> NDArray[np.float32]:
    """Return what a subject gives at once, (n_times, n_chans)."""
    return play(Config(speed="max", **settings).open()).data


def density(x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frequencies and power spectral density of each channel."""
    freqs, power = signal.welch(x, SFREQ, nperseg=500, axis=0)
    return freqs, power


def imagery(**settings: Any) -> tuple[NDArray[np.float64], list[str]]:
    """Return log power of mu and beta at C3 and C4 in each trial, (n_trials, 4), and the labels."""
    source = Config(speed="max", ch_names=("C3", "C4", "Cz"), n_trials=60, **settings).open()
    x = play(source).data
    cues = [marker for marker in source.markers() if marker.label != "rest"]
    bands = [signal.butter(4, band, "bandpass", fs=SFREQ, output="sos") for band in ((9, 13.5), (17, 26))]
    filtered = np.concatenate([signal.sosfilt(sos, x[:, :2], axis=0) for sos in bands], axis=1)
    starts = [round((cue.time + 1) * SFREQ) for cue in cues]
    return np.log([filtered[i : i + 800].var(axis=0) for i in starts]), [cue.label for cue in cues]


def test_shells_of_one_conductivity_are_a_sphere() -> None:
    """The series equals the closed formula of a homogeneous sphere where the shells do not differ."""
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((20, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    places, moments = rng.uniform(-0.4, 0.4, (6, 3)), rng.standard_normal((6, 3))
    ray = unit[:, None] - places
    distance = np.linalg.norm(ray, axis=2)[..., None]
    along = (unit @ places.T)[..., None]
    image = unit[:, None] + (along * unit[:, None] - places) / (distance + 1 - along)
    closed = np.sum(moments * (2 * ray / distance**3 + image / distance), axis=2)
    np.testing.assert_allclose(lead_field(unit, places, moments, RADII, (1.0, 1.0, 1.0)), closed, atol=1e-6)


def test_skull_smears() -> None:
    """Under a skull the potential of a dipole is weaker and wider."""
    angle = np.linspace(0, np.pi / 2, 91)
    arc = np.stack([np.sin(angle), 0 * angle, np.cos(angle)], axis=1)
    dipole = np.array([[0.0, 0.0, 0.7]]), np.array([[0.0, 0.0, 1.0]])
    bare, real = (lead_field(arc, *dipole, RADII, c)[:, 0] for c in ((1.0, 1.0, 1.0), (1.0, 0.04, 1.0)))
    assert real[0] < bare[0] / 2
    assert np.argmax(real < real[0] / 2) > 1.3 * np.argmax(bare < bare[0] / 2)


@pytest.mark.parametrize("chunk", [1, 7, 250, 999])
def test_chunk_size_does_not_show(chunk: int) -> None:
    """The same seed gives the same samples and stamps bit for bit, in chunks of any size."""
    whole = play(Config(speed="max", seconds=5, chunk=100).open())
    cut = play(Config(speed="max", seconds=5, chunk=chunk).open())
    np.testing.assert_array_equal(cut.data, whole.data)
    np.testing.assert_array_equal(cut.times, whole.times)
    assert len(whole) == 1250


def test_seeds_are_people() -> None:
    """Another seed is another person with other trials; the same one is the same."""
    assert np.array_equal(samples(seconds=2, seed=3), samples(seconds=2, seed=3))
    assert not np.array_equal(samples(seconds=2, seed=3), samples(seconds=2, seed=4))
    orders = [imagery(seed=seed)[1] for seed in (1, 2)]
    assert orders[0] != orders[1]


def test_spectrum_falls_and_has_its_peaks() -> None:
    """1/f in front, alpha at the back, mu over the hand areas."""
    freqs, power = density(samples(seconds=120, line_uv=0))
    of = {name: power[:, i] for i, name in enumerate(CH_NAMES)}
    steep = (freqs >= 14) & (freqs <= 40)
    slope = np.polyfit(np.log(freqs[steep]), np.log(of["Fz"][steep]), 1)[0]
    assert -2.5 < slope < -1
    for name, low, high in (("POz", 9, 11), ("C3", 10, 12.5), ("C4", 10, 12.5)):
        inside = (freqs >= low) & (freqs <= high)
        around = ((freqs >= 5) & (freqs <= 7)) | ((freqs >= 14) & (freqs <= 16))
        assert of[name][inside].mean() > 1.5 * of[name][around].mean()


def test_imagery_fades_the_other_side() -> None:
    """Mu and beta over C4 are weaker for the left fist, over C3 for the right: lateralised both ways."""
    power, labels = imagery()
    left = np.array(labels) == "left_fist"
    lateral = power[:, [0, 2]] - power[:, [1, 3]]  # C3 over C4: mu, beta
    difference = lateral[left].mean(axis=0) - lateral[~left].mean(axis=0)
    assert (difference > [0.7, 0.15]).all()


def decoded(seed: int, erd: float) -> float:
    """Return the cross-validated accuracy of a linear read-out of log band power."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import cross_val_score

    return float(cross_val_score(LinearDiscriminantAnalysis(), *imagery(seed=seed, erd=erd), cv=5).mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_linear_readout_decodes(seed: int) -> None:
    """Log band power at C3 and C4 tells the fists apart in more than 85 % of 60 trials."""
    assert decoded(seed, 0.6) > 0.85


def test_without_erd_nothing_is_decoded() -> None:
    """The truth is in the rhythms and nowhere else: without their fading, chance."""
    source = Config(erd=0.0)
    assert 0.25 < decoded(source.seed, 0.0) < 0.72


HEAD = ("Fp1", "Fp2", "C3", "Cz", "C4", "T7", "T8", "Oz")


def part(**off: float) -> NDArray[np.float32]:
    """Return by how much samples change when a part is left out."""
    both = {"seconds": 60.0, "ch_names": HEAD, "seed": 5, "bursts_per_min": 20}
    return samples(**both) - samples(**both, **off)


def test_blinks_are_frontal() -> None:
    """Blinks are some 100 µV at the forehead, positive, smooth, and weak elsewhere."""
    blinks = part(blink_uv=0)
    peaks = blinks.max(axis=0)
    assert np.abs(np.diff(blinks[:, 0])).max() < 10  # across the blocks that they are made in, too
    assert 70 < peaks[:2].mean() < 140
    assert (peaks[[2, 3, 4, 7]] < 0.4 * peaks[0]).all()


def test_muscles_are_temporal_and_fast() -> None:
    """Bursts are at the temples and above 15 Hz."""
    burst = part(emg_uv=0)
    rms = burst.std(axis=0)
    assert rms[5:7].min() > 5 * rms[3]
    freqs, power = density(burst)
    assert power[freqs < 10].sum() < 0.05 * power.sum()


def test_line_is_a_line() -> None:
    """The mains are one sine at their frequency."""
    freqs, power = density(part(line_uv=0))
    assert freqs[np.argmax(power[:, 0])] == 50
    assert power[(freqs > 48) & (freqs < 52)].sum() > 0.99 * power.sum()


def test_markers_are_the_truth() -> None:
    """Rest and cue take turns without a gap, the classes are balanced, and only the past is told."""
    source = Config(speed="max", n_trials=20, sfreq=100, chunk=50, ch_names=("Cz",)).open()
    assert source.markers() == ()
    while (chunk := source.read(0.0)) is not None and chunk.index < 5000:
        assert all(marker.time <= chunk.times[-1] for marker in source.markers())
    play(source)
    markers = source.markers()
    assert [marker.label for marker in markers[::2]] == ["rest"] * 21
    for before, after in pairwise(markers):
        assert before.time + before.duration == pytest.approx(after.time)
    cues = [marker.label for marker in markers[1::2]]
    assert sorted(cues) == ["left_fist"] * 10 + ["right_fist"] * 10


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_samples_come_when_they_are_due() -> None:
    """In real time a chunk comes with its last sample, and stamps are on the clock from opening on."""
    time = Time()
    source = SyntheticSource(Config(chunk=25), clock=time, wait=time.wait)
    assert source.live
    assert source.read(0.06) is None
    assert time.now == pytest.approx(100.06)
    chunk = source.read(1.0)
    assert chunk is not None
    assert time.now == pytest.approx(100.1)
    np.testing.assert_allclose(chunk.times, 100 + np.arange(25) / 250)
    assert source.markers() == (Marker(100.0, "rest", 4.2),)


def test_speed_is_a_factor() -> None:
    """Twice as fast, the same samples come in half the time."""
    time = Time()
    source = SyntheticSource(Config(chunk=250, speed=2.0), clock=time, wait=time.wait)
    chunk = source.read(10.0)
    assert chunk is not None
    assert time.now == pytest.approx(100.5)
    np.testing.assert_array_equal(chunk.data, samples(seconds=1))


def test_a_late_reader_gets_everything() -> None:
    """After a stall the samples are all there, at once and in order."""
    time = Time()
    source = SyntheticSource(Config(chunk=25, seconds=2), clock=time, wait=time.wait)
    time.now += 60
    np.testing.assert_array_equal(play(source).data, samples(seconds=2))
    assert time.now == 160


def test_at_most_speed_it_is_no_device() -> None:
    """At speed "max" nothing is lost when nobody reads."""
    assert not Config(speed="max").open().live


@pytest.mark.parametrize("sfreq", [128.0, 160.0, 512.0, 1000.0])
def test_any_rate(sfreq: float) -> None:
    """The subject is about the same at any sampling rate."""
    sos = signal.butter(4, (4, 40), "bandpass", fs=sfreq, output="sos")
    rms = signal.sosfilt(sos, samples(sfreq=sfreq, seconds=30), axis=0)[500:].std()
    assert 12 < rms < 25


def test_unknown_electrodes_are_refused() -> None:
    """Names that have no place on the head are an error of the configuration, by name."""
    with pytest.raises(ValidationError, match="EMG 1"):
        Config(ch_names=("C3", "EMG 1"))


def test_resembles_people(data_dir: Any) -> None:
    """Over ten real recordings: densities within a factor of 3, correlations within 0.2, as recorded."""
    real_power, real_correlation = [], []
    for number in range(1, 11):
        recording = np.load(data_dir / "eegmmidb" / f"S{number:03d}" / f"S{number:03d}R04.npz")
        names = [str(name).strip(".").lower() for name in recording["ch_names"]]
        x = recording["data"] * recording["scale"][:, None]
        power, correlation = describe(x[[names.index(name.lower()) for name in CH_NAMES]].T[: 115 * 160])
        real_power.append(power)
        real_correlation.append(correlation)
    power, correlation = describe(samples(sfreq=160, seconds=115))
    ratio = power / np.exp(np.mean(np.log(real_power), axis=0))
    assert 1 / 3 < ratio.min() < ratio.max() < 3
    near = [(CH_NAMES.index(a), CH_NAMES.index(b)) for a, b in (("C3", "C1"), ("Cz", "CPz"), ("C4", "CP4"))]
    for pair in near:
        assert abs(correlation[pair] - np.median([c[pair] for c in real_correlation])) < 0.1
    assert abs(correlation.mean() - np.mean(real_correlation)) < 0.2


def describe(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return power in bands from 4 to 40 Hz, (n_bands, n_chans), and the correlation of the channels."""
    freqs, power = signal.welch(x, 160, nperseg=320, axis=0)
    edges = (4, 8, 13, 20, 30, 40)
    bands = [power[(freqs >= a) & (freqs < b)].sum(axis=0) for a, b in pairwise(edges)]
    filtered = signal.sosfilt(signal.butter(4, (4, 40), "bandpass", fs=160, output="sos"), x, axis=0)
    return np.array(bands), np.corrcoef(filtered[160:].T)
