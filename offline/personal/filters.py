"""A trained decoder made one person's by gradient, from a few labelled trials.

What differs between heads is where a source is seen: only the filters over electrodes move, those that a
model names in ``personal``, a few small steps from where they are.  Every trial is learned from as it is and
mirrored, so that nothing is learned of which side was shown more often.  Norms and dropout stay frozen.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from offline.evaluate.protocol import Trials
from offline.personal.shown import HELD, LAST, Rows, Shown, with_mirrored
from offline.train.recipe import Recipe
from streamer.components import Config
from streamer.errors import ConfigError

FOLDS = 4  # in which trials are left out
FEWEST = 4  # trials
AT_ONCE = 64  # windows per call: an hour of trials need not be in memory with all their activations


class Settings(Config):
    """How far the filters go.

    Attributes
    ----------
    steps : int
        Of AdamW, each over all trials.
    lr : float
    hold : float
        Weight of what was said of rest before, against the trials: without it the net grows bolder.
    """

    steps: PositiveInt = 20
    lr: PositiveFloat = 2e-3
    hold: NonNegativeFloat = 1.0


@dataclass(frozen=True, slots=True)
class Adapted:
    """What came of it.

    Attributes
    ----------
    model : nn.Module
        The adapted one.
    before, after : float
        Cross-entropy of trials that were left out in turn, nats, by the model as it was and as adapted to the
        others, each at the temperature that it is used with.
    bolder : float
        How much further apart, at least 1, its logits lie in rest that was left out in turn: what its
        temperature takes, so that it is no surer in rest than it was.
    """

    model: Any
    before: float
    after: float
    bolder: float

    @property
    def better(self) -> bool:
        """Whether trials that had no part in it speak for it."""
        return self.after < self.before


def refuse(model: Any, recipe: Recipe) -> None:
    """Refuse a model that cannot be made one person's; `ConfigError`."""
    if not hasattr(model, "personal"):
        raise ConfigError(f"A model of kind {recipe.model.kind} has no filters that could be a person's own.")
    if not isinstance(recipe.protocol, Trials):
        raise ConfigError("The model answers windows, not cues: there is no trial to adapt it to.")


def adapt(model: Any, recipe: Recipe, shown: Shown, settings: Settings, temperature: float) -> Adapted:
    """Return the model adapted to these trials, and what trials that were left out say of such models.

    Parameters
    ----------
    temperature : float
        That the model is used with.

    Raises
    ------
    ConfigError
        Too few trials, or of one class only.
    """
    _enough(shown, recipe)
    truth, before = _truth(recipe, shown), _answers(model, recipe, shown.x)
    after, was, now = torch.empty_like(before), 0.0, 0.0
    for out, resting in zip(_dealt(shown.labels), _dealt(torch.zeros(len(shown.rest))), strict=True):
        kept = np.setdiff1d(np.arange(len(shown)), out), np.setdiff1d(np.arange(len(shown.rest)), resting)
        other, rest = learned(model, recipe, shown.take(*kept), settings), shown.rest[resting]
        after[torch.from_numpy(out)] = _answers(other, recipe, shown.x[torch.from_numpy(out)])
        was, now = was + _spread(model, rest), now + _spread(other, rest)
    bolder = max(1.0, float(np.sqrt(now / was))) if was else 1.0
    return Adapted(
        learned(model, recipe, shown, settings),
        float(F.cross_entropy(before / temperature, truth)),
        float(F.cross_entropy(after / (bolder * temperature), truth)),
        bolder,
    )


def learned(model: Any, recipe: Recipe, shown: Shown, settings: Settings) -> Any:
    """Return a copy of the model whose filters over electrodes have learned these trials."""
    model = copy.deepcopy(model).eval()
    moved = []
    for name, parameter in model.named_parameters():
        mine = any(part in model.personal for part in name.split("."))
        parameter.requires_grad_(mine)
        moved += [parameter] if mine else []
    both = with_mirrored(shown, recipe)
    truth, said = _truth(recipe, both), _of_rest(model, both.rest)
    optimizer = torch.optim.AdamW(moved, lr=settings.lr, weight_decay=0.0)
    for _ in range(settings.steps):
        optimizer.zero_grad()
        for part in torch.split(torch.arange(len(both)), AT_ONCE):
            logits = _answering(model, recipe, both.x[part])
            (F.cross_entropy(logits, truth[part], reduction="sum") / len(both)).backward()  # type: ignore[no-untyped-call]
        for part in torch.split(torch.arange(len(both.rest)), AT_ONCE):
            if len(part):
                now = _resting(model, both.rest[part])
                apart = F.kl_div(now, said[part], reduction="sum", log_target=True)
                (settings.hold * apart / said.shape[:2].numel()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.requires_grad_(False)


def _truth(recipe: Recipe, shown: Shown) -> Tensor:
    """Return the place of each trial's class among those that may be answered, (n,)."""
    asked = recipe.protocol.asked(recipe.classes, recipe.idle)
    return torch.tensor([asked.index(place) for place in shown.labels.tolist()], dtype=torch.int64)


def _answering(model: Any, recipe: Recipe, x: Tensor) -> Tensor:
    """Return the logits of the classes that may be answered, at the answer, (n, K)."""
    outputs, _ = model(x, model.init_state(len(x)))
    asked = recipe.protocol.asked(recipe.classes, recipe.idle)
    logits: Tensor = outputs["logits"][:, -LAST:, asked].mean(dim=1)
    return logits


def _resting(model: Any, rest: Tensor) -> Tensor:
    """Return the log-probabilities of all classes at the last `HELD` hops, (m, HELD, K)."""
    outputs, _ = model(rest, model.init_state(len(rest)))
    return F.log_softmax(outputs["logits"][:, -HELD:], dim=-1)


@torch.no_grad()
def _answers(model: Any, recipe: Recipe, x: Tensor) -> Tensor:
    return torch.cat([_answering(model, recipe, part) for part in torch.split(x, AT_ONCE)])


@torch.no_grad()
def _of_rest(model: Any, rest: Tensor) -> Tensor:
    if not len(rest):
        return torch.zeros(0, HELD, 1)
    return torch.cat([_resting(model, part) for part in torch.split(rest, AT_ONCE)])


def _spread(model: Any, rest: Tensor) -> float:
    """Return the summed squares of the logits of rest, each hop's mean taken off."""
    said = _of_rest(model, rest)
    return float((said - said.mean(dim=-1, keepdim=True)).square().sum())


def _dealt(labels: Tensor) -> Iterator[Rows]:
    """Yield what is left out in turn, dealt class by class."""
    dealt = np.argsort(labels.numpy(), kind="stable")
    for fold in range(FOLDS):
        yield np.sort(dealt[fold::FOLDS])


def _enough(shown: Shown, recipe: Recipe) -> None:
    found = shown.counts(recipe.classes)
    if len(shown) < FEWEST or len(found) < 2:
        assert isinstance(recipe.protocol, Trials)
        named = ", ".join(f"{count} of {name}" for name, count in found.items()) or "none"
        cut = (
            f", and {shown.left_out} cues without {recipe.protocol.at_s:g} s of signal"
            if shown.left_out
            else ""
        )
        raise ConfigError(
            f"{len(shown)} labelled trials ({named}){cut}: it takes at least {FEWEST}, of two classes. Give "
            "more signal, or check the names of the events."
        )
