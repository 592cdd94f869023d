"""What training makes of recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.adapt import fit  # noqa: E402
from offline.data.sources import Folder  # noqa: E402
from offline.data.trials import IGNORE, mirror, population  # noqa: E402
from offline.finetune.data import adapted_prior  # noqa: E402
from offline.objectives.imagery import Config, last, log_odds, loss  # noqa: E402
from offline.probe.features import Signal  # noqa: E402
from offline.probe.tasks import Session, read_sessions  # noqa: E402
from offline.train.augment import Augment, Augmenter  # noqa: E402
from offline.train.batches import Plan  # noqa: E402
from offline.train.cuts.trials import Config as Trials  # noqa: E402
from offline.train.cuts.trials import TrialBatches  # noqa: E402
from offline.train.data import prepare  # noqa: E402
from streamer.dsp.align import Config as Align  # noqa: E402
from streamer.dsp.bandpass import Config as Bandpass  # noqa: E402
from streamer.errors import RecordingError  # noqa: E402
from streamer.types import make_chunk  # noqa: E402

CLASSES = ("rest", "left_fist", "right_fist")
NAMES = ("FC3", "FCz", "FC4", "C3", "Cz", "C4", "CP3", "CPz", "CP4")
DSP = (Bandpass(low=4.0, high=30.0, order=2), Align())


@pytest.fixture(scope="module")
def prepared(corpus_dir: Path) -> list[Any]:
    signal = Signal(NAMES, 160.0, DSP)
    return [one for session in sessions(corpus_dir, "A1") for one in prepare(session, signal, CLASSES)]


def sessions(corpus: Path, subject: str) -> list[Session]:
    return read_sessions(Folder(path=corpus), [subject], "EEG")


def batches(prepared: list[Any], **options: Any) -> TrialBatches:
    return TrialBatches(prepared, Trials(), Plan(sfreq=160.0, hop=10, n_classes=3, batch_size=4, **options))


def test_training_sees_what_the_engine_would_feed(tiny_bundle: Any, corpus_dir: Path) -> None:
    """A preprocessed recording is bit for bit what the engine's chain makes of it, chunk by chunk."""
    session = sessions(corpus_dir, "A3")[0]
    recording, n_times = session.recording, len(session.recording.times)
    chain = fit(tiny_bundle, recording.info).chain
    parts, start = [], 0
    for n in [7, 1, 400, 33] * 100:
        times = np.arange(start, start + n) / 160.0
        parts.append(chain(make_chunk(recording.data[start : start + n], start, times[: n_times - start])))
        start += n
        if start >= n_times:
            break
    live = np.concatenate([part.data for part in parts])
    contract = tiny_bundle.manifest.input
    signal = Signal(contract.ch_names, contract.sfreq, contract.dsp)
    (offline,) = prepare(session, signal, CLASSES)
    np.testing.assert_array_equal(offline.data, live)


def test_hops_are_labelled_by_their_last_sample(prepared: list[Any]) -> None:
    """A hop has the class asked for, nothing for 0.5 s after each change, nor where the past is cut off."""
    data = batches(prepared)
    x, hops, side, answer = data[0]
    assert x.shape == (4, 9, 1380)
    assert hops.shape == answer.shape == (4, 138)
    since = (np.arange(138) * 10 + 9 - 580) / 160.0  # the cue stands 58 hops into the window
    labels = hops[1].numpy()
    assert (labels[since < -1.6] == IGNORE).all(), "the model's past is not settled"
    assert (labels[(since > -1.4) & (since < 0)] == 0).all()
    assert (labels[(since >= 0) & (since <= 0.5)] == IGNORE).all()
    assert (labels[(since > 0.5) & (since < 4)] == 1 + int(side[1])).all()
    assert (labels[(since > 4.5)] == 0).all()
    np.testing.assert_array_equal(answer[1].numpy() == 1, (since > 0.5) & (since <= 3.0))


def test_the_draw_depends_on_seed_and_epoch_alone(prepared: list[Any]) -> None:
    """The same seed and epoch give the same batches in any order; another epoch gives others."""
    augment = Augmenter(Augment(mirror=0.5, gain=0.1, noise=0.1), NAMES, CLASSES)
    options: dict[str, Any] = {"augment": augment, "seed": 3}
    one, again = batches(prepared, **options), batches(prepared, **options)
    one.begin(1)
    again.begin(1)
    again[0]
    assert torch.equal(one[1][0], again[1][0])
    again.begin(2)
    assert not torch.equal(one[1][0], again[1][0])


def test_mirroring_swaps_hemispheres_and_hands(prepared: list[Any]) -> None:
    """Mirroring everything exchanges C3 and C4 and left and right, and twice is not at all."""
    order = mirror(NAMES)
    assert [NAMES[i] for i in order] == ["FC4", "FCz", "FC3", "C4", "Cz", "C3", "CP4", "CPz", "CP3"]
    x, hops, side, _ = (part.numpy() for part in batches(prepared)[0])
    only = Augmenter(Augment(mirror=1.0), NAMES, CLASSES)
    flipped, hops2 = only(x.copy(), hops, np.random.default_rng(0))
    _, side2 = only(x.copy(), side + 1, np.random.default_rng(0))
    np.testing.assert_array_equal(flipped[:, 3], x[:, 5])
    np.testing.assert_array_equal(side2 - 1, 1 - side)
    assert ((hops2 == 2) == (hops == 1)).all()
    with pytest.raises(RecordingError, match="no counterpart"):
        mirror(("C3", "Cz"))


def test_mirroring_stays_within_a_band() -> None:
    """Behind a filterbank each band is mirrored by itself."""
    bands = np.arange(6, dtype=np.float32).reshape(1, 6, 1)  # C3, Cz, C4 in one band, then in the next
    only = Augmenter(Augment(mirror=1.0), ("C3", "Cz", "C4"), CLASSES)
    flipped, _ = only(bands, np.zeros(1, dtype=np.int64), np.random.default_rng(0))
    assert flipped.ravel().tolist() == [2, 1, 0, 5, 4, 3]


def test_groups_have_priors_of_their_own() -> None:
    """The prior of grouped channels is that of each group, and nothing between them."""
    rng = np.random.default_rng(0)
    covs = [np.cov(rng.standard_normal((4, 50))) for _ in range(5)]
    prior = np.array(population(covs, groups=2))
    np.testing.assert_array_equal(prior[:2, 2:], 0)
    np.testing.assert_array_equal(prior[2:, 2:], np.array(population(cov[2:, 2:] for cov in covs)))


def test_the_prior_is_the_populations_covariance(corpus_dir: Path) -> None:
    """An align step without a prior gets a symmetric one of the size of the signal; one with it keeps it."""
    step = adapted_prior(sessions(corpus_dir, "A1"), Signal(NAMES, 160.0, DSP))[1]
    assert isinstance(step, Align)
    prior = np.array(step.prior)
    np.testing.assert_array_equal(prior, prior.T)
    assert np.linalg.eigvalsh(prior).min() > 0
    assert 10 < np.trace(prior) / 9 < 200  # µV²: sines of 4 to 14 µV in noise of 4 µV
    assert adapted_prior([], Signal(NAMES, 160.0, (DSP[0], step))) == (DSP[0], step)


def test_the_loss_of_members_is_that_of_each_alone() -> None:
    """Summed over members, which take turns with the objectives, none depends on another."""
    torch.manual_seed(0)
    logits = torch.randn(3, 3, 20, 3)
    hops, side = torch.randint(0, 3, (3, 20)), torch.tensor([0, 1, 1])
    answer = torch.ones(3, 20)
    kinds = [Config(), Config(trial_weight=0.0, last_weight=1.0)]
    together = loss(logits, hops, side, answer, kinds, 0.1)
    alone = sum(loss(logits[i : i + 1], hops, side, answer, [kinds[i % 2]], 0.1) for i in range(3))
    assert torch.allclose(together, torch.as_tensor(alone), atol=1e-6)


def test_the_last_hops_of_an_answer_are_its_last() -> None:
    """Of the hops that a trial's answer is taken from, the last ones; where there are none, none."""
    answer = torch.tensor([[0, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).float()
    wanted = torch.tensor([[0, 0, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).float()
    assert torch.equal(last(answer), wanted)
    before = torch.tensor([[0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).float()
    assert torch.equal(last(answer, 2), before)


def test_an_early_answer_is_learned_where_it_is_given() -> None:
    """One second before the end, at ten hops a second, the loss hangs on two hops, and on no others."""
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 30, 3, requires_grad=True)
    answer = torch.zeros(1, 30)
    answer[:, 5:25] = 1
    early = Config(hop_weight=0.0, trial_weight=0.0, early_weight=1.0, early_s=1.0)
    loss(logits, torch.zeros(1, 30).long(), torch.tensor([1]), answer, [early], 0.1).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].abs().sum(dim=-1).nonzero().flatten().tolist() == [13, 14]


def test_late_answers_are_learned_one_by_one() -> None:
    """Of the last second every hop counts alike, and one that is right does not make up for a wrong one."""
    answer, side, late = (
        torch.ones(1, 30),
        torch.tensor([1]),
        Config(hop_weight=0, trial_weight=0, late_weight=1),
    )
    late = late.model_copy(update={"late_s": 1.0})
    logits = torch.zeros(1, 1, 30, 3)
    logits[..., :20, 1] = 9.0  # wrong, and too early to count
    even = loss(logits, torch.zeros(1, 30).long(), side, answer, [late], 0.1)
    assert even.item() == pytest.approx(np.log(2), abs=1e-6)
    logits[..., 20:25, 2], logits[..., 25:, 1] = 9.0, 9.0
    assert loss(logits, torch.zeros(1, 30).long(), side, answer, [late], 0.1).item() == pytest.approx(
        4.5, abs=1e-3
    )


@pytest.mark.parametrize(
    ("term", "refused"),
    [
        ({"early_weight": 1.0, "early_s": 2.5}, True),
        ({"early_weight": 1.0, "early_s": 2.45}, True),
        ({"early_weight": 1.0, "early_s": 2.3}, False),
        ({"late_weight": 1.0, "late_s": 0.02}, True),
        ({"late_weight": 1.0, "late_s": 2.6}, True),
        ({"late_weight": 1.0, "late_s": 2.5}, False),
        ({"early_s": 9.0, "late_s": 9.0}, False),
    ],
)
def test_a_term_that_is_learned_from_nothing_is_refused(term: dict[str, float], refused: bool) -> None:
    """What is out of reach is said, and the loss of what is not hangs on the logits."""
    one = Config(hop_weight=0.0, trial_weight=0.0, **term)
    assert (one.out_of_reach(2.5, 0.0625) is not None) == refused
    logits, answer = torch.zeros(1, 1, 60, 3, requires_grad=True), torch.zeros(1, 60)
    answer[:, 8:48] = 1
    loss(logits, torch.zeros(1, 60).long(), torch.tensor([1]), answer, [one], 0.0625).sum().backward()
    if not refused and (one.early_weight or one.late_weight):
        assert logits.grad is not None
        assert logits.grad.abs().sum() > 0


def test_log_odds_average_right_over_left_where_the_answer_is_taken() -> None:
    """The trial's log-odds are the mean difference of the last two logits over the marked hops."""
    logits = torch.zeros(1, 4, 3)
    logits[0, :, 2] = torch.tensor([9.0, 1.0, 3.0, 9.0])
    assert log_odds(logits, torch.tensor([[0.0, 1.0, 1.0, 0.0]])).item() == pytest.approx(2.0)
