"""Contrast between people: InfoNCE without same-subject negatives, a queue of past keys, and distillation.

Everybody has a number (int64).  Two rows with the same number are of one person, and are never each other's
negatives: another recording of a person is no more wrong than the one that is asked for, and a loss that
pushes it away fights itself.

Keys carry no gradient (MoCo, He et al. 2020, arXiv:1911.05722, section 3.2): they come from a slowly moving
copy of the nets, so those of past steps can stay in a `Queue`, and those of other processes can be gathered
without a backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offline.blocks.ranks import gathered_uneven, place, summed

NOBODY = -1  # number of an empty slot
FORBIDDEN = -1e9  # logit of what must not count; finite, so that a row of nothing else has a gradient of 0


class Keys(NamedTuple):
    """Unit vectors to compare with.

    Attributes
    ----------
    z : Tensor, shape (M, P), float32
    subjects : Tensor, shape (M,), int64
        `NOBODY`: no key at all.
    rows : Tensor, shape (M,), int64
        Number of the row that each is a view of; `NOBODY` for one of a past step.
    """

    z: Tensor
    subjects: Tensor
    rows: Tensor

    def everywhere(self) -> Keys:
        """Return the keys of all processes, in the order of ranks; each process may hold any number."""
        return Keys(*(gathered_uneven(part) for part in self))

    def and_past(self, queue: Queue) -> Keys:
        """Return these keys, then those of the queue."""
        past = torch.full_like(queue.subjects, NOBODY)
        return Keys(
            torch.cat([self.z, queue.keys]),
            torch.cat([self.subjects, queue.subjects]),
            torch.cat([self.rows, past]),
        )


class Queue(nn.Module):
    """The last ``size`` keys and whose they are; part of the state dict, so a resumed training has them.

    Attributes
    ----------
    keys : Tensor, shape (size, dim), float32
    subjects : Tensor, shape (size,), int64
        `NOBODY` where nothing has been put yet.
    pointer : Tensor, shape (), int64
        The slot that is overwritten next: the oldest.
    """

    keys: Tensor
    subjects: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("subjects", torch.full((size,), NOBODY, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, z: Tensor, subjects: Tensor) -> None:
        """Overwrite the oldest slots with keys (n, dim) of ``subjects`` (n,); of too many the last stay."""
        size = len(self.keys)
        first = max(len(z) - size, 0)
        slots = (self.pointer + torch.arange(first, len(z), device=z.device)) % size
        self.keys[slots] = z[first:].to(self.keys.dtype)
        self.subjects[slots] = subjects[first:]
        self.pointer.copy_((self.pointer + len(z)) % size)


class Term(NamedTuple):
    """A loss over the rows that have one.

    Attributes
    ----------
    loss : Tensor, scalar
        This process' share, such that the mean over processes is the mean over the rows of all of them.
    n : Tensor, scalar
        Rows of all processes that have a loss; 0 makes ``loss`` 0.
    """

    loss: Tensor
    n: Tensor

    @classmethod
    def of(cls, rows: Tensor, where: Tensor) -> Term:
        """Return the mean of ``rows`` (N,) over those ``where`` (N,) is True, in any process."""
        n = summed(where.sum().to(rows.dtype))
        total = torch.where(where, rows, 0.0).sum()
        return cls(total * place()[1] / n.clamp(min=1), n)

    @classmethod
    def mean(cls, terms: Sequence[Term]) -> Term:
        """Return the mean of those that have any rows."""
        n = torch.stack([term.n for term in terms])
        return cls(torch.stack([term.loss for term in terms]).sum() / (n > 0).sum().clamp(min=1), n.sum())


def same_row(rows: Tensor, keys: Keys) -> Tensor:
    """Return which keys (M) are views of which of the ``rows`` (N,): (N, M) bool."""
    return rows[:, None] == keys.rows[None, :]


def same_person(subjects: Tensor, keys: Keys) -> Tensor:
    """Return which keys of this step (M) are of which of the ``subjects`` (N,): (N, M) bool."""
    return (subjects[:, None] == keys.subjects[None, :]) & (keys.rows != NOBODY)[None, :]


def infonce(queries: Tensor, subjects: Tensor, keys: Keys, positives: Tensor, temperature: float) -> Term:
    """Return the mean over queries of ``-log(e^p / (e^p + sum over other people's keys of e^n))``.

    ``p`` and ``n`` are cosines over the temperature (van den Oord et al. 2018, arXiv:1807.03748).  A query
    with several positives has the mean of their losses (Khosla et al. 2020, arXiv:2004.11362, L_out), one
    without any has none.

    Parameters
    ----------
    queries : Tensor, shape (N, P)
        Unit vectors.
    subjects : Tensor, shape (N,), int64
        Whose they are.
    positives : Tensor, shape (N, M), bool
        Which keys each should find.
    """
    with torch.autocast(queries.device.type, enabled=False):
        cosines = queries.float() @ keys.z.float().T / temperature  # (N, M)
        others = (subjects[:, None] != keys.subjects[None, :]) & (keys.subjects != NOBODY)[None, :]
        wrong = cosines.masked_fill(~others, FORBIDDEN).logsumexp(dim=-1, keepdim=True)  # (N, 1)
        each = torch.where(positives, F.softplus(wrong - cosines), 0.0)
        found = positives.sum(dim=-1)
        return Term.of(each.sum(dim=-1) / found.clamp(min=1), found > 0)


def relations(
    students: Tensor, subjects: Tensor, student_keys: Keys, teacher_keys: Keys, temperature: float
) -> Term:
    """Return how differently the two modalities relate people to each other: relational distillation.

    For each student whose person the teacher sees in the same step: the teacher's cosines between that person
    and the other paired people, as a softmax, against the student's to the same people,
    ``KL(teacher || student)``.  So SEED with its queue of a momentum net's keys (Fang et al. 2021,
    arXiv:2101.04731); there the person's own key is among them, here it is left to `infonce`.

    Parameters
    ----------
    students : Tensor, shape (N, P)
        Unit vectors.
    subjects : Tensor, shape (N,), int64
    student_keys, teacher_keys : Keys
        A student's key counts where the teacher's hold that person too; where they do so several times, it
        is compared with their mean.  Nothing flows back into either.
    """
    with torch.autocast(students.device.type, enabled=False):
        now = same_person(subjects, teacher_keys)  # (N, Mt)
        known = (student_keys.subjects != NOBODY)[:, None]
        ever = (student_keys.subjects[:, None] == teacher_keys.subjects[None, :]) & known  # (Ms, Mt)
        own, references = (_mean(match, teacher_keys.z) for match in (now, ever))  # (N, P), (Ms, P)
        others = ever.any(dim=-1)[None, :] & (subjects[:, None] != student_keys.subjects[None, :])
        wanted = _log_softmax(own @ references.T / temperature, others)
        found = _log_softmax(students.float() @ student_keys.z.detach().float().T / temperature, others)
        each = torch.where(others, wanted.exp() * (wanted - found), 0.0).sum(dim=-1)
        return Term.of(each, now.any(dim=-1) & (others.sum(dim=-1) > 1))


def _mean(match: Tensor, z: Tensor) -> Tensor:
    """Return for each row of ``match`` (N, M) the direction of the mean of its keys, (N, P)."""
    return F.normalize(match.float() @ z.detach().float(), dim=-1)


def _log_softmax(logits: Tensor, among: Tensor) -> Tensor:
    return logits.masked_fill(~among, FORBIDDEN).log_softmax(dim=-1)


def nearest_is_right(queries: Tensor, subjects: Tensor, keys: Keys, among: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each query that can be right whether its nearest key is of the same person, and chance.

    Parameters
    ----------
    among : Tensor, shape (N, M), bool
        Keys that each query may find.

    Returns
    -------
    hits, chance : Tensor, shape (n,), float32
        1 or 0; the share of the keys that would be right.  Queries without any, or with no wrong one to
        choose, are left out.
    """
    right = among & (subjects[:, None] == keys.subjects[None, :])
    cosines = (queries.float() @ keys.z.float().T).masked_fill(~among, -2.0)
    chance = right.sum(dim=-1) / among.sum(dim=-1).clamp(min=1)
    asked = (chance > 0) & (chance < 1)
    if not len(queries) or not len(keys.z):
        return chance[asked], chance[asked]
    hits = right.gather(1, cosines.argmax(dim=-1, keepdim=True))[:, 0].float()
    return hits[asked], chance[asked]
