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
from offline.train.batches import Plan, cross_entropy, sample_labels  # noqa: E402
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
    spans = ((0, 60, 0), (100, 300, 1), (400, 500, 2))
    batches = Crops(length_s=1.0, settle_s=0.39, from_s=0.3).batches(
        [counting(600, spans)], plan(epoch_steps=4)
    )
    seen, early = set(), set()
    for x, hops in (batches[i] for i in range(len(batches))):
        for row, labels in zip(x[:, 0].numpy(), hops.numpy(), strict=True):
            start = int(row[0])
            for hop, label in enumerate(labels):
                end = start + (hop + 1) * HOP - 1
                wanted = next((k for first, after, k in spans if first + 30 < end < after), IGNORE)
                unsettled = start > 0 and end - start < 39
                assert label == (IGNORE if unsettled else wanted)
                seen.add(int(label))
                early.add(end - start < 39 and label != IGNORE)
    assert seen == {0, 1, 2, IGNORE}
    assert early == {True, False}, "what begins with its recording is learned from at once"


def test_crops_lie_around_labelled_samples() -> None:
    """Each holds one, in a recording that is hardly labelled; one that is short is a crop by itself."""
    long, short = counting(5000, ((2500, 2520, 1),)), counting(60, ((0, 60, 0),))
    batches = Crops(length_s=1.0).batches([long, short], plan(epoch_steps=20))
    for x, _ in (batches[i] for i in range(len(batches))):
        for start in x[:, 0, 0].numpy():
            assert start == 0 or 2400 < start < 2520


def test_a_window_ends_where_it_was_asked_to() -> None:
    """Each marker once per pass; ends lie from_s to to_s after it, in its span; zeros stand before all."""
    spans = ((5, 90, 0), (200, 240, 1), (400, 420, 2), (430, 900, 2))
    batches = Windows(window_s=0.5, from_s=0.3, to_s=0.6).batches([counting(600, spans)], plan(epoch_steps=1))
    x, labels = batches[0]
    ends = x[:, 0, -1].numpy() + 1
    onsets, latest = np.array([[5, 200, 430], [65, 240, 490]])[:, labels.numpy()]
    assert ((ends - onsets >= 30) & (ends <= latest)).all()
    assert set(np.bincount(labels.numpy())) <= {5, 6}, "the marker that is too short is left out"
    for row, end in zip(x[:, 0].numpy(), ends.astype(int), strict=True):
        np.testing.assert_array_equal(row, np.maximum(np.arange(end - 50, end), 0))


def test_the_draw_depends_on_seed_and_epoch_alone() -> None:
    """The same epoch gives the same batches, whatever was drawn before; another one or seed gives others."""
    augment = Augmenter(Augment(gain=0.2, noise=0.1, recombine=0.5), ["EMG1"], ["a", "b", "c"])
    some = [counting(900, ((0, 300, 1), (300, 600, 0), (600, 900, 1)))]
    for cut in (Crops(length_s=1.0), Windows(window_s=1.0, to_s=2.0)):
        one, two, other = (
            cut.batches(some, plan(augment=augment, epoch_steps=2, seed=seed)) for seed in (0, 0, 1)
        )
        two[1]
        first = one[0][0]
        assert torch.equal(first, two[0][0])
        two.begin(1)
        for another in (two[0][0], other[0][0], one[1][0]):
            assert not torch.equal(first, another)


def test_labels_come_earlier_or_later_together() -> None:
    """Each crop's labels are those of its recording moved by one number of samples, shift_s at most."""
    augment = Augmenter(Augment(shift_s=0.1), ["EMG1"], ["a", "b", "c"])
    one = counting(98, ((0, 40, 1), (40, 98, 2)))  # the crop goes on behind its end
    classes = sample_labels(one, 0.0)
    batches = Crops(length_s=1.0).batches([one], plan(augment=augment, epoch_steps=4))
    ends, found = np.arange(HOP - 1, 100, HOP), set()
    for _, hops in (batches[i] for i in range(4)):
        for labels in hops.numpy():
            fits = []
            for shift in range(-10, 11):
                asked = ends + shift
                known = (ends < 98) & (asked >= 0) & (asked < 98)
                if (labels == np.where(known, classes[np.clip(asked, 0, 97)], IGNORE)).all():
                    fits.append(shift)
            assert fits, labels
            found.add((fits[0], fits[-1]))
    assert min(last for _, last in found) < 0 < max(first for first, _ in found)


def test_classes_count_alike_and_an_epoch_is_one_pass() -> None:
    """Four times as many hops of a class weigh no more than the other's, unless that is asked for."""
    logits = torch.tensor([3.0, 0.0, 0.0])
    model = _Saying(logits)
    right, wrong = (-logits.log_softmax(0)[k].item() for k in (0, 1))
    for weights, share in (("balanced", 0.5), ("none", 0.8)):
        cut = Crops(length_s=1.0, class_weights=weights)
        batches = cut.batches([counting(100, ((0, 80, 0), (80, 100, 1)))], plan())
        value, _ = batches.loss(model, batches[0])
        assert value.item() == pytest.approx(share * right + (1 - share) * wrong, abs=0.06)
    assert len(Crops(length_s=1.0).batches([counting(3200, ((0, 3200, 0),))], plan())) == 2


class _Saying:
    """A model that says the same at every hop."""

    def __init__(self, logits: Any) -> None:
        self._logits = logits

    def init_state(self, _batch: int) -> tuple[()]:
        return ()

    def __call__(self, x: Any, state: Any) -> Any:
        return {"logits": self._logits.expand(len(x), x.shape[2] // HOP, -1)}, state


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
    model = SMALL.model_copy(update={"upright": 0}).build().eval()
    for net in model.members:
        torch.nn.init.zeros_(net.orientation.prior)
    x = torch.randn(1, 5, 400)
    with torch.no_grad():
        wanted = model(x, model.init_state(1))[0]["logits"]
        for other in (x.roll(2, 1), x.flip(1), x.flip(1).roll(1, 1)):
            torch.testing.assert_close(
                model(other, model.init_state(1))[0]["logits"], wanted, atol=1e-4, rtol=0
            )
