"""Models fitted in one convex step, without gradient steps: on the latents of all labelled hops at once.

Such a model has ``fit(latents, labels)``, for somebody unknown, and ``fit_centred(latents, labels)``, for
latents minus the person's own mean at rest; its config says ``closed_form``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offline.calibrate import fit_temperature
from offline.data.trials import IGNORE
from offline.probe.features import step_through
from offline.train.batches import sample_labels
from offline.train.data import Material, Side
from offline.train.recipe import Recipe
from streamer.errors import RecordingError

PARTS = 5  # in which the training people are left out, if there are twice as many


@dataclass(frozen=True, slots=True)
class Hops:
    """Labelled hops of one person in the order of time, after the model's left context.

    Attributes
    ----------
    latents : ndarray, shape (n, D), float32
    labels : ndarray, shape (n,), int64
    age_s : ndarray, shape (n,), float64
        Seconds of that class that the person's recordings held up to the end of the hop.
    """

    latents: NDArray[np.float32]
    labels: NDArray[np.int64]
    age_s: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> Hops:
        """Return the hops chosen."""
        return Hops(self.latents[chosen], self.labels[chosen], self.age_s[chosen])


def fit(recipe: Recipe, material: Material) -> Any:
    """Return the recipe's model, both layers fitted on the training people.

    A layer is scaled so that its probabilities fit people best whom it does not know: both have a temperature
    of 1.  Those are the validation people, and all others in turn, by a layer fitted without them: of four
    people alone the temperature comes out anywhere between 1 and 6.

    Raises
    ------
    RecordingError
        A class without a hop, or nobody whose rest is longer than the recipe's ``cut.own_rest_s``.
    """
    model = recipe.model.build().eval()
    known, held_out = (labelled_hops(model, side, recipe) for side in (material.train, material.validate))
    _fit(model.fit, model.head, known, held_out, recipe)
    rested, others = ([centred(one, recipe) for one in side] for side in (known, held_out))
    _fit(model.fit_centred, model.centred, rested, others, recipe)
    return model


def labelled_hops(model: Any, side: Side, recipe: Recipe) -> list[Hops]:
    """Return each person's labelled hops, their recordings stepped from the first sample."""
    parts: dict[str, list[Hops]] = {}
    for prepared in side.prepared:
        if len(prepared.data) < model.hop:
            continue
        latents = step_through(model, prepared.data)  # (F, D)
        labels = sample_labels(prepared, recipe.cut.from_s * recipe.sfreq)[model.hop - 1 :: model.hop]
        warm = np.arange(len(latents)) * model.hop >= model.left_context
        age_s = _ages(labels, len(recipe.classes)) * model.hop / recipe.sfreq
        hops = Hops(latents, labels, age_s)
        before = parts.setdefault(prepared.subject, [])
        parts[prepared.subject] = [*before, _later(hops, before).where(warm & (labels != IGNORE))]
    return [_joined(some) for some in parts.values()]


def centred(hops: Hops, recipe: Recipe) -> Hops | None:
    """Return a person's hops minus the mean of the first rest, without that rest; None without any."""
    rest = recipe.classes.index(recipe.idle)
    first = (hops.labels == rest) & (hops.age_s <= recipe.cut.own_rest_s)
    if not first.any():
        return None
    mean = hops.latents[first].mean(axis=0)
    return replace(hops, latents=hops.latents - mean).where(~first)


def _ages(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """Return how many hops of its own class there were up to each one, it included."""
    counts = np.cumsum(labels[:, None] == np.arange(n_classes), axis=0)  # (n, K)
    return counts[np.arange(len(labels)), np.maximum(labels, 0)].astype(np.float64)


def _later(hops: Hops, before: Iterable[Hops]) -> Hops:
    """Return the hops as old as they are with those of earlier recordings before them."""
    age_s = hops.age_s.copy()
    for label in np.unique(hops.labels):
        last = [one.age_s[one.labels == label].max(initial=0.0) for one in before]
        age_s[hops.labels == label] += max(last, default=0.0)
    return replace(hops, age_s=age_s)


def _joined(some: list[Hops]) -> Hops:
    return Hops(
        np.concatenate([one.latents for one in some]),
        np.concatenate([one.labels for one in some]),
        np.concatenate([one.age_s for one in some]),
    )


def _together(people: Sequence[Hops | None], recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return latents (n, D) and labels (n,) of everybody who has any; or raise `RecordingError`."""
    hops = [one for one in people if one is not None]
    there = np.unique([label for one in hops for label in one.labels.tolist()])
    absent = [name for k, name in enumerate(recipe.classes) if k not in there]
    if absent:
        raise RecordingError(
            f"No hop of {', '.join(absent)} is left, or none after the first {recipe.cut.own_rest_s:g} s of "
            f"{recipe.idle}: name more subjects to train and to validate, or lower cut.own_rest_s."
        )
    return np.concatenate([one.latents for one in hops]), np.concatenate([one.labels for one in hops])


def _fit(
    fit_layer: Callable[[NDArray[np.float32], NDArray[np.int64]], None],
    layer: nn.Linear,
    known: Sequence[Hops | None],
    held_out: Sequence[Hops | None],
    recipe: Recipe,
) -> None:
    """Fit a layer on those known, and divide it by the temperature that fits best whom it does not know."""
    said: list[Tensor] = []
    asked: list[Tensor] = []

    def hear(people: Sequence[Hops | None]) -> None:
        latents, labels = _together(people, recipe)
        said.append(layer(torch.from_numpy(latents)))
        asked.append(torch.from_numpy(labels))

    with torch.no_grad():
        for part in range(PARTS if len(known) >= 2 * PARTS else 0):
            fit_layer(*_together([one for i, one in enumerate(known) if i % PARTS != part], recipe))
            hear(known[part::PARTS])
        fit_layer(*_together(known, recipe))
        hear(held_out)
        temperature = fit_temperature(torch.cat(said), torch.cat(asked))
        layer.weight.div_(temperature)
        layer.bias.div_(temperature)
