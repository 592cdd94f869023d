"""Crops and windows of whole recordings, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from offline.data.trials import IGNORE, Prepared  # noqa: E402
from offline.models.gestures import SMALL  # noqa: E402
from offline.train.augment import Augment, Augmenter  # noqa: E402
from offline.train.batches import Plan, cross_entropy  # noqa: E402
from offline.train.cuts.crops import Config as Crops  # noqa: E402
from offline.train.cuts.windows import Config as Windows  # noqa: E402
from offline.train.validate import stepped  # noqa: E402

SFREQ, HOP = 100.0, 5


def counting(n: int, spans: tuple[tuple[int, int, int], ...]) -> Prepared:
    """A recording of one channel whose samples are their own places."""
    return Prepared("A", np.arange(n, dtype=np.float32)[:, None], spans)


def plan(**options: Any) -> Plan:
    return Plan(sfreq=SFREQ, hop=HOP, n_classes=3, batch_size=16, **options)


def test_a_hop_has_the_class_of_its_last_sample() -> None:
    """By hand: later than from_s after the onset and before the end, and not where the past is cut off."""
    spans = ((100, 300, 1), (400, 500, 2))
    batches = Crops(length_s=1.0, settle_s=0.2, from_s=0.3).batches(
        [counting(600, spans)], plan(epoch_steps=4)
    )
    seen = set()
    for x, hops in (batches[i] for i in range(len(batches))):
        for row, labels in zip(x[:, 0].numpy(), hops.numpy(), strict=True):
            start = int(row[0])
            for hop, label in enumerate(labels):
                end = start + (hop + 1) * HOP - 1
                wanted = 1 if 130 < end < 300 else 2 if 430 < end < 500 else IGNORE
                unsettled = start > 0 and end - start < 20
                assert label == (IGNORE if unsettled else wanted)
                seen.add(int(label))
    assert seen == {1, 2, IGNORE}


def test_a_crop_is_never_without_a_label() -> None:
    """Crops lie around labelled samples, in a recording that is hardly labelled and in one that is short."""
    long, short = counting(5000, ((2500, 2520, 1),)), counting(60, ((0, 60, 0),))
    batches = Crops(length_s=1.0).batches([long, short], plan(epoch_steps=3))
    for _, hops in (batches[i] for i in range(len(batches))):
        assert (hops != IGNORE).any(dim=1).all()


def test_a_window_ends_where_it_was_asked_to() -> None:
    """Each marker once per pass; ends lie from_s to to_s after it; zeros stand before the recording."""
    spans = ((5, 90, 0), (200, 300, 1), (400, 420, 2), (430, 900, 2))
    batches = Windows(window_s=0.5, from_s=0.3, to_s=0.6).batches([counting(600, spans)], plan(epoch_steps=1))
    x, labels = batches[0]
    ends = x[:, 0, -1].numpy() + 1
    onsets = np.array([5, 200, 430])[labels.numpy()]
    assert ((ends - onsets >= 30) & (ends - onsets <= 60)).all()
    assert set(np.bincount(labels.numpy())) <= {5, 6}, "the marker that is too short is left out"
    for row, end in zip(x[:, 0].numpy(), ends.astype(int), strict=True):
        np.testing.assert_array_equal(row, np.maximum(np.arange(end - 50, end), 0))


def test_the_draw_depends_on_seed_and_epoch_alone() -> None:
    """The same epoch gives the same crops, whatever was drawn before; another one gives others."""
    augment = Augmenter(Augment(gain=0.2, noise=0.1, shift_s=0.1), ["EMG1"], ["a", "b", "c"])
    make = lambda: Crops(length_s=1.0).batches([counting(900, ((0, 900, 1),))], plan(augment=augment))  # noqa: E731
    one, two = make(), make()
    two[0]
    assert torch.equal(one[0][0], two[0][0])
    two.begin(1)
    assert not torch.equal(one[0][0], two[0][0])


def test_an_armband_is_turned_as_a_ring() -> None:
    """Turned by one at most, each crop is the ring rolled by -1, 0 or 1; flipped, in reverse order."""
    x = np.arange(8, dtype=np.float32)[None, :, None].repeat(50, axis=0)
    labels = np.zeros((50, 1), dtype=np.int64)
    make = lambda **how: Augmenter(Augment(**how), [f"EMG{i}" for i in range(8)], ["a", "b"])  # noqa: E731
    turned, _ = make(rotate=1)(x.copy(), labels, np.random.default_rng(0))
    assert {int(row[0, 0]) for row in turned} == {7, 0, 1}
    assert all((np.diff(row[:, 0]) % 8 == 1).all() for row in turned)
    flipped, _ = make(flip=1.0)(x.copy(), labels, np.random.default_rng(0))
    np.testing.assert_array_equal(flipped, x[:, ::-1])


def test_recombined_crops_share_their_labels() -> None:
    """A crop begins as another one only where all labels are the same, and ends as itself."""
    x = np.arange(40, dtype=np.float32)[:, None, None].repeat(20, axis=2)
    labels = (np.arange(40) % 2)[:, None]
    mixed, same = Augmenter(Augment(recombine=1.0), ["C3"], ["a", "b"])(x, labels, np.random.default_rng(0))
    assert (mixed[:, 0, -1] == np.arange(40)).all()
    assert ((mixed[:, 0, 0] - np.arange(40)) % 2 == 0).all()
    assert (mixed[:, 0, 0] != np.arange(40)).any()
    assert same is labels


def test_a_batch_without_a_label_teaches_nothing() -> None:
    """Its loss is 0 with a gradient of 0, not 0 / 0."""
    logits = torch.randn(1, 2, 3, 4, requires_grad=True)
    value, members = cross_entropy(logits, torch.full((2, 3), IGNORE), torch.ones(4), 0.0)
    value.backward()
    assert (value.item(), members) == (0.0, 1)
    assert not logits.grad.any()


def test_stepping_is_one_pass() -> None:
    """Recordings side by side, filled up and in pieces, are said of what each alone in one call is."""
    torch.manual_seed(0)
    model, rng = SMALL.build().eval(), np.random.default_rng(0)
    lengths = (2301, 40, 3, 1203)
    some = [Prepared("A", rng.normal(size=(n, 5)).astype(np.float32), ()) for n in lengths]
    for one, logits in zip(some, stepped(model, some), strict=True):
        whole = len(one.data) // model.hop * model.hop
        assert len(logits) == whole // model.hop
        if whole:
            x = torch.from_numpy(one.data[:whole].T[None].copy())
            with torch.no_grad():
                alone = model(x, model.init_state(1))[0]["logits"][0]
            np.testing.assert_allclose(logits, alone, atol=1e-5)


def test_a_mirrored_or_turned_arm_is_seen_as_one(tmp_path: Path) -> None:
    """Without a prior for how it sits, an armband turned or mirrored changes no answer of the net."""
    torch.manual_seed(0)
    model = SMALL.build().eval()
    for net in model.members:
        torch.nn.init.zeros_(net.orientation.prior)
    x = torch.randn(1, 5, 400)
    with torch.no_grad():
        wanted = model(x, model.init_state(1))[0]["logits"]
        for other in (x.roll(2, 1), x.flip(1), x.flip(1).roll(1, 1)):
            torch.testing.assert_close(
                model(other, model.init_state(1))[0]["logits"], wanted, atol=1e-4, rtol=0
            )
