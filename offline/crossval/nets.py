"""Nets in a cross-validation: pretrained without a fold's test subjects, read through the EEG branch only."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline import run_folder, runs
from offline.crossval import heads as crossval_heads
from offline.crossval.folds import Fold, Index, People
from offline.crossval.recipe import PretrainedNet, Pretraining, Reading, Recipe, Training, UntrainedNet
from offline.data.shards import ShardSet
from offline.models.mcsp_branch import DOMAINS
from offline.pretrain import recipe as pretrain_recipe
from offline.pretrain.pretrain import pretrain
from offline.pretrain.recipe import PretrainRecipe
from offline.runs import CHECKPOINT, PretrainRun
from streamer.errors import ConfigError

CLIP = 1.0  # norm of a step's gradient
WARM_UP = 0.1  # share of the steps in which the rates rise

Net = PretrainedNet | UntrainedNet
Answer = tuple[NDArray[np.float64], dict[str, float]]


def fold_recipe(recipe: Recipe, model: Net, people: People, fold: Fold) -> PretrainRecipe:
    """Return the pretraining of a fold: none of its test subjects, the number of the repeat as seed.

    Raises
    ------
    ConfigError
        The recipe cannot be used, or is none of a system with an EEG branch that could be read.
    """
    base: Pretraining = recipe.pretraining  # type: ignore[assignment]
    changes = [*base.set, *(model.set if isinstance(model, PretrainedNet) else ())]
    excluded = [
        *pretrain_recipe.load(base.recipe, changes).data.exclude,
        *(people.names[i] for i in fold.test),
    ]
    folder = recipe.output / "folds" / model.name.replace(" ", "_") / f"{fold.repeat}_{fold.number}"
    own = {"data.exclude": excluded, "seed": fold.repeat, "output": str(folder)}
    changes += [f"{name}={json.dumps(value)}" for name, value in own.items()]
    found = pretrain_recipe.load(base.recipe, changes)
    if found.system.kind != "mcsp":
        raise ConfigError(
            f"{base.recipe} pretrains a system of kind {found.system.kind}; connectomes are read by mcsp."
        )
    return found


def trained_branch(settings: PretrainRecipe, people: People, fold: Fold) -> Any:
    """Return the EEG branch that a fold's pretraining leaves; it is run, or gone on with, where need be.

    Raises
    ------
    ConfigError
        The pretraining has seen a test subject, or its folder holds another one that is unfinished.
    """
    folder = settings.output
    run = runs.load_run(folder) if (folder / run_folder.RUN).is_file() else None
    mine = run is not None and run.recipe.course() == settings.course()
    if run is None or not (mine and run.finished):
        resume = mine and (folder / CHECKPOINT).is_file()
        run = pretrain(settings, resume=resume, progress=False)
    check_unseen(run, people, fold)
    return _branch_of(runs.load_system(folder))


def check_unseen(run: PretrainRun, people: People, fold: Fold) -> None:
    """Raise `ConfigError` where a pretraining knows a fold's test subjects, by name or by their numbers."""
    names = {name for side in run.subjects.values() for name in side}
    prints = {one for side in run.fingerprints.values() for one in side}
    for i in fold.test:
        if people.names[i] in names or prints & set(people.fingerprints[i]):
            raise ConfigError(
                f"{people.names[i]} is tested in fold {fold.number} of repeat {fold.repeat}, but the "
                f"pretraining in {run.recipe.output} has seen this person, perhaps under another name."
            )


def initial_branch(settings: PretrainRecipe) -> Any:
    """Return the EEG branch as it is before a fold's pretraining begins."""
    sfreq = settings.data.sfreq
    if sfreq is None:
        sfreq = ShardSet(settings.data.shards, batch_size=1).sfreq
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return _branch_of(settings.system.build(sfreq).eval())


def _branch_of(system: Any) -> Any:
    return system.eeg


class Embedding(nn.Module):
    """The EEG branch on connectomes: the views that they have, side by side.

    Parameters
    ----------
    branch : Branch
        See `offline.models.mcsp_branch.Branch`.
    nodes : str
        Atlas of the connectomes.
    """

    def __init__(self, branch: Any, nodes: str) -> None:
        super().__init__()
        self.branch, self.nodes = branch, nodes

    def forward(self, edges: Tensor) -> Tensor:
        """Return the embedding (n, views * dim) of edges (n, E, N, N)."""
        places = self.branch.places(None, self.nodes)
        views = self.branch.views_of_edges(edges)
        found = [self.branch.encode(name, views[name], places) for name in DOMAINS if name in views]
        return torch.cat(found, dim=-1)


def answer(
    make_branch: Callable[[], Any],
    reading: Reading,
    training: Training,
    people: People,
    fold: Fold,
    seed: int,
) -> Answer:
    """Return the probability of class 1 for a fold's test subjects, and figures of how it was learned.

    Frozen: a logistic regression on the embedding.  Trained: branch and head go on learning from there.
    """
    edges = torch.from_numpy(people.edges["eeg"])
    embedding = Embedding(make_branch(), people.nodes["eeg"]).eval()
    with torch.no_grad():
        features = embedding(edges).numpy()
    head = crossval_heads.fit(features[fold.train], people.labels[fold.train], seed)
    figures = {"strength": head.strength}
    if reading == "frozen":
        return head.probabilities(features[fold.test]), figures
    reader = _Reader(embedding, head)
    loss = _train(reader, training, edges[fold.train], people.labels[fold.train], seed)
    with torch.no_grad():
        logits = reader.eval()(edges[fold.test])
    return torch.sigmoid(logits.double()).numpy(), figures | {"final_loss": round(loss, 4)}


class _Reader(nn.Module):
    """An embedding of its own under a head that starts as fitted."""

    def __init__(self, embedding: Embedding, head: crossval_heads.Head) -> None:
        super().__init__()
        self.embedding = copy.deepcopy(embedding)
        self.register_buffer("mean", torch.from_numpy(head.mean))
        self.register_buffer("scale", torch.from_numpy(head.scale))
        self.head = nn.Linear(len(head.weight), 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.weight)[None])
            self.head.bias.fill_(head.bias)

    def forward(self, edges: Tensor) -> Tensor:
        """Return the logit of class 1: (n, E, N, N) -> (n,)."""
        features = (self.embedding(edges) - self.get_buffer("mean")) / self.get_buffer("scale")
        return self.head(features)[:, 0]  # type: ignore[no-any-return]


def _train(reader: _Reader, config: Training, edges: Tensor, labels: Index, seed: int) -> float:
    """Train in place; return the mean loss of the last tenth of the steps."""
    wanted = torch.from_numpy(labels).float()
    share = float(wanted.mean())
    weights = torch.where(wanted > 0, 0.5 / share, 0.5 / (1 - share))  # classes weigh alike
    groups = [
        {"params": reader.embedding.parameters(), "lr": config.lr},
        {"params": reader.head.parameters(), "lr": config.head_lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config.steps))
    rng, order, losses = np.random.default_rng(seed), np.empty(0, dtype=np.int64), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of dropout
        reader.train()
        for _ in range(config.steps):
            if len(order) < min(config.batch_size, len(labels)):
                order = np.concatenate([order, rng.permutation(len(labels))])
            rows, order = order[: config.batch_size], order[config.batch_size :]
            logits = reader(edges[rows])
            loss = nn.functional.binary_cross_entropy_with_logits(logits, wanted[rows], weights[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(reader.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    return float(np.mean(losses[-max(1, config.steps // 10) :]))


def _rate(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step: up in a line, down along a cosine."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def figures_of(folder: Path) -> dict[str, float]:
    """Return what a fold's pretraining says of itself: figures on its held-out people, seconds."""
    run = runs.load_run(folder)
    return {**run.scores, "seconds": run.seconds}
