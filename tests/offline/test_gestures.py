"""Properties of the armband net: who turns the ring, who takes it as it is, what is usual for a person."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from offline.benchmark.standardise import Standard, running  # noqa: E402
from offline.blocks.running import RunningStandard  # noqa: E402
from offline.models.gestures import SMALL  # noqa: E402

MEMORY = 20


def test_a_running_standard_is_that_of_the_baselines() -> None:
    """Mean and SD are those of `benchmark.standardise`, but for the row itself, which counts here."""
    rng = np.random.default_rng(0)
    rows = rng.normal(3, 2, (200, 4))
    block = RunningStandard(4, MEMORY).double().eval()
    block.mean.fill_(2.0), block.variance.fill_(4.0)
    with torch.no_grad():
        mine, _ = block(torch.from_numpy(rows.T[None]), block.init_state(1))
    start = Standard(np.full(4, 2.0), np.full(4, 4.0))
    hop_s = -np.log(block.decay)  # of a time constant of 1 s
    theirs = running(rows, np.zeros(len(rows), dtype=np.int64), start, hop_s, 1.0)
    variance = np.empty_like(rows)
    off, power = np.zeros(4), np.full(4, 4.0)
    for row, x in enumerate(rows):
        off = block.decay * off + (1 - block.decay) * (x - 2)
        power = block.decay * power + (1 - block.decay) * (x - 2) ** 2
        variance[row] = power - off**2
    np.testing.assert_allclose(mine[0].numpy().T, (rows - 2 - _ema(rows - 2)) / np.sqrt(variance), atol=1e-9)
    assert np.corrcoef(mine[0].numpy().T.ravel(), theirs.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("size", [1, 7, 64])
def test_any_chunks_are_standardised_alike(size: int) -> None:
    """Far from what is usual, in silence and after it, pieces give what the whole gives."""
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 1, (192, 3)) * [1.0, 0.01, 10.0] + [0.0, 40.0, -100.0]
    rows[60:100] = 0.0
    x = torch.from_numpy(rows.T[None].copy()).float()
    block = RunningStandard(3, MEMORY).eval()
    whole, end = block(x, block.init_state(1))
    state, parts = block.init_state(1), []
    for part in x.split(size, dim=-1):
        found, state = block(part, state)
        parts.append(found)
    torch.testing.assert_close(torch.cat(parts, dim=-1), whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state, end, atol=1e-3, rtol=1e-4)


def _ema(rows: np.ndarray) -> np.ndarray:
    share, found, past = 1 / MEMORY, np.empty_like(rows), np.zeros(rows.shape[1])
    for row, x in enumerate(rows):
        past = found[row] = past + share * (x - past)
    return found


def test_what_is_usual_for_people_is_learned_and_then_left_alone() -> None:
    """Crops in training move it to their own level and spread; nothing does afterwards."""
    torch.manual_seed(0)
    block = RunningStandard(2, MEMORY)
    level = torch.tensor([5.0, -3.0])[:, None]
    for _ in range(100):
        block(level + 2 * torch.randn(8, 2, 200), block.init_state(8))
    torch.testing.assert_close(block.mean, level[:, 0], atol=0.5, rtol=0)
    torch.testing.assert_close(block.variance, torch.full((2,), 4.0), atol=1.0, rtol=0)
    before = block.mean.clone()
    block.eval()(torch.zeros(1, 2, 5), block.init_state(1))
    assert torch.equal(block.mean, before)


def test_a_turned_armband_hands_over_to_the_nets_that_search() -> None:
    """The less likely the usual orientation, the less the others count, down to nothing."""
    torch.manual_seed(0)
    model = SMALL.model_copy(update={"upright": 2}).build().eval()
    x = torch.randn(1, 5, 400)

    def shares(prior: float) -> torch.Tensor:
        for net in model.members:
            torch.nn.init.zeros_(net.orientation.prior)[0, 0] = prior
        outputs, _ = model(x, model.init_state(1))
        return outputs["latent"][0, :, -1]

    with torch.no_grad():
        sure, unsure, turned = shares(50.0), shares(0.0), shares(-50.0)
        alone, _ = model(x, model.init_state(1))
    torch.testing.assert_close(sure, torch.full_like(sure, model.config.upright_share))
    assert (unsure < sure).all()
    assert float(turned.max()) < 1e-6
    searching = SMALL.model_copy(update={"upright": 0}).build().eval()
    searching.members.load_state_dict(model.members.state_dict())
    with torch.no_grad():
        wanted, _ = searching(x, searching.init_state(1))
    torch.testing.assert_close(alone["logits"], wanted["logits"])


def test_only_the_nets_that_search_learn_from_turned_crops() -> None:
    """The others see every crop as it is, whatever is drawn."""
    torch.manual_seed(0)
    model = SMALL.model_copy(update={"upright": 1, "turned": 1.0, "other_arm": 0.5, "dropout": 0.0}).build()
    model.train()
    x = torch.randn(6, 5, 400)
    twins = (deepcopy(model) for _ in range(2))  # for what is usual for people moves
    one, two = (twin.forward_members(x, twin.init_state(6))[0].detach() for twin in twins)
    assert torch.equal(one[-1], two[-1])
    assert not torch.equal(one[0], two[0])
    rows = torch.arange(5.0)[None, :, None].expand(500, 5, 1)
    seen = {tuple(row.flatten().int().tolist()) for row in model._turned(rows)}
    ring = [tuple(np.roll(np.arange(5), turn).tolist()) for turn in range(5)]
    assert seen == {*ring, *(one[::-1] for one in ring)}
