"""The nets that a probe compares: pretrained backbones, their untrained twins, what needs no pretraining."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline import eegnet
from offline.models.decoder import placed
from offline.probe import finetune as probe_finetune
from offline.probe import heads as probe_heads
from offline.probe.cache import Cache
from offline.probe.features import (
    Features,
    RawFrames,
    Signal,
    band_powers,
    cut,
    of_task,
    pooled_latents,
    time_domain,
)
from offline.probe.recipe import (
    BandPower,
    EEGNet,
    FineTune,
    PretrainedNet,
    RawSignal,
    Recipe,
    Task,
    TimeDomain,
    digest,
)
from offline.probe.tasks import Index, Split, Windows
from offline.run_folder import WEIGHTS
from offline.runs import PretrainRun, load_run, load_system
from streamer.errors import ConfigError

Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class Contestant:
    """Something that learns from labelled windows and answers for others.

    Attributes
    ----------
    name : str
    twin_of : str or None
        The pretrained net that this is the untrained form of.
    identity : callable
        Of a seed: what decides the answers, beside the labels, as a digest.
    answer : callable
        Of the places of the labelled windows, those of the tested ones, and a seed: the probability of each
        class for each tested window.
    fractions : tuple of float or None
        Those of the recipe's that it takes part in; None for all.
    series, at : str or None, float or None
        The line and the place on it in the picture of a series.
    """

    name: str
    identity: Callable[[int], str]
    answer: Callable[[Index, Index, int], Probabilities]
    twin_of: str | None = None
    fractions: tuple[float, ...] | None = None
    series: str | None = None
    at: float | None = None


def contestants(recipe: Recipe, windows: Windows, features: Cache) -> list[Contestant]:
    """Return everything that the recipe compares, in its order, twins after their nets."""
    found: list[Contestant] = []
    signal = of_task(recipe.task)
    windowed = cache(lambda: cut(signal, windows))
    for model in recipe.models:
        if isinstance(model, PretrainedNet):
            nets = _pretrained(model, recipe.task, windows, features)
            if model.finetune:
                nets += _finetuned(model, model.finetune, recipe.task, windows)
            found += [_in_series(net, model) for net in nets]
        elif isinstance(model, EEGNet):
            found.append(_eegnet(model, recipe.task, windows, windowed))
        else:
            found.append(_fixed(model, recipe.task, signal, windows, windowed))
    return found


def check_unseen(recipe: Recipe, windows: Windows, parts: list[Split]) -> None:
    """Refuse to test a net on a recording that had a part in its weights.

    Raises
    ------
    ConfigError
        Lists every such recording; they are known by their content, whatever they are called.
    """
    tested = {int(place) for part in parts for place in windows.session[part.test]}
    faults = []
    for model in recipe.models:
        if isinstance(model, PretrainedNet):
            known = seen(load_run(model.run))
            sessions = (windows.sessions[place] for place in sorted(tested))
            names = [f"{one.subject}/{one.name}" for one in sessions if one.fingerprint in known]
            if names:
                faults.append(f"{model.name} ({model.run}) was pretrained on {', '.join(names)}")
    if faults:
        raise ConfigError(
            "A net is not tested on recordings that had a part in its weights: "
            + "; ".join(faults)
            + ". Test other subjects, or pretrain with these under `exclude:`."
        )


def seen(run: PretrainRun) -> set[str]:
    """Return the fingerprints of every recording that had a part in a run's weights."""
    return {one for group in run.fingerprints.values() for one in group}


def _pretrained(model: PretrainedNet, task: Task, windows: Windows, features: Cache) -> list[Contestant]:
    run = load_run(model.run)
    signal = Signal(task.ch_names, run.sfreq, run.dsp)
    trained, untrained = _identities(model, run)

    def make(system: Any) -> Features:
        part = placed(system.parts(), model.part, task.ch_names, task.stype)
        if model.pool == "window":
            return probe_finetune.pooled_crops(part, probe_finetune.Crops(signal, windows, 0.0))
        return pooled_latents(part, signal, windows)

    found = [
        _frozen(
            model.name,
            windows,
            trained,
            lambda seed: features.get(trained(seed), lambda: make(load_system(model.run))),
        )
    ]
    if model.untrained:
        found.append(
            _frozen(
                f"{model.name}, untrained",
                windows,
                untrained,
                lambda seed: features.get(
                    untrained(seed), lambda: make(initialised(run, seed % model.untrained))
                ),
                twin_of=model.name,
            )
        )
    return found


def _identities(model: PretrainedNet, run: PretrainRun) -> tuple[Callable[[int], str], Callable[[int], str]]:
    """Return what decides the latents of the net and, by seed, of its untrained twins."""
    settings = run.model_dump_json(include={"sfreq", "dsp"}) + model.part + digest(_system_json(run))
    settings += "" if model.pool == "frames" else f" by {model.pool}"
    weights = hashlib.sha256((model.run / WEIGHTS).read_bytes()).hexdigest()[:16]
    return (
        lambda _seed: digest(settings + weights),
        lambda seed: digest(f"{settings} initialised from {seed % model.untrained}"),
    )


def _finetuned(model: PretrainedNet, config: FineTune, task: Task, windows: Windows) -> list[Contestant]:
    """Return the net that goes on learning and, with the same budget, its untrained twins."""
    run = load_run(model.run)
    trained, untrained = _identities(model, run)
    signal = Signal(task.ch_names, run.sfreq, run.dsp)
    crops = cache(lambda: probe_finetune.Crops(signal, windows, config.context_s))
    budget = config.model_dump_json(exclude={"fractions"})

    def contestant(
        name: str, make: Callable[[int], Any], identity: Callable[[int], str], twin_of: str | None = None
    ) -> Contestant:
        def answer(labelled: Index, tested: Index, seed: int) -> Probabilities:
            part = placed(make(seed).parts(), model.part, task.ch_names, task.stype)
            labels = windows.labels[labelled]
            return probe_finetune.train_and_apply(
                config, part, crops(), labelled, labels, tested, seed=seed, by=model.pool
            )

        def what(seed: int) -> str:
            return digest(f"{identity(seed)} {budget} {seed}")

        return Contestant(name, what, answer, twin_of, config.fractions)

    own = f"{model.name} fine-tuned"
    found = [contestant(own, lambda _seed: load_system(model.run), trained)]
    if model.untrained:
        found.append(
            contestant(
                f"{own}, untrained", lambda seed: initialised(run, seed % model.untrained), untrained, own
            )
        )
    return found


def _in_series(net: Contestant, model: PretrainedNet) -> Contestant:
    """Return the net with its place in its series; what is trained further makes a line of its own."""
    if model.series is None:
        return net
    tuned = net.name.startswith(f"{model.name} fine-tuned")
    return replace(net, series=f"{model.series}, fine-tuned" if tuned else model.series, at=model.at)


def initialised(run: PretrainRun, seed: int) -> Any:
    """Return the run's system as it was before training, from another initialisation."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return run.recipe.system.build(run.sfreq).eval()


def _system_json(run: PretrainRun) -> str:
    return run.recipe.system.model_dump_json()


def _frozen(
    name: str,
    windows: Windows,
    identity: Callable[[int], str],
    features: Callable[[int], Features],
    twin_of: str | None = None,
) -> Contestant:
    def answer(labelled: Index, tested: Index, seed: int) -> Probabilities:
        x = features(seed)
        return probe_heads.logistic(
            x[labelled], windows.labels[labelled], windows.subjects[labelled], x[tested]
        )

    return Contestant(name, identity, answer, twin_of)


def _eegnet(model: EEGNet, task: Task, windows: Windows, windowed: Callable[[], Features]) -> Contestant:
    eegnet.require()

    def answer(labelled: Index, tested: Index, seed: int) -> Probabilities:
        x = windowed()
        return eegnet.train_and_apply(
            model, x[labelled], windows.labels[labelled], x[tested], sfreq=task.sfreq, seed=seed
        )

    what = model.model_dump_json(exclude={"name"})
    return Contestant(model.name, lambda seed: digest(f"{what} {seed}"), answer)


def _fixed(
    model: BandPower | TimeDomain | RawSignal,
    task: Task,
    signal: Signal,
    windows: Windows,
    windowed: Callable[[], Features],
) -> Contestant:
    """Return a model without weights."""

    @cache
    def make() -> Features:
        if isinstance(model, BandPower):
            return band_powers(windowed(), task.sfreq, model.bands)
        if isinstance(model, RawSignal):
            return pooled_latents(RawFrames(model.hop), signal, windows)
        return time_domain(windowed())

    what = digest(model.model_dump_json(exclude={"name"}))
    return _frozen(model.name, windows, lambda _seed: what, lambda _seed: make())
