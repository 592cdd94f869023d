"""Contrast between people: who counts as a negative, what the queue keeps, what flows back."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from offline.objectives.contrast import (  # noqa: E402
    NOBODY,
    Keys,
    Queue,
    Term,
    infonce,
    nearest_is_right,
    relations,
    same_person,
    same_row,
)

DIM = 6


def units(n: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)


def keys(subjects: list[int], seed: int = 1, first_row: int = 0) -> Keys:
    n = len(subjects)
    return Keys(units(n, seed), torch.tensor(subjects), torch.arange(first_row, first_row + n))


def joined(*parts: Keys) -> Keys:
    return Keys(*(torch.cat(each) for each in zip(*parts, strict=True)))


def loss(found: Keys, subjects: list[int], queries: Tensor | None = None) -> Term:
    n = len(subjects)
    queries = units(n) if queries is None else queries
    return infonce(queries, torch.tensor(subjects), found, same_row(torch.arange(n), found), 0.2)


def test_infonce_is_the_cross_entropy_of_the_right_key() -> None:
    """With one key per person and each its own positive, the loss is the textbook's."""
    found, queries = keys([1, 2, 3, 4]), units(4)
    wanted = F.cross_entropy(queries @ found.z.T / 0.2, torch.arange(4))
    torch.testing.assert_close(loss(found, [1, 2, 3, 4]).loss, wanted)


def test_more_of_the_same_person_are_no_negatives() -> None:
    """Another recording of the anchor's person among the keys changes nothing; one of anybody else does."""
    few = keys([1, 2, 3])
    own, other = (joined(few, keys([subject], seed=7, first_row=9)) for subject in (1, 5))
    alone, same, another = (loss(each, [1], units(1)).loss for each in (few, own, other))
    assert torch.equal(alone, same)
    assert another > alone


def test_empty_slots_are_no_keys() -> None:
    """A queue that nothing was put into changes nothing."""
    found = keys([1, 2, 3])
    assert torch.equal(loss(found.and_past(Queue(5, DIM)), [1, 2, 3]).loss, loss(found, [1, 2, 3]).loss)


def test_a_row_without_a_positive_has_no_loss_and_no_gradient() -> None:
    """The mean is over rows that have a positive; where none has, it is 0 and so is the gradient."""
    queries = units(3).requires_grad_()
    found = keys([1, 2])  # the third row is not among the keys
    term = infonce(queries, torch.tensor([1, 2, 3]), found, same_row(torch.arange(3), found), 0.2)
    (gradient,) = torch.autograd.grad(term.loss, queries)
    assert term.n == 2
    assert gradient[:2].abs().amin(dim=-1).min() > 0
    assert not gradient[2].any()
    for some in (keys([8, 9], first_row=50), keys([])):
        none = infonce(queries, torch.tensor([1, 2, 3]), some, same_row(torch.arange(3), some), 0.2)
        (gradient,) = torch.autograd.grad(none.loss, queries)
        assert [float(none.n), float(none.loss.detach())] == [0, 0]
        assert not gradient.any()


def test_a_row_with_no_negative_at_all_is_no_nan() -> None:
    """One person alone has nothing to be told apart from: loss and gradient are 0."""
    queries = units(2).requires_grad_()
    found = keys([1, 1])
    term = infonce(queries, torch.tensor([1, 1]), found, same_row(torch.arange(2), found), 0.2)
    (gradient,) = torch.autograd.grad(term.loss, queries)
    assert term.loss == 0
    assert not gradient.any()


def test_several_positives_share_the_loss() -> None:
    """A person who is there twice in the other modality counts once: the mean over both."""
    found, queries = joined(keys([1, 2]), keys([1], seed=5, first_row=2)), units(1)
    positives = same_person(torch.tensor([1]), found)
    both = infonce(queries, torch.tensor([1]), found, positives, 0.2).loss
    each = [
        infonce(queries, torch.tensor([1]), found, positives & (torch.arange(3) == i), 0.2).loss
        for i in (0, 2)
    ]
    torch.testing.assert_close(both, torch.stack(each).mean())


def test_keys_of_the_past_are_no_positives() -> None:
    """Only this step's keys of a person are found; those in the queue are merely not pushed away."""
    queue = Queue(4, DIM)
    queue.put(units(1, 9), torch.tensor([1]))
    found = keys([1, 2]).and_past(queue)
    assert same_person(torch.tensor([1]), found).tolist() == [[True, False, False, False, False, False]]


def test_the_mean_over_terms_leaves_out_those_without_rows() -> None:
    """A pair of domains that nothing in the step has does not thin the others' loss."""
    one, none = Term(torch.tensor(3.0), torch.tensor(2.0)), Term(torch.tensor(0.0), torch.tensor(0.0))
    assert Term.mean([one, none]).loss == 3.0
    assert Term.mean([none, none]).loss == 0.0


def test_the_queue_wraps() -> None:
    """After 7 keys a queue of 5 holds the last 5; of more than it can hold, the last of them."""
    queue, z = Queue(5, DIM), units(7)
    queue.put(z[:3], torch.arange(3))
    assert queue.subjects.tolist() == [0, 1, 2, NOBODY, NOBODY]
    queue.put(z[3:], torch.arange(3, 7))
    assert queue.subjects.tolist() == [5, 6, 2, 3, 4]
    assert torch.equal(queue.keys[queue.subjects.argsort()], z[2:])
    queue.put(units(12, 3), torch.arange(12))
    assert sorted(queue.subjects.tolist()) == [7, 8, 9, 10, 11]
    torch.testing.assert_close(queue.keys[queue.subjects.argsort()], units(12, 3)[7:])


def test_the_queue_is_kept_with_the_weights() -> None:
    """Saved and loaded, a queue goes on at the slot where it stood."""
    queue, again = Queue(5, DIM), Queue(5, DIM)
    queue.put(units(3), torch.arange(3))
    again.load_state_dict(queue.state_dict())
    for each in (queue, again):
        each.put(units(4, 2), torch.arange(10, 14))
    assert all(torch.equal(a, b) for a, b in zip(queue.buffers(), again.buffers(), strict=True))


def relate(students: Tensor, subjects: list[int], own: Keys, teachers: Keys) -> Term:
    return relations(students, torch.tensor(subjects), own, teachers, 0.1)


def test_relations_are_a_divergence_over_other_paired_people() -> None:
    """It is KL between the softmaxes of the cosines to everybody else who is paired; 0 where they agree."""
    teachers, own, students = keys([1, 2, 3, 4], seed=3), keys([1, 2, 3, 4], seed=4), units(4, 5)
    wanted = []
    for i in range(4):
        rest = [j for j in range(4) if j != i]
        p = (teachers.z[i] @ teachers.z[rest].T / 0.1).softmax(-1)
        q = (students[i] @ own.z[rest].T / 0.1).softmax(-1)
        wanted.append((p * (p / q).log()).sum())
    torch.testing.assert_close(relate(students, [1, 2, 3, 4], own, teachers).loss, torch.stack(wanted).mean())
    same = relate(teachers.z, [1, 2, 3, 4], teachers, teachers)
    assert same.loss == pytest.approx(0, abs=1e-6)


def test_unpaired_people_have_no_part_in_relations() -> None:
    """EEG of people without fMRI, and the reverse, change nothing, wherever they stand."""
    teachers, own, students = keys([1, 2, 3], seed=3), keys([1, 2, 3], seed=4), units(3, 5)
    alone = relate(students, [1, 2, 3], own, teachers)
    more_eeg, more_fmri = keys([7, 8], seed=6, first_row=20), keys([9], seed=7, first_row=30)
    crowd = relate(
        torch.cat([units(2, 8), students]),
        [7, 8, 1, 2, 3],
        joined(more_eeg, own),
        joined(teachers, more_fmri),
    )
    assert [int(alone.n), int(crowd.n)] == [3, 3]
    torch.testing.assert_close(alone.loss, crowd.loss)


def test_the_teacher_gets_no_gradient() -> None:
    """Relations teach the student's queries alone: nothing flows to either side's keys."""
    parts = [keys([1, 2, 3, 4], seed=seed) for seed in (3, 4)]
    for part in parts:
        part.z.requires_grad_()
    students = units(4, 5).requires_grad_()
    relate(students, [1, 2, 3, 4], *parts).loss.backward()
    assert students.grad is not None
    assert students.grad.abs().sum() > 0
    assert all(part.z.grad is None for part in parts)


def test_too_few_pairs_have_no_relations() -> None:
    """With nobody paired, or one other person only, there is nothing to relate to: no loss, no NaN."""
    for own, teachers in ((keys([1, 2]), keys([5, 6])), (keys([1, 2]), keys([1, 2])), (keys([]), keys([]))):
        students = units(2).requires_grad_()
        term = relate(students, [1, 2], own, teachers)
        term.loss.backward()
        assert [float(term.n), float(term.loss.detach())] == [0, 0]
        assert students.grad is not None
        assert not students.grad.any()


def test_retrieval_counts_the_right_person_against_chance() -> None:
    """A query beside its own key is right, beside another's wrong; chance is the share of right ones."""
    found = keys([1, 2, 3, 3])
    queries = found.z[[0, 2, 1]]
    hits, chance = nearest_is_right(
        queries, torch.tensor([1, 2, 3]), found, torch.ones(3, 4, dtype=torch.bool)
    )
    assert hits.tolist() == [1, 0, 0]
    assert chance.tolist() == [0.25, 0.25, 0.5]
    none, _ = nearest_is_right(queries[:1], torch.tensor([9]), found, torch.ones(1, 4, dtype=torch.bool))
    assert len(none) == 0


def test_at_the_start_the_loss_is_that_of_guessing() -> None:
    """Where all keys are alike, the loss is the logarithm of how many there are to choose from."""
    alike = Keys(units(1).expand(4, -1), torch.arange(4), torch.arange(4))
    assert float(loss(alike, [0, 1, 2, 3]).loss) == pytest.approx(math.log(4), abs=1e-5)
