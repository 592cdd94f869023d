"""Draws what a codec gives back: traces, spectra, and fidelity over bit rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline.objectives.codec import pearson_r
from offline.probe.tasks import Session
from offline.reconstruct import SEGMENT_S, SILENT_UV, Codec, decode, encode, judged

ORIGINAL, DECODED = "#222222", "#d95f02"
SHOWN_S = {"EEG": 4.0, "EMG": 1.0}
AT_S = 30.0  # into the recording: past every start
Array = NDArray[np.float32]


def draw(codec: Codec, sessions: Sequence[Session], document: dict[str, Any], path: Path) -> None:
    """Write a picture of the best, the middle and the worst channel of the middle subject, and the figures.

    The middle subject is the one whose correlation is the median; of its first recording a few seconds are
    drawn over each other, and the spectra of the whole recording.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    session = _middle(sessions, document)
    original, codes, gain = encode(codec, session)
    pair = original.numpy(), decode(codec, codes, gain).numpy()
    both = judged(original, codec), judged(torch.from_numpy(pair[1]), codec)
    r = _correlations(*both, round(SEGMENT_S * codec.run.sfreq))
    order = np.argsort(-r)
    figure = plt.figure(figsize=(11, 9), layout="constrained")
    rows = figure.subfigures(2, 1, height_ratios=(3, 1.25))
    axes = rows[0].subplots(3, 2, width_ratios=(2.4, 1), sharex="col")
    places = {"best": order[0], "middle": order[len(order) // 2], "worst": order[-1]}
    for row, (rank, channel) in zip(axes, places.items(), strict=True):
        _traces(row[0], pair, channel, codec)
        _spectra(row[1], pair, channel, codec)
        name = f"{codec.signal.ch_names[channel]}, r = {r[channel]:.3f}"
        row[0].set_title(f"{rank} channel of {session.subject}: {name}", loc="left", size=11)
    axes[0, 0].legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))
    axes[0, 1].set_title("whole recording", loc="left", size=11)
    axes[2, 0].set_xlabel("time (s)")
    axes[2, 1].set_xlabel("frequency (Hz)")
    below = rows[1].subplots(1, 2, width_ratios=(1.5, 1))
    _by_rate(below[0], document)
    _use(below[1], document, codec)
    for each in (*axes.flat, *below):
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _middle(sessions: Sequence[Session], document: dict[str, Any]) -> Session:
    """Return the first recording of the subject whose correlation is the median."""
    ranked = sorted(document["per_subject"], key=lambda name: document["per_subject"][name]["pearson_r"])
    return next(one for one in sessions if one.subject == ranked[len(ranked) // 2])


def _correlations(original: Tensor, decoded: Tensor, length: int) -> NDArray[np.float64]:
    """Return each channel's mean correlation over whole segments; -1 for a silent channel."""
    n = original.shape[1] // length
    a, b = (x[:, : n * length].reshape(len(x), n, length) for x in (original, decoded))
    heard = (a.std(dim=-1) > SILENT_UV).numpy()
    each = pearson_r(b, a).double().numpy()
    return np.where(heard.any(axis=1), (each * heard).sum(axis=1) / np.maximum(heard.sum(axis=1), 1), -1.0)


def _traces(axes: Any, pair: tuple[Array, Array], channel: int, codec: Codec) -> None:
    sfreq, seconds = codec.run.sfreq, SHOWN_S.get(codec.run.stype, 4.0)
    n = round(seconds * sfreq)
    start = min(round(AT_S * sfreq), max(pair[0].shape[1] - n, 0))
    times = (start + np.arange(n)) / sfreq
    for x, colour, label, width in zip(
        pair, (ORIGINAL, DECODED), ("original", "decoded"), (1.4, 1.0), strict=True
    ):
        axes.plot(times, x[channel, start : start + n], color=colour, lw=width, label=label)
    axes.set_ylabel("µV")
    axes.margins(x=0)


def _spectra(axes: Any, pair: tuple[Array, Array], channel: int, codec: Codec) -> None:
    from scipy import signal

    for x, colour in zip(pair, (ORIGINAL, DECODED), strict=True):
        freqs, power = signal.welch(x[channel], codec.run.sfreq, nperseg=round(2 * codec.run.sfreq))
        axes.plot(freqs[1:], 10 * np.log10(power[1:] + 1e-12), color=colour, lw=1.2)
    top = 60.0 if codec.run.stype == "EEG" else codec.run.sfreq / 2
    axes.set(xlim=(0, min(top, codec.run.sfreq / 2)), ylabel="dB (µV²/Hz)")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, high - 70), high)


def _by_rate(axes: Any, document: dict[str, Any]) -> None:
    """Draw the correlation over the bit rate: one thin line per subject, the mean thick."""
    levels = document["levels"]
    rates = [level["bit_rate"] for level in levels]
    for figures in document["per_subject"].values():
        axes.plot(rates, figures["r_by_codebooks"], color="#bbbbbb", lw=0.7)
    axes.plot(rates, [level["pearson_r"] for level in levels], color="#1f77b4", marker="o", lw=2)
    for level in levels:
        axes.annotate(
            f"{level['pearson_r']:.3f}",
            (level["bit_rate"], level["pearson_r"]),
            textcoords="offset points",
            xytext=(0, 7),
            ha="center",
            size=8,
            color="#1f77b4",
        )
    axes.set(
        xlabel="bit/s per channel, 1 to all codebooks",
        ylabel="Pearson r",
    )
    axes.margins(y=0.2)
    axes.set_title(f"mean of {document['n_subjects']}, grey: each subject", loc="left", size=11)


def _use(axes: Any, document: dict[str, Any], codec: Codec) -> None:
    levels = document["levels"]
    x = np.arange(1, len(levels) + 1)
    axes.bar(x - 0.2, [level["used"] for level in levels], 0.38, color="#1b9e77", label="codes used")
    share = [level["perplexity"] / codec.tokenizer.codebook_size for level in levels]
    axes.bar(x + 0.2, share, 0.38, color="#7570b3", label="perplexity")
    axes.set(ylim=(0, 1.2), yticks=(0, 0.5, 1), xticks=x, xlabel="level", ylabel="share of the codebook")
    axes.legend(frameon=False, ncols=2, loc="upper center", fontsize=8)
