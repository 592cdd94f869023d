"""Makes a pretrained net decide: a logistic regression on its latents and, from there on, gradients.

The order is that of Kumar et al. 2022 (arXiv:2202.10054): first the frozen probe, then everything that is to
learn, together.  The weights that are kept are those with the lowest cross-entropy on the validation
subjects, each class counting alike and each look at its own temperature; the frozen probe is one of the
candidates, so fine-tuning never ends below it there.  Recordings of any other subject are not opened.

What comes out is a model that streams (`offline.models.decoder`), in a folder that `bcitrain export` takes;
see `offline.finetune.run`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offline import runs
from offline.calibrate import balanced_cross_entropy, fit_temperature
from offline.data.sources import select
from offline.finetune.data import Frames, Labelled, Progress, adapted
from offline.finetune.learn import COST, Progressed, Training, choose
from offline.finetune.recipe import Recipe
from offline.finetune.run import FinetuneRun, Scores, write
from offline.models import decoder
from offline.models.decoder import Decoder, placed
from offline.probe import heads as probe_heads
from offline.probe.features import Signal
from offline.probe.tasks import Index, Split, Windows, draw_labels, find_windows, splits
from offline.provenance import machine, versions
from offline.run_folder import WEIGHTS
from offline.runs import PretrainRun
from streamer.errors import ConfigError


def finetune(
    recipe: Recipe, *, resume: bool = False, progress: Progress = lambda what, done, total: None
) -> FinetuneRun:
    """Fine-tune and write the run folder.

    Parameters
    ----------
    resume : bool
        Go on from the last checkpoint; the result is the same as without the interruption.
    progress : callable
        Told what is being done, and how much of it is.

    Raises
    ------
    ConfigError, RecordingError, StreamMismatch
        The recipe does not fit the backbone's run or the recordings; there is nothing to resume from.
    """
    started = time.monotonic()
    pretrained = runs.load_run(recipe.backbone.run)
    _check(recipe, pretrained, resume)
    source = _source(recipe, pretrained)
    at = _learned(recipe, source, resume, progress)
    scores, temperature = score(source.net, source.data, source.held_out)
    seconds = round(time.monotonic() - started, 1)
    run = _run(recipe, pretrained, source, at).model_copy(
        update={"scores": scores, "temperature": temperature, "seconds": seconds}
    )
    write(run, source.net)
    return run


@dataclass(frozen=True)
class Source:
    """What a fine-tuning works on.

    Attributes
    ----------
    windows, split : Windows, Split
        ``test`` of the split are the windows of the subjects validated on.
    rows : ndarray of int
        Training windows whose labels are used.
    signal : Signal
        What the net looks at, its DSP list complete.
    net : Decoder
        The pretrained part under a head that has learned nothing.
    data : Labelled
    held_out : Frames
        Every frame of the windows validated on.
    fingerprints : dict of str to tuple of str
        As in `FinetuneRun`.
    """

    windows: Windows
    split: Split
    rows: Index
    signal: Signal
    net: Decoder
    data: Labelled
    held_out: Frames
    fingerprints: dict[str, tuple[str, ...]]


def score(net: Decoder, data: Labelled, frames: Frames) -> tuple[Scores, float]:
    """Return how good the net is at these frames, stepped over their recordings, and its temperature.

    ``cross_entropy`` (nats, at the temperature that is best for it, each class counting alike) and
    ``frame_balanced_accuracy`` are over all frames; ``balanced_accuracy`` and ``auroc`` over windows, each
    answered at its last frame.
    """
    logits = data.read(net, frames, net.decide)
    labels = torch.from_numpy(data.labels(frames))
    temperature = fit_temperature(logits, labels)
    by_frame = _scores(logits, labels)
    by_window = _scores(logits[torch.from_numpy(frames.last)], labels[torch.from_numpy(frames.last)])
    figures: Scores = {
        COST: round(balanced_cross_entropy(logits / temperature, labels), 6),
        "balanced_accuracy": by_window["balanced_accuracy"],
        "auroc": by_window["auroc"],
        "windows": by_window["n"],
        "frame_balanced_accuracy": by_frame["balanced_accuracy"],
    }
    return figures, temperature


def _scores(logits: Tensor, labels: Tensor) -> Scores:
    return probe_heads.scores(logits.double().softmax(dim=-1).numpy(), labels.numpy())


def _check(recipe: Recipe, pretrained: PretrainRun, resume: bool) -> None:
    """Refuse what cannot go together, before anything is read."""
    if recipe.task.stype != pretrained.stype:
        raise ConfigError(
            f"{recipe.backbone.run} was pretrained on {pretrained.stype}, the task is of "
            f"{recipe.task.stype}: take a backbone of the same kind of signal."
        )
    if resume and recipe.mode == "frozen":
        raise ConfigError("mode frozen has no steps to resume: run it without --resume.")


def _source(recipe: Recipe, pretrained: PretrainRun) -> Source:
    task = recipe.task.as_probe(pretrained.sfreq)
    windows = find_windows(task)
    known = sorted(set(windows.subjects.tolist()))
    sides = (select(known, names, str(task.folder.path)) for names in (task.train, task.test))
    if shared := set.intersection(*map(set, sides)):
        raise ConfigError(f"Subjects {', '.join(sorted(shared))} both train and validate: separate them.")
    (split,) = splits(task, windows)
    fingerprints = _fingerprints(windows, split, pretrained)
    _check_sides(windows, split, recipe, fingerprints)
    net = _net(recipe, pretrained)
    plain = Signal(task.ch_names, pretrained.sfreq, pretrained.dsp)
    training = [windows.sessions[i] for i in np.unique(windows.session[split.train])]
    signal = replace(plain, dsp=adapted(training, plain, recipe.adapt))
    data = Labelled(signal, windows, net.hop)
    rows = split.train[draw_labels(windows.labels[split.train], recipe.fraction, recipe.seed)]
    return Source(windows, split, rows, signal, net, data, data.frames(split.test), fingerprints)


def _check_sides(
    windows: Windows, split: Split, recipe: Recipe, fingerprints: dict[str, tuple[str, ...]]
) -> None:
    """Refuse a side without one of the classes, and recordings that are on both."""
    for side, rows in _sides(split):
        absent = [name for label, name in enumerate(recipe.task.classes) if label not in windows.labels[rows]]
        if absent:
            raise ConfigError(
                f"task.{side} has no window of {', '.join(absent)}: add subjects who have, or leave the "
                "class out."
            )
    if shared := set(fingerprints["train"]) & set(fingerprints["validate"]):
        raise ConfigError(
            f"{len(shared)} recordings, told by their samples, are both of a subject that trains and of one "
            "that validates: separate them."
        )


def _sides(split: Split) -> tuple[tuple[str, Index], tuple[str, Index]]:
    """Return the windows of either side by its name in the recipe."""
    return ("train", split.train), ("validate", split.test)


def _learned(recipe: Recipe, source: Source, resume: bool, progress: Progress) -> Progressed:
    """Fit the head and, where the mode says so, train; leave the net with the weights to keep."""
    net = source.net
    if not resume:
        _fit_head(net, source.data, source.rows, recipe, progress)
    net.to("cuda" if torch.cuda.is_available() else "cpu")

    def look() -> Scores:
        return score(net, source.data, source.held_out)[0]

    if recipe.mode == "frozen":
        at = Progressed()
        at.look(look(), net)
        return at
    told = recipe.course() | {"weights": _weights_hash(recipe), "recordings": source.fingerprints}
    identity = json.loads(json.dumps(told))  # as a checkpoint gives it back: lists for tuples
    return Training(net, source.data, source.rows, recipe).run(
        look, identity, resume=resume, progress=progress
    )


def _net(recipe: Recipe, pretrained: PretrainRun) -> Decoder:
    """Return the pretrained part under an untrained head, in eval mode."""
    task, system = recipe.task, runs.load_system(recipe.backbone.run)
    part = placed(system.parts(), recipe.backbone.part, task.ch_names, task.stype)
    if round(task.window_s * pretrained.sfreq) < part.hop:
        raise ConfigError(
            f"task.window_s: {task.window_s:g} s hold no frame of {part.hop / pretrained.sfreq:g} s: "
            "lengthen it."
        )
    choose(part, recipe.mode, recipe.layers)
    config = decoder.Config(
        system=pretrained.recipe.system,
        part=recipe.backbone.part,
        sfreq=pretrained.sfreq,
        ch_names=task.ch_names,
        stype=task.stype,
        pool_frames=max(1, round(recipe.pool_s * pretrained.sfreq / part.hop)),
        n_classes=len(task.classes),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Decoder(config, part).eval()


def _fit_head(net: Decoder, data: Labelled, rows: Index, recipe: Recipe, progress: Progress) -> None:
    """Fit the head as the frozen probe would, to the last frame of each labelled window."""
    frames = data.frames(rows)
    frames = frames.take(frames.last)
    features = data.read(net, frames, lambda x: x, progress).numpy()
    labels, subjects = data.labels(frames), data.windows.subjects[frames.window]
    mean, scale = probe_heads.scaling(features)
    balanced = recipe.class_weights == "balanced"
    weight, bias = probe_heads.linear((features - mean) / scale, labels, subjects, balanced=balanced)
    net.set_head(*(torch.from_numpy(each) for each in (mean, scale, weight, bias)))


def _fingerprints(windows: Windows, split: Split, pretrained: PretrainRun) -> dict[str, tuple[str, ...]]:
    """Return the fingerprints of every recording that has a part in the weights, by the part it has."""
    own = {
        side: tuple(sorted(windows.sessions[i].fingerprint for i in np.unique(windows.session[rows])))
        for side, rows in _sides(split)
    }
    return own | {f"backbone_{name}": group for name, group in pretrained.fingerprints.items()}


def _run(recipe: Recipe, pretrained: PretrainRun, source: Source, at: Progressed) -> FinetuneRun:
    """Return the run's description, but for scores, temperature and time."""
    labels, subjects = source.windows.labels[source.rows], source.windows.subjects
    return FinetuneRun(
        recipe=recipe,
        model=source.net.config,
        dsp=source.signal.dsp,
        unit=pretrained.unit,
        backbone=_about(pretrained, recipe),
        subjects={side: tuple(sorted(set(subjects[rows].tolist()))) for side, rows in _sides(source.split)},
        fingerprints=source.fingerprints,
        windows={name: int((labels == label).sum()) for label, name in enumerate(recipe.task.classes)},
        kept=at.kept,
        temperature=1.0,
        start=at.history[0],
        scores={},
        history=tuple(at.history),
        notes=tuple(_notes(source, pretrained)),
        seconds=0.0,
        versions=versions("torch", "scikit-learn", "numpy", "scipy"),
        machine=machine(),
    )


def _notes(source: Source, pretrained: PretrainRun) -> Iterator[str]:
    """Say what pretraining had seen of the recordings."""
    for side, _ in _sides(source.split):
        here = set(source.fingerprints[side])
        for group, known in pretrained.fingerprints.items():
            if n := len(here & set(known)):
                yield f"{n} of {len(here)} recordings under {side} were under {group} in pretraining"


def _about(pretrained: PretrainRun, recipe: Recipe) -> dict[str, Any]:
    card = pretrained.recipe.card
    return {
        "name": card.name,
        "version": card.version,
        "part": recipe.backbone.part,
        "steps": pretrained.steps,
        "weights": _weights_hash(recipe),
    }


def _weights_hash(recipe: Recipe) -> str:
    """Return 16 hex digits of the pretrained weights."""
    return hashlib.sha256((recipe.backbone.run / WEIGHTS).read_bytes()).hexdigest()[:16]
