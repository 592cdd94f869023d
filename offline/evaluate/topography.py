"""What a decoder of EEG looks at, drawn on the head: activation patterns of its log-odds.

A filter's weights say what is combined, noise cancelled included; the *pattern* says where the signal that
it answers to comes from (Haufe et al. 2014, NeuroImage 87, eq. 6-7).  For one output it is the covariance of
that output with the data, over the output's variance, and needs no weights: it holds for any bundle.  Here
the data are the logarithms of the channels' band power over the last second, and the outputs are log-odds as
the live pipeline puts them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle
from offline.evaluate.played import Played, play
from offline.probe.tasks import Session
from streamer.errors import ConfigError, RecordingError
from streamer.montage import located
from streamer.sources.recording import Recording

Floats = NDArray[np.float64]
BANDS = {"theta, 4-8 Hz": (4.0, 8.0), "alpha / mu, 8-13 Hz": (8.0, 13.0), "beta, 13-30 Hz": (13.0, 30.0)}
POWER_S = 1.0  # over which power is averaged: about what the decoders look back on
ORDER = 4
FEWEST = 6  # channels, below which a map is drawn from nothing
DB = 10 / np.log(10)


@dataclass(frozen=True, slots=True)
class Patterns:
    """Activation patterns.

    Attributes
    ----------
    ch_names : tuple of str
    bands, contrasts : tuple of str
    values : ndarray, shape (n_bands, n_contrasts, n_chans), float64
        dB of power that go with one nat of log-odds, the average over channels being the reference of the
        signal, and each recording its own zero.
    n_recordings : int
    minutes : float
        Of valid decisions.
    """

    ch_names: tuple[str, ...]
    bands: tuple[str, ...]
    contrasts: tuple[str, ...]
    values: Floats
    n_recordings: int
    minutes: float


def draw_topography(bundle: Bundle, sessions: Sequence[Session], path: Path) -> dict[str, Any]:
    """Write a picture of the patterns: a row per band, a column per class or pair.

    Returns
    -------
    dict
        The picture's path, and of each map the channel where it is strongest and what it is there, dB.

    Raises
    ------
    ConfigError
        The bundle decodes no EEG.
    RecordingError
        Fewer than six channels that the model and all recordings share have a place on the head.
    """
    found = patterns(bundle, sessions)
    _paint(found, bundle.label, path)
    strongest = {}
    for band, row in zip(found.bands, found.values, strict=True):
        for contrast, values in zip(found.contrasts, row, strict=True):
            place = int(np.abs(values).argmax())
            strongest[f"{contrast}, {band}"] = f"{found.ch_names[place]} {values[place]:+.2f}"
    return {"picture": str(path), "recordings": found.n_recordings, "strongest": strongest}


def patterns(bundle: Bundle, sessions: Sequence[Session]) -> Patterns:
    """Play the recordings and return the patterns; raises as `draw_topography`."""
    if bundle.manifest.input.stype.upper() != "EEG":
        raise ConfigError(
            f"Bundle {bundle.label} decodes {bundle.manifest.input.stype}: only EEG has a place on the head."
        )
    names = _shared(bundle, sessions)
    with OnnxRuntime().open(bundle) as backend:
        played = [play(bundle, backend, session) for session in sessions]
    contrasts, together, spread = _contrasts(bundle), 0.0, 0.0
    for one, session in zip(played, sessions, strict=True):
        power = _powers(session.recording, names, one)[:, one.valid]  # (n_bands, n, n_chans)
        odds = _log_odds(one.log_probs[one.valid].astype(np.float64), contrasts)  # (n, n_contrasts)
        power, odds = power - power.mean(axis=1, keepdims=True), odds - odds.mean(axis=0)
        together = together + np.einsum("bnc,nk->bkc", power, odds)
        spread = spread + (odds**2).sum(axis=0)
    return Patterns(
        names,
        tuple(BANDS),
        tuple(contrasts),
        np.asarray(DB * together / np.maximum(spread, 1e-12)[:, None]),
        len(played),
        sum(float(one.valid.sum()) * one.hop_s for one in played) / 60,
    )


def _shared(bundle: Bundle, sessions: Sequence[Session]) -> tuple[str, ...]:
    """Return the model's channels that every recording has and whose place is known."""
    wanted = bundle.manifest.input.ch_names or sessions[0].recording.info.ch_names
    everywhere = set(wanted).intersection(*(session.recording.info.ch_names for session in sessions))
    names = tuple(name for name in wanted if name in everywhere and located(name))
    if len(names) < FEWEST:
        raise RecordingError(
            f"A map of the head needs {FEWEST} channels of known place; bundle {bundle.label} and these "
            f"{len(sessions)} recordings share {len(names)}: {', '.join(names) or 'none'}."
        )
    return names


def _contrasts(bundle: Bundle) -> dict[str, tuple[list[int], list[int]]]:
    """Return which classes are set against which: each but idle against the others, and two commands."""
    classes, idle = bundle.readout.classes, bundle.readout.idle
    active = [place for place, name in enumerate(classes) if name != idle]
    words = [name.replace("_", " ") for name in classes]
    shown = active if len(classes) > 2 else active[-1:]
    found = {
        f"{words[place]} against others": ([place], [i for i in range(len(classes)) if i != place])
        for place in shown
    }
    if len(active) == 2 < len(classes):
        first, second = active
        found[f"{words[first]} against {words[second]}"] = ([first], [second])
    return found


def _log_odds(logs: Floats, contrasts: dict[str, tuple[list[int], list[int]]]) -> Floats:
    """Return log-odds, (n, n_contrasts), of log-probabilities, (n, n_classes)."""
    columns = [
        np.logaddexp.reduce(logs[:, ones], axis=1) - np.logaddexp.reduce(logs[:, others], axis=1)
        for ones, others in contrasts.values()
    ]
    return np.stack(columns, axis=1)


def _powers(recording: Recording, names: Sequence[str], played: Played) -> Floats:
    """Return the log band powers up to each decision's stamp, (n_bands, n, n_chans)."""
    from scipy.signal import butter, sosfilt

    info = recording.info
    data = recording.data[:, [info.ch_names.index(name) for name in names]].astype(np.float64)
    data = data - data[:1]  # from the first sample on
    data -= data.mean(axis=1, keepdims=True)
    length = round(POWER_S * info.sfreq)
    stops = np.searchsorted(recording.times, played.times + 0.5 / info.sfreq)
    starts = np.maximum(stops - length, 0)
    found = []
    for low, high in BANDS.values():
        sos = butter(ORDER, (low, min(high, 0.45 * info.sfreq)), "bandpass", fs=info.sfreq, output="sos")
        total = np.concatenate(
            [np.zeros((1, len(names))), np.cumsum(sosfilt(sos, data, axis=0) ** 2, axis=0)]
        )
        mean = (total[stops] - total[starts]) / np.maximum(stops - starts, 1)[:, None]
        found.append(np.log(np.maximum(mean, 1e-12)))
    return np.stack(found)


def _paint(found: Patterns, label: str, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import mne

    info = mne.create_info(list(found.ch_names), 1.0, "eeg", verbose="error")
    info.set_montage("standard_1005", verbose="error")
    shape = (len(found.bands), len(found.contrasts))
    figure, panels = plt.subplots(
        *shape, figsize=(2.6 * shape[1] + 1.4, 2.4 * shape[0] + 0.6), squeeze=False, layout="constrained"
    )
    for row, (band, values) in enumerate(zip(found.bands, found.values, strict=True)):
        limit = float(np.abs(values).max()) or 1.0
        for axes, contrast, one in zip(panels[row], found.contrasts, values, strict=True):
            image, _ = mne.viz.plot_topomap(
                one,
                info,
                axes=axes,
                show=False,
                cmap="RdBu_r",
                vlim=(-limit, limit),
                contours=4,
                extrapolate="local",  # nothing is known far from the electrodes
            )
            if row == 0:
                axes.set_title(contrast, fontsize=9)
        bar = figure.colorbar(image, ax=list(panels[row]), shrink=0.75)
        bar.set_label(f"{band}: dB per nat", fontsize=8)
    length = f"{found.n_recordings} recordings, {found.minutes:.0f} min"
    figure.suptitle(f"{label}: power that goes with its log-odds\n{length}", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)
