"""How well a codec gives a signal back: recordings it has not seen, coded and decoded as live.

Each recording goes from its first sample through the DSP list of the run, the tokenizer's step and the
decoder's step, with carried state.  Figures are taken on whole segments of `SEGMENT_S`, band-limited alike
before and after, and averaged: per channel of each subject, then over those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline.blocks.quantize import CodeUse
from offline.data.sources import Folder
from offline.objectives.codec import log_spectral_distance, pearson_r, si_sdr
from offline.probe.features import Signal
from offline.probe.nets import seen
from offline.probe.tasks import Session, read_sessions
from offline.provenance import machine, versions
from offline.runs import PretrainRun, load_run, load_system
from streamer.errors import ConfigError, RecordingError

SEGMENT_S = 5.0
SILENT_UV = 0.1  # standard deviation below which a segment is padding, not signal
Band = tuple[float, float]
JUDGED: dict[str, Band] = {"EEG": (0.5, 40.0)}  # Hz; of other types the whole signal
BANDS: dict[str, tuple[Band, ...]] = {
    "EEG": ((0.5, 4.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 40.0)),
    "EMG": ((10.0, 30.0), (30.0, 60.0), (60.0, 95.0), (95.0, 150.0), (150.0, 300.0)),
}
HOPS = 500  # per call; any other number gives the same signal
METRICS = ("pearson_r", "si_sdr", "lsd")
Array = NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Codec:
    """The two ends of a codec and the signal between them."""

    run: PretrainRun
    tokenizer: Any
    decoder: Any
    signal: Signal

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return float(self.run.sfreq / self.tokenizer.hop)


@dataclass(slots=True)
class Tally:
    """What is collected while recordings are coded.

    Attributes
    ----------
    bands : dict
        Correlations of channels of recordings, band by band, with all codebooks.
    figures : list
        Of each subject's recording: subject, (K, n_channels, n_metrics) means over segments, and how many
        segments each channel had, (n_channels,).
    gain_steps : ndarray, shape (511,)
        How often the gain's code changed by -255 ... 255.
    silent : int
        Segments of channels without signal, left out.
    short : list of str
        Recordings that hold no whole segment, left out.
    """

    use: CodeUse
    bands: dict[Band, list[float]] = field(default_factory=dict)
    figures: list[tuple[str, NDArray[np.float64], NDArray[np.int64]]] = field(default_factory=list)
    gain_steps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(511, dtype=np.int64))
    silent: int = 0
    short: list[str] = field(default_factory=list)


def reconstruct(
    run_folder: Path,
    folder: Folder,
    subjects: Sequence[str],
    *,
    picture: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Return how close the decoded signal is to the original, by level, subject and channel; see `report`.

    Raises
    ------
    ConfigError
        Not a run folder, or not one of a codec.
    RecordingError
        No recording that the codec has not seen, or none with a whole segment of signal.
    """
    started = time.monotonic()
    codec = load_codec(run_folder)
    known = seen(codec.run)
    every = read_sessions(folder, subjects, codec.run.stype)
    sessions = [one for one in every if one.fingerprint not in known]
    if not sessions:
        raise RecordingError(
            f"All {len(every)} recordings had a part in the weights of {run_folder}: give subjects held out."
        )
    codec = replace(codec, signal=replace(codec.signal, ch_names=shared(codec.signal.ch_names, sessions)))
    tally = Tally(CodeUse(codec.tokenizer.codebook_size))
    for done, session in enumerate(sessions):
        progress(_name(session), done, len(sessions))
        measure(codec, session, tally)
    progress("", len(sessions), len(sessions))
    if not any(heard.any() for _, _, heard in tally.figures):
        raise RecordingError(
            f"None of the {len(sessions)} recordings has {SEGMENT_S:g} s of signal: nothing to judge."
        )
    document = {
        "run": str(run_folder),
        **report(codec, tally),
        "n_recordings": len(tally.figures),
        "excluded": [_name(one) for one in every if one.fingerprint in known],
        "too_short": tally.short,
        "machine": machine(),
        "versions": versions("numpy", "scipy", "torch"),
        "seconds": round(time.monotonic() - started, 1),
    }
    if picture is not None:
        from offline.reconstruct_picture import draw

        draw(codec, [one for one in sessions if _name(one) not in tally.short], document, picture)
    return document


def shared(trained_on: Sequence[str], sessions: Sequence[Session]) -> tuple[str, ...]:
    """Return the channels to score: those trained on where every recording has them, else all they share.

    Raises
    ------
    RecordingError
        They share none.
    """
    first, *others = (session.recording.info.ch_names for session in sessions)
    common = [name for name in first if all(name in names for names in others)]
    if not common:
        raise RecordingError(f"These {len(sessions)} recordings share no channel: score them one by one.")
    return tuple(trained_on if set(trained_on) <= set(common) else common)


def _name(session: Session) -> str:
    return f"{session.subject}/{session.name}"


def load_codec(run_folder: Path) -> Codec:
    """Return the codec of a run.

    Raises
    ------
    ConfigError
        The run's system has no tokenizer with a decoder for single channels.
    """
    run = load_run(run_folder)
    parts: dict[str, Any] = dict(load_system(run_folder).parts())
    if not {"tokenizer", "decoder"} <= set(parts):
        raise ConfigError(
            f"{run_folder} holds a {run.recipe.system.kind} with the parts {', '.join(parts)}: "
            "reconstruction needs a codec, with tokenizer and decoder."
        )
    largest = max(run.montages, key=len)
    return Codec(run, parts["tokenizer"], parts["decoder"], Signal(largest, run.sfreq, run.dsp))


def measure(codec: Codec, session: Session, tally: Tally) -> None:
    """Code and decode one recording, at every number of levels, and collect figures."""
    original, codes, gain = encode(codec, session)  # (C, T), (C, F, K), (C, F)
    length = round(SEGMENT_S * codec.run.sfreq)
    if original.shape[-1] < length:
        tally.short.append(_name(session))
        return
    tally.use.add(codes)
    steps = gain.diff(dim=-1).flatten() + 255
    tally.gain_steps += torch.bincount(steps, minlength=511).numpy()
    wanted = _segments(judged(original, codec), length)  # (C, S, length)
    heard = (wanted.std(dim=-1) > SILENT_UV).numpy()
    decoded = [decode(codec, codes[..., :k], gain) for k in range(1, codec.tokenizer.n_codebooks + 1)]
    levels = [_figures(_segments(judged(x, codec), length), wanted, heard) for x in decoded]
    tally.figures.append((session.subject, np.stack(levels), heard.sum(axis=1)))
    tally.silent += int((~heard).sum())
    for band in BANDS.get(codec.run.stype, ()):
        if band[1] < codec.run.sfreq / 2:
            a, b = (_segments(within(x, band, codec.run.sfreq), length) for x in (decoded[-1], original))
            values = pearson_r(a.flatten(0, 1), b.flatten(0, 1)).numpy()[heard.ravel()]
            tally.bands.setdefault(band, []).extend(values.tolist())


def encode(codec: Codec, session: Session) -> tuple[Tensor, Tensor, Tensor]:
    """Return the signal (C, T) µV, its codes (C, F, K) and gains (C, F), stepped from the first sample."""
    data = codec.signal.play(session.recording).data
    x = torch.from_numpy(np.ascontiguousarray(data.T))[:, None]  # (C, 1, T): channels are rows
    x = x[..., : x.shape[-1] // codec.tokenizer.hop * codec.tokenizer.hop]
    outputs = list(_stepped(codec.tokenizer, x, HOPS * codec.tokenizer.hop))
    codes, gain = (torch.cat([one[name] for one in outputs], dim=1) for name in ("codes", "gain"))
    return x[:, 0], codes, gain


def decode(codec: Codec, codes: Tensor, gain: Tensor) -> Tensor:
    """Return the signal (C, T) µV of codes (C, F, k) of the first k levels, and gains (C, F)."""
    x = torch.cat([codes, gain[..., None]], dim=-1).float().transpose(1, 2)  # (C, k + 1, F)
    return torch.cat([one["signal"] for one in _stepped(codec.decoder, x, HOPS)], dim=1).flatten(1)


def _stepped(part: Any, x: Tensor, size: int) -> Iterator[dict[str, Tensor]]:
    """Yield a part's outputs for pieces of ``x`` (B, C, T), its state carried."""
    state = part.init_state(len(x))
    for start in range(0, x.shape[-1], size):
        with torch.inference_mode():
            outputs, state = part(x[..., start : start + size], state)
        yield outputs


def judged(x: Tensor, codec: Codec) -> Tensor:
    """Return rows (C, T) in the band that is judged."""
    band = JUDGED.get(codec.run.stype)
    return x if band is None or band[1] >= codec.run.sfreq / 2 else within(x, band, codec.run.sfreq)


def within(x: Tensor, band: Band, sfreq: float) -> Tensor:
    """Return rows (C, T) in a band; forth and back, so nothing is shifted."""
    from scipy import signal

    sos = signal.butter(4, band, "bandpass", fs=sfreq, output="sos")
    return torch.from_numpy(signal.sosfiltfilt(sos, x.double().numpy(), axis=-1).astype(np.float32))


def _segments(x: Tensor, length: int) -> Tensor:
    """Return whole segments: (C, T) -> (C, S, length)."""
    n = x.shape[-1] // length
    return x[:, : n * length].reshape(len(x), n, length)


def _figures(output: Tensor, wanted: Tensor, heard: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each channel's means over the segments that were heard, (C, n_metrics); NaN without any."""
    a, b = output.flatten(0, 1), wanted.flatten(0, 1)
    n_fft = 2 ** int(np.log2(wanted.shape[-1] / 4))
    each = torch.stack([pearson_r(a, b), si_sdr(a, b), log_spectral_distance(a, b, n_fft)], dim=-1)
    values = each.reshape(*heard.shape, -1).double().numpy()  # (C, S, n_metrics)
    means = np.full((len(heard), values.shape[-1]), np.nan)
    for channel, some in enumerate(heard):
        if some.any():
            means[channel] = values[channel, some].mean(axis=0)
    return means


def report(codec: Codec, tally: Tally) -> dict[str, Any]:
    """Return every figure.

    ``pearson_r``, ``si_sdr`` (dB) and ``lsd`` (dB) have ``mean`` and ``sd`` over channels of subjects, and
    the ``worst_channel`` and ``worst_subject``.  ``levels`` has one row per number of codebooks.
    ``r_by_band`` tells what the overall correlation hides, most of EEG's power being slow.  ``bit_rate`` is
    bits per second and channel: ``codes`` and ``gain``, together ``sent``, and the ``entropy`` of both, the
    gain's as changes.
    """
    names = codec.signal.ch_names
    subjects = sorted({subject for subject, _, _ in tally.figures})
    table = np.stack([_subject_means(tally, subject) for subject in subjects])  # (subject, K, C, metric)
    size, rate = codec.tokenizer.codebook_size, codec.frame_rate
    bits = [float(np.log2(perplexity)) for perplexity in tally.use.perplexity]
    return {
        "band_hz": JUDGED.get(codec.run.stype),
        "segment_s": SEGMENT_S,
        **{name: _spread(table[:, -1, :, i], subjects, names, name) for i, name in enumerate(METRICS)},
        "levels": [
            {
                "codebooks": k + 1,
                "bit_rate": round((k + 1) * np.log2(size) * rate, 1),
                **{name: _mean(table[:, k, :, i]) for i, name in enumerate(METRICS)},
                "used": round(float(tally.use.used[k]), 4),
                "perplexity": round(float(tally.use.perplexity[k]), 1),
            }
            for k in range(table.shape[1])
        ],
        "r_by_band": {f"{low:g}-{high:g}": _mean(rs) for (low, high), rs in tally.bands.items()},
        "bit_rate": {
            "codes": round(table.shape[1] * np.log2(size) * rate, 1),
            "gain": round(8 * rate, 1),
            "sent": round((table.shape[1] * np.log2(size) + 8) * rate, 1),
            "entropy": round((sum(bits) + _entropy(tally.gain_steps)) * rate, 1),
        },
        "per_subject": {
            subject: {name: _mean(table[s, -1, :, i]) for i, name in enumerate(METRICS)}
            | {"r_by_codebooks": [_mean(table[s, k, :, 0]) for k in range(table.shape[1])]}
            for s, subject in enumerate(subjects)
        },
        "per_channel": {
            channel: {name: _mean(table[:, -1, c, i]) for i, name in enumerate(METRICS)}
            for c, channel in enumerate(names)
        },
        "n_subjects": len(subjects),
        "silent_segments": tally.silent,
    }


def _subject_means(tally: Tally, subject: str) -> NDArray[np.float64]:
    """Return a subject's means over recordings, weighted by their segments, (K, C, n_metrics)."""
    mine = [(values, n) for name, values, n in tally.figures if name == subject]
    total = sum(n for _, n in mine)
    summed = sum(np.nan_to_num(values) * n[:, None] for values, n in mine)
    with np.errstate(invalid="ignore"):
        return np.asarray(summed / np.asarray(total)[:, None], dtype=np.float64)


def _spread(
    values: NDArray[np.float64], subjects: Sequence[str], channels: Sequence[str], name: str
) -> dict[str, Any]:
    """Return mean and SD of (subject, channel), and where it is worst."""
    worst = np.nanargmax if name == "lsd" else np.nanargmin
    by_subject, by_channel = np.nanmean(values, axis=1), np.nanmean(values, axis=0)
    subject, channel = int(worst(by_subject)), int(worst(by_channel))
    return {
        "mean": _mean(values),
        "sd": round(float(np.nanstd(values)), 4),
        "worst_subject": subjects[subject],
        "worst_subject_mean": _mean(by_subject[subject]),
        "worst_channel": channels[channel],
        "worst_channel_mean": _mean(by_channel[channel]),
    }


def _mean(values: Any) -> float:
    return round(float(np.nanmean(values)), 4)


def _entropy(counts: NDArray[np.int64]) -> float:
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log2(share)).sum())
