"""Whole recordings stepped as live, and how good what a model says of them is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offline.calibrate import balanced_cross_entropy, fit_temperature
from offline.data.trials import IGNORE, Prepared
from offline.evaluate.answers import answers
from offline.evaluate.figures import agreement
from offline.evaluate.played import Played
from offline.train.batches import sample_labels
from offline.train.data import Side
from offline.train.recipe import Recipe

HOPS = 256  # per call of a model; any other number gives the same logits
ROWS = 32  # stretches side by side; the same holds
Logits = NDArray[np.float32]


class Rows:
    """The stretches of recordings as rows of batches, the longest first, filled up with silence behind.

    Item i is (places, x): which stretches (R,) int64, and their signal (R, C, T), T whole hops.  A causal
    model says the same of a stretch whatever follows it.
    """

    def __init__(self, prepared: Sequence[Prepared], hop: int) -> None:
        self._prepared, self._hop = prepared, hop
        lengths = np.array([len(one.data) // hop for one in prepared])
        order = np.argsort(-lengths, kind="stable")
        self._groups = [order[i : i + ROWS] for i in range(0, int((lengths > 0).sum()), ROWS)]
        self._groups = [group[lengths[group] > 0] for group in self._groups]

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        if not 0 <= item < len(self):
            raise IndexError(item)
        group = self._groups[item]
        size = len(self._prepared[group[0]].data) // self._hop * self._hop
        x = np.zeros((len(group), self._prepared[group[0]].data.shape[1], size), dtype=np.float32)
        for row, place in enumerate(group):
            whole = len(self._prepared[place].data) // self._hop * self._hop
            x[row, :, :whole] = self._prepared[place].data[:whole].T
        return torch.from_numpy(group), torch.from_numpy(x)


def step_through(model: Any, x: Tensor) -> Tensor:
    """Return the logits of every hop of recordings from their first sample on, (R, F, K).

    Parameters
    ----------
    x : Tensor, shape (R, C, T)
        T whole hops.
    """
    state, size, parts = model.init_state(len(x)), HOPS * model.hop, []
    with torch.inference_mode():
        for start in range(0, x.shape[-1], size):
            outputs, state = model(x[..., start : start + size], state)
            parts.append(outputs["logits"].float().cpu())
    return torch.cat(parts, dim=1)


def stepped(model: Any, prepared: Sequence[Prepared]) -> list[Logits]:
    """Return the logits (F, K) of every whole hop of each stretch; the model is in eval mode."""
    rows = Rows(prepared, model.hop)
    return collected([(places, step_through(model, x)) for places, x in (rows[i] for i in range(len(rows)))],
                     prepared, model.hop)  # fmt: skip


def collected(parts: Sequence[tuple[Tensor, Tensor]], prepared: Sequence[Prepared], hop: int) -> list[Logits]:
    """Return the logits (F, K) of each stretch from those of `Rows`, in the order of ``prepared``."""
    n_classes = parts[0][1].shape[-1]
    found: list[Logits] = [np.zeros((0, n_classes), dtype=np.float32)] * len(prepared)
    for places, logits in parts:
        for place, row in zip(places.tolist(), logits.numpy(), strict=True):
            found[place] = row[: len(prepared[place].data) // hop]
    return found


def labelled(logits: Sequence[Logits], prepared: Sequence[Prepared], recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return logits (n, K) and classes (n,) of the hops that lie in a span, from the cut's ``from_s`` on."""
    wait, hop = _from_s(recipe) * recipe.sfreq, recipe.model.hop
    classes = [
        sample_labels(one, wait)[hop - 1 :: hop][: len(some)]
        for one, some in zip(prepared, logits, strict=True)
    ]
    said, asked = torch.from_numpy(np.concatenate(logits)), torch.from_numpy(np.concatenate(classes))
    return said[asked != IGNORE], asked[asked != IGNORE]


def scores(
    logits: Sequence[Logits], side: Side, recipe: Recipe, left_context: int, temperature: float | None = None
) -> tuple[dict[str, float], float]:
    """Return the validation scores and the temperature: the one given, or else the one that fits best.

    ``val_accuracy`` and ``val_balanced_accuracy`` are of the protocol's answers, ``val_cross_entropy`` (nats,
    each class counting alike, at that temperature) and ``val_hop_balanced_accuracy`` of all labelled
    hops.
    """
    said, asked = labelled(logits, side.prepared, recipe)
    temperature = fit_temperature(said, asked) if temperature is None else temperature
    hops = agreement(asked.numpy(), said.argmax(dim=-1).numpy())
    played = as_played(logits, side, recipe, left_context, temperature)
    answered = answers(played, recipe.classes, recipe.idle, recipe.protocol)
    found = agreement(answered.truth, answered.said)
    figures = {
        "val_accuracy": found["accuracy"],
        "val_balanced_accuracy": found["balanced_accuracy"],
        "val_hop_balanced_accuracy": hops["balanced_accuracy"],
        "val_cross_entropy": balanced_cross_entropy(said / temperature, asked),
    }
    return {name: round(float(value), 6) for name, value in figures.items() if value is not None}, temperature


def as_played(
    logits: Sequence[Logits], side: Side, recipe: Recipe, left_context: int, temperature: float
) -> list[Played]:
    """Return each recording as if it had been played, without a decision stage."""
    found, first = [], 0
    for session, stretches in zip(side.sessions, side.stretches, strict=True):
        some = list(zip(stretches, logits[first : first + len(stretches)], strict=True))
        first += len(stretches)
        if not some:
            continue
        recording = session.recording
        joined = torch.from_numpy(np.concatenate([each for _, each in some])) / temperature
        ends = [(np.arange(1, len(each) + 1) * recipe.model.hop - 1) / recipe.sfreq for _, each in some]
        warm = [np.arange(len(each)) * recipe.model.hop >= left_context for _, each in some]
        found.append(
            Played(
                subject=session.subject,
                name=session.name,
                times=np.concatenate([one.start_s + end for (one, _), end in zip(some, ends, strict=True)]),
                log_probs=joined.log_softmax(dim=-1).numpy(),
                valid=np.concatenate(warm),
                labels=np.full(len(joined), -1, dtype=np.int64),
                markers=tuple(recording.markers),
                duration_s=float(recording.times[-1] + 1 / recording.info.sfreq),
            )
        )
    return found


def _from_s(recipe: Recipe) -> float:
    return float(recipe.cut.from_s)
