"""The imagery net: its nets, and the same nets side by side."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from pydantic import ValidationError

from offline.models.motor_imagery import Config, MotorImagery


def trained(members: int, courses: int = 0) -> MotorImagery:
    """Return a net whose norms have seen something."""
    torch.manual_seed(0)
    config = Config(
        n_chans=6, members=members, courses=courses, filters=5, slow=3, dim=4, course=(7, 3), course_dim=2
    )
    net = config.build()
    with torch.no_grad():
        net(3 * torch.randn(4, 6, 400) + 1, net.init_state(4))
    return net.eval()


@pytest.mark.parametrize(("members", "courses"), [(1, 0), (3, 0), (1, 1), (2, 3)])
def test_side_by_side_the_nets_say_the_same(members: int, courses: int) -> None:
    """Logits, latents and those of each net are equal, from any state on."""
    net = trained(members, courses)
    fused, x = net.fused(), torch.randn(2, 6, 600)
    state, fused_state = net.init_state(2), fused.init_state(2)
    assert (fused.left_context, fused.hop, fused.n_latent) == (net.left_context, net.hop, net.n_latent)
    with torch.inference_mode():
        for part in x.split((10, 290, 300), dim=-1):
            members_say = net.forward_members(part, state)[0]
            torch.testing.assert_close(fused.forward_members(part, fused_state)[0], members_say)
            wanted, state = net(part, state)
            found, fused_state = fused(part, fused_state)
            for name, value in wanted.items():
                torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["members", "courses"])
def test_nets_do_not_see_each_other(kind: str) -> None:
    """Side by side, other weights of one net change that net's logits alone."""
    net = trained(2, 2)
    x = torch.randn(1, 6, 200)
    with torch.inference_mode():
        before = net.fused().forward_members(x, net.fused().init_state(1))[0]
        for weight in getattr(net, kind)[1].parameters():
            weight.mul_(1.5)
        after = net.fused().forward_members(x, net.fused().init_state(1))[0]
    changed = {"members": 1, "courses": 3}[kind]
    for place in range(4):
        assert torch.allclose(before[place], after[place]) == (place != changed)


def test_the_logits_are_linear_in_the_latent() -> None:
    """A head of one's own begins as the model's: weights and a bias give the logits from the latent."""
    net = trained(2, 2)
    with torch.inference_mode():
        outputs, _ = net(torch.randn(8, 6, 400), net.init_state(8))
    latent = outputs["latent"].flatten(0, 1)[20:].double()
    whole = torch.cat([latent, torch.ones(len(latent), 1)], dim=1)
    logits = outputs["logits"].flatten(0, 1)[20:].double()
    fitted = whole @ torch.linalg.lstsq(whole, logits, driver="gelsd").solution
    torch.testing.assert_close(fitted, logits, rtol=0, atol=1e-4)


def test_lengths_that_do_not_fit_are_refused_in_words() -> None:
    """Pools that are no whole number of steps, or shorter than a hop."""
    with pytest.raises(ValidationError, match="multiples of stride 2"):
        Config(pool=61)
    with pytest.raises(ValidationError, match="at least hop 10"):
        Config(courses=1, course_pool=8)
    Config(courses=0, course_pool=8)
