"""The imagery net: its members, and the same members side by side."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from offline.models.motor_imagery import Config, MotorImagery


def trained(members: int) -> MotorImagery:
    """Return a net whose norms have seen something."""
    torch.manual_seed(0)
    net = Config(n_chans=6, members=members, filters=5, slow=3, dim=4).build()
    with torch.no_grad():
        net(3 * torch.randn(4, 6, 400) + 1, net.init_state(4))
    return net.eval()


@pytest.mark.parametrize("members", [1, 3])
def test_side_by_side_the_members_say_the_same(members: int) -> None:
    """Logits, latents and those of each member are equal, from any state on."""
    net = trained(members)
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
                torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_members_do_not_see_each_other() -> None:
    """Side by side, other weights of one member change that member's logits alone."""
    net = trained(2)
    x = torch.randn(1, 6, 200)
    with torch.inference_mode():
        before = net.fused().forward_members(x, net.fused().init_state(1))[0]
        for weight in net.members[1].parameters():
            weight.mul_(1.5)
        after = net.fused().forward_members(x, net.fused().init_state(1))[0]
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
